//! The old challenge: md5 of password and user, then md5 of that and a salt.

use md5::{Digest, Md5};

use super::same;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// `md5` and 32 hexadecimal digits.
pub fn is_hash(text: &str) -> bool {
    text.strip_prefix("md5")
        .is_some_and(|digits| digits.len() == 32 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// What is stored for a user.
pub fn hash(user: &str, password: &[u8]) -> String {
    let digest = Md5::new().chain_update(password).chain_update(user.as_bytes()).finalize();
    format!("md5{}", hex(&digest))
}

/// What a client answers to the salt, from its stored hash.
pub fn answer(stored_hash: &str, salt: [u8; 4]) -> String {
    let digits = stored_hash.strip_prefix("md5").unwrap_or(stored_hash).to_ascii_lowercase();
    let digest = Md5::new().chain_update(digits).chain_update(salt).finalize();
    format!("md5{}", hex(&digest))
}

/// Whether the client's answer is the right one.
pub fn accepts(stored_hash: &str, salt: [u8; 4], answered: &[u8]) -> bool {
    same(answer(stored_hash, salt).as_bytes(), answered)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_postgres_own() {
        // SELECT 'md5' || md5('secret' || 'bob')
        assert_eq!(hash("bob", b"secret"), format!("md5{}", hex(&Md5::digest(b"secretbob"))));
        assert_eq!(hash("postgres", b"postgres"), "md53175bce1d3201d16594cebf9d7eb3f9d");
    }

    #[test]
    fn only_the_right_answer_is_accepted() {
        let stored = hash("bob", b"secret");
        let salt = [1, 2, 3, 4];
        assert!(accepts(&stored, salt, answer(&stored, salt).as_bytes()));
        assert!(!accepts(&stored, [1, 2, 3, 5], answer(&stored, salt).as_bytes()));
        assert!(!accepts(&stored, salt, b""));
    }

    #[test]
    fn only_the_full_form_is_a_hash() {
        assert!(is_hash(&hash("a", b"b")));
        assert!(!is_hash("md5") && !is_hash("md5zz") && !is_hash(&hash("a", b"b")[1..]));
    }
}
