//! Distinguished names as text, in the two forms that nginx's variables have.

use x509_parser::der_parser::asn1_rs::{Any, Tag};
use x509_parser::prelude::{AttributeTypeAndValue, X509Name};

/// OpenSSL's short names; others are told by their numbers.
const SHORT: &[(&str, &str)] = &[
    ("2.5.4.3", "CN"),
    ("2.5.4.4", "SN"),
    ("2.5.4.5", "serialNumber"),
    ("2.5.4.6", "C"),
    ("2.5.4.7", "L"),
    ("2.5.4.8", "ST"),
    ("2.5.4.9", "street"),
    ("2.5.4.10", "O"),
    ("2.5.4.11", "OU"),
    ("2.5.4.12", "title"),
    ("2.5.4.42", "GN"),
    ("2.5.4.43", "initials"),
    ("2.5.4.46", "dnQualifier"),
    ("1.2.840.113549.1.9.1", "emailAddress"),
    ("0.9.2342.19200300.100.1.1", "UID"),
    ("0.9.2342.19200300.100.1.25", "DC"),
];

/// RFC 2253: `CN=x,O=y`, the last part of the name first.
pub fn rfc2253(name: &X509Name<'_>) -> String {
    let parts: Vec<_> = name.iter_rdn().collect();
    let mut text = String::new();
    for (i, part) in parts.iter().rev().enumerate() {
        for (j, attribute) in part.iter().enumerate() {
            match (i, j) {
                (0, 0) => {}
                (_, 0) => text.push(','),
                _ => text.push('+'),
            }
            text.push_str(&kind(attribute));
            text.push('=');
            escape(value(attribute.attr_value()), &mut text);
        }
    }
    text
}

/// OpenSSL's oneline form: `/O=y/CN=x`.
pub fn oneline(name: &X509Name<'_>) -> String {
    let mut text = String::new();
    for attribute in name.iter_attributes() {
        text.push('/');
        text.push_str(&kind(attribute));
        text.push('=');
        for &byte in value(attribute.attr_value()) {
            match byte {
                b' '..=b'~' => text.push(char::from(byte)),
                _ => text.push_str(&format!("\\x{byte:02X}")),
            }
        }
    }
    text
}

fn kind(attribute: &AttributeTypeAndValue<'_>) -> String {
    let number = attribute.attr_type().to_id_string();
    SHORT.iter().find(|(known, _)| *known == number).map_or(number, |(_, short)| (*short).to_owned())
}

/// The value's bytes; of the wide string types as they are.
fn value<'a>(value: &'a Any<'_>) -> &'a [u8] {
    debug_assert!(value.tag() != Tag::Sequence, "a name's value is a string");
    value.data
}

fn escape(value: &[u8], text: &mut String) {
    for (i, &byte) in value.iter().enumerate() {
        let at_edge = i == 0 && matches!(byte, b' ' | b'#') || i + 1 == value.len() && byte == b' ';
        match byte {
            b',' | b'+' | b'"' | b'\\' | b'<' | b'>' | b';' => {
                text.push('\\');
                text.push(char::from(byte));
            }
            b' '..=b'~' if at_edge => {
                text.push('\\');
                text.push(char::from(byte));
            }
            b' '..=b'~' => text.push(char::from(byte)),
            _ => text.push_str(&format!("\\{byte:02X}")),
        }
    }
}
