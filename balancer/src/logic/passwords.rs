//! Whether a password is the one that an entry of an htpasswd file stands for, and which entry a user has.

use base64::Engine as _;
use base64::alphabet::STANDARD as ALPHABET;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use md5::{Digest, Md5};

/// As lenient as nginx: what is left over of the last letter may be anything.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &ALPHABET,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::RequireNone)
        .with_decode_allow_trailing_bits(true),
);

const SHA1_LEN: usize = 20;

/// Name and password of `Authorization: Basic …`; nobody has checked the one or the other.
pub fn credentials(value: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let (scheme, encoded) = value.split_at_checked(b"basic ".len())?;
    let mut name = decoded(encoded.trim_ascii()).filter(|_| scheme.eq_ignore_ascii_case(b"basic "))?;
    let colon = memchr::memchr(b':', &name).filter(|colon| *colon > 0)?;
    let password = name.split_off(colon + 1);
    name.truncate(colon);
    Some((name, password))
}

/// The entry of a user in the text of an htpasswd file: what stands between the first and the second colon.
pub fn entry_of<'a>(file: &'a [u8], user: &[u8]) -> Option<&'a [u8]> {
    let lines = file.split(|byte| *byte == b'\n').filter(|line| !line.starts_with(b"#"));
    let rest = lines.filter_map(|line| line.strip_prefix(user)?.strip_prefix(b":")).next()?;
    let end = rest.iter().position(|byte| matches!(byte, b':' | b'\r')).unwrap_or(rest.len());
    Some(&rest[..end])
}

/// `{PLAIN}`, `{SHA}`, `{SSHA}`, `$apr1$` and what crypt(3) knows.
pub fn fits(password: &[u8], entry: &[u8]) -> bool {
    if let Some(plain) = entry.strip_prefix(b"{PLAIN}") {
        return same(password, plain);
    }
    if let Some(encoded) = entry.strip_prefix(b"{SHA}") {
        return decoded(encoded).is_some_and(|digest| same(&sha1(password, b""), &digest));
    }
    if let Some(encoded) = entry.strip_prefix(b"{SSHA}") {
        return decoded(encoded).filter(|salted| salted.len() >= SHA1_LEN).is_some_and(|salted| {
            let (digest, salt) = salted.split_at(SHA1_LEN);
            same(&sha1(password, salt), digest)
        });
    }
    if let Some(rest) = entry.strip_prefix(b"$apr1$") {
        let salt_len = rest.iter().take(8).take_while(|byte| **byte != b'$').count();
        let (salt, digest) = rest.split_at(salt_len);
        return digest.strip_prefix(b"$").is_some_and(|digest| same(&apr1(password, salt), digest));
    }
    is_crypt(entry) && std::str::from_utf8(entry).is_ok_and(|entry| pwhash::unix::verify(password, entry))
}

/// Made of the letters of crypt(3): what is not would be computed with all the same.
fn is_crypt(entry: &[u8]) -> bool {
    let is_letter = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'/');
    let last = entry.rsplit(|byte| *byte == b'$').next().unwrap_or_default();
    !last.is_empty()
        && last.iter().all(is_letter)
        && entry.iter().all(|byte| is_letter(byte) || matches!(byte, b'$' | b'=' | b','))
}

/// Takes as long whatever differs.
fn same(left: &[u8], right: &[u8]) -> bool {
    left.len() == right.len() && left.iter().zip(right).fold(0, |differs, (l, r)| differs | (l ^ r)) == 0
}

/// As nginx: the first `=` ends it, wherever it stands.
fn decoded(encoded: &[u8]) -> Option<Vec<u8>> {
    let end = memchr::memchr(b'=', encoded).unwrap_or(encoded.len());
    BASE64.decode(&encoded[..end]).ok()
}

fn sha1(password: &[u8], salt: &[u8]) -> Vec<u8> {
    let mut context = ring::digest::Context::new(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY);
    context.update(password);
    context.update(salt);
    context.finish().as_ref().to_vec()
}

