//! What names, passwords, titles and slugs may look like. Errors are sentences for the client.

const PASSWORD_LEN_MIN: usize = 8;
const PASSWORD_LEN_MAX: usize = 256;
const NAME_LEN_MAX: usize = 80;
const TITLE_LEN_MAX: usize = 200;

/// # Errors
/// What is allowed.
pub fn check_username(name: &str) -> Result<(), &'static str> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "_.-".contains(c);
    // Deleted users are renamed to this form.
    let reserved = name.starts_with("deleted-");
    if (2..=32).contains(&name.len()) && name.chars().all(plain) && !reserved {
        Ok(())
    } else {
        Err("2 to 32 of a-z, 0-9, _, . and -, not beginning with deleted-")
    }
}

/// # Errors
/// What is allowed.
pub fn check_password(password: &str) -> Result<(), &'static str> {
    match password.chars().count() {
        PASSWORD_LEN_MIN..=PASSWORD_LEN_MAX => Ok(()),
        _ => Err("8 to 256 characters"),
    }
}

/// # Errors
/// What is allowed.
pub fn check_display_name(name: &str) -> Result<(), &'static str> {
    check_line(name, NAME_LEN_MAX).then_some(()).ok_or("1 to 80 characters on one line, not only blanks")
}

/// # Errors
/// What is allowed.
pub fn check_title(title: &str) -> Result<(), &'static str> {
    check_line(title, TITLE_LEN_MAX).then_some(()).ok_or("1 to 200 characters on one line, not only blanks")
}

/// # Errors
/// What is allowed.
pub fn check_slug(slug: &str) -> Result<(), &'static str> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let looks_like_id = uuid::Uuid::try_parse(slug).is_ok();
    if (3..=64).contains(&slug.len()) && slug.chars().all(plain) && !looks_like_id {
        Ok(())
    } else {
        Err("3 to 64 of a-z, 0-9 and -, and no UUID")
    }
}

fn check_line(text: &str, len_max: usize) -> bool {
    !text.trim().is_empty() && text.chars().count() <= len_max && !text.chars().any(char::is_control)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_have_limits() {
        assert!(check_username("alice").is_ok() && check_username("a.b-c_9").is_ok());
        for wrong in ["a", "Alice", "al ice", "", "deleted-1", &"x".repeat(33)] {
            assert!(check_username(wrong).is_err(), "{wrong}");
        }
        assert!(check_password("12345678").is_ok() && check_password("1234567").is_err());
        assert!(
            check_title("Hello, world").is_ok()
                && check_title(" \t").is_err()
                && check_title("a\nb").is_err()
        );
        assert!(check_display_name("Älice").is_ok() && check_display_name("").is_err());
    }

    #[test]
    fn a_slug_is_never_taken_for_an_id() {
        assert!(check_slug("test-session").is_ok());
        assert!(check_slug("0190c8a0-0000-7000-8000-000000000000").is_err());
        assert!(check_slug("0190c8a0000070008000000000000000").is_err());
        assert!(check_slug("ab").is_err() && check_slug("A-b").is_err());
    }

    proptest! {
        #[test]
        fn accepted_slugs_fit_the_constraint_of_the_table(slug in "[a-z0-9-]{0,70}") {
            if check_slug(&slug).is_ok() {
                prop_assert!((3..=64).contains(&slug.len()));
            }
        }

        #[test]
        fn any_text_is_judged_without_panic(text in "\\PC{0,100}") {
            let _ = (check_username(&text), check_password(&text), check_title(&text), check_slug(&text));
        }
    }
}
