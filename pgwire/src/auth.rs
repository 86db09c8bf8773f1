//! Proving who one is: what is stored for a user, and the md5 and SCRAM-SHA-256 exchanges.

pub mod md5;
pub mod scram;

use subtle::ConstantTimeEq;

/// A user's entry in a password list, by its form.
#[derive(Clone, PartialEq, Eq)]
pub enum Stored<'a> {
    Plain(&'a str),
    /// `md5` and 32 hexadecimal digits.
    Md5(&'a str),
    Scram(scram::Verifier),
}

impl<'a> Stored<'a> {
    /// What has neither special form is a plain password.
    pub fn parse(text: &'a str) -> Self {
        if md5::is_hash(text) {
            return Stored::Md5(text);
        }
        scram::Verifier::parse(text).map_or(Stored::Plain(text), Stored::Scram)
    }

    /// Whether a password that came in clear is the right one.
    pub fn accepts(&self, user: &str, password: &[u8]) -> bool {
        match self {
            Stored::Plain(stored) => !stored.is_empty() && same(stored.as_bytes(), password),
            Stored::Md5(stored) => same(stored.as_bytes(), md5::hash(user, password).as_bytes()),
            Stored::Scram(verifier) => verifier.accepts(password),
        }
    }
}

/// Compares without telling by its duration where the difference is.
pub(crate) fn same(a: &[u8], b: &[u8]) -> bool {
    a.ct_eq(b).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form_is_told_by_its_look() {
        let hash = md5::hash("u", b"secret");
        assert!(matches!(Stored::parse(&hash), Stored::Md5(_)));
        assert!(matches!(Stored::parse("md5 is old"), Stored::Plain(_)));
        let verifier = scram::Verifier::make("secret", b"0123456789abcdef", 16).to_string();
        assert!(matches!(Stored::parse(&verifier), Stored::Scram(_)));
        assert!(matches!(Stored::parse("SCRAM-SHA-256$x"), Stored::Plain(_)));
    }

    #[test]
    fn a_clear_password_is_checked_against_each_form() {
        let hash = md5::hash("u", b"secret");
        let verifier = scram::Verifier::make("secret", b"0123456789abcdef", 16).to_string();
        for stored in ["secret", &hash, &verifier] {
            assert!(Stored::parse(stored).accepts("u", b"secret"), "{stored}");
            assert!(!Stored::parse(stored).accepts("u", b"Secret"), "{stored}");
        }
        assert!(!Stored::parse("").accepts("u", b""), "an empty password opens nothing");
    }
}