/// Apache's variant of the MD5-based crypt: the 22 letters behind the salt.
fn apr1(password: &[u8], salt: &[u8]) -> Vec<u8> {
    let inner = Md5::new().chain_update(password).chain_update(salt).chain_update(password).finalize();
    let mut outer = Md5::new().chain_update(password).chain_update(b"$apr1$").chain_update(salt);
    let mut left = password.len();
    while left > 0 {
        outer.update(&inner[..left.min(16)]);
        left = left.saturating_sub(16);
    }
    let mut bits = password.len();
    while bits > 0 {
        outer.update(if bits & 1 == 1 { &[0][..] } else { &password[..1] });
        bits >>= 1;
    }
    let mut digest = outer.finalize();
    for round in 0..1000 {
        let (first, last): (&[u8], &[u8]) =
            if round & 1 == 1 { (password, &digest) } else { (&digest, password) };
        let mut next = Md5::new().chain_update(first);
        if round % 3 > 0 {
            next.update(salt);
        }
        if round % 7 > 0 {
            next.update(password);
        }
        digest = next.chain_update(last).finalize();
    }
    let mut out = Vec::with_capacity(22);
    for [high, middle, low] in [[0, 6, 12], [1, 7, 13], [2, 8, 14], [3, 9, 15], [4, 10, 5]] {
        let word = u32::from(digest[high]) << 16 | u32::from(digest[middle]) << 8 | u32::from(digest[low]);
        letters(word, 4, &mut out);
    }
    letters(digest[11].into(), 2, &mut out);
    out
}

fn letters(mut word: u32, count: usize, out: &mut Vec<u8>) {
    const LETTERS: &[u8; 64] = b"./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    for _ in 0..count {
        out.push(LETTERS[(word & 0x3f) as usize]);
        word >>= 6;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form_takes_its_password_and_no_other() {
        for entry in [
            "{PLAIN}password",
            "{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=",
            "{SSHA}yI6cZwQadOA1e+/f+T+H3eCQQhRzYWx0",
            "$apr1$salt$Xxd1irWT9ycqoYxGFn4cb.",
            "sa3tHJ3/KuYvI",
            "$1$salt$qJH7.N4xYta3aEG/dfqo/0",
        ] {
            assert!(fits(b"password", entry.as_bytes()), "{entry}");
            assert!(!fits(b"passwore", entry.as_bytes()), "{entry}");
            assert!(!fits(b"", entry.as_bytes()), "{entry}");
        }
    }

    #[test]
    fn credentials_are_read_as_nginx_reads_them() {
        let read = |value: &str| {
            let (name, password) = credentials(value.as_bytes())?;
            Some(String::from_utf8_lossy(&[name, password].join(&b' ')).into_owned())
        };
        // `a:b`, `a:bc`, `a:bcd`, with and without what nobody needs.
        for (value, said) in [
            ("Basic YTpi", "a b"),
            ("basic   YTpiYw==", "a bc"),
            ("Basic YTpiYw", "a bc"),
            ("Basic YTpiYw=", "a bc"),
            ("Basic YTpiYx==", "a bc"),
            ("Basic YTpiYw==YTpi", "a bc"),
            ("Basic YTpiY2Q=", "a bcd"),
            ("Basic YTo=", "a "),
            ("Basic YTpiOmM", "a b:c"),
        ] {
            assert_eq!(read(value).as_deref(), Some(said), "{value}");
        }
        // No colon, no name, a letter too much, letters of another alphabet, another scheme.
        for value in [
            "Basic YWI=",
            "Basic OmI=",
            "Basic YTpiY",
            "Basic YTpi_w==",
            "Basic",
            "Basic ",
            "Digest YTpi",
            "",
        ] {
            assert_eq!(read(value), None, "{value}");
        }
    }

    #[test]
    fn broken_entries_fit_nothing() {
        for entry in
            ["", "$1$", "$apr1$", "{SSHA}Zm9vCg==", "{SHA}Zm9vCg==", "{SHA}_____", "{SSHA}_____", "x"]
        {
            assert!(!fits(b"1", entry.as_bytes()), "{entry}");
            assert!(!fits(b"", entry.as_bytes()), "{entry}");
        }
    }

    #[test]
    fn an_entry_is_found_by_its_whole_name() {
        let file = b"# bob:comment\nbobby:1\nbob:2:more\r\nbob:3\nlast:4";
        assert_eq!(entry_of(file, b"bob"), Some(&b"2"[..]));
        assert_eq!(entry_of(file, b"last"), Some(&b"4"[..]));
        assert_eq!(entry_of(file, b"bo"), None);
        assert_eq!(entry_of(file, b"# bob"), None);
    }

    proptest::proptest! {
        #[test]
        fn no_entry_panics(
            password in ".{0,20}",
            entry in "([$](1|2a|2y|5|6|sha1)[$])?(rounds=|[0-9]{1,3}[$])?[./0-9A-Za-z$=,]{0,60}|.{0,60}",
        ) {
            let _ = fits(password.as_bytes(), entry.as_bytes());
            let _ = entry_of(entry.as_bytes(), password.as_bytes());
        }

        #[test]
        fn what_apr1_makes_it_takes(password in ".{0,40}", salt in "[./0-9A-Za-z]{1,8}") {
            let made = [b"$apr1$", salt.as_bytes(), b"$", &apr1(password.as_bytes(), salt.as_bytes())].concat();
            proptest::prop_assert!(fits(password.as_bytes(), &made));
        }
    }
}
