//! The list of users and passwords: `"user" "password"` per line, a doubled quote for one, `;` starts a comment.

use std::collections::BTreeMap;

use super::values::Secret;

/// Postgres' limit of a name, with the ending zero byte.
const MAX_USER_LEN: usize = 128;

/// Lines that are wrong, by number.
pub type Wrong = Vec<(usize, &'static str)>;

/// Reads the list; lines that cannot be read are named and left out.
pub fn parse(text: &str) -> (BTreeMap<String, Secret>, Wrong) {
    let mut users = BTreeMap::new();
    let mut wrong = Wrong::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with([';', '#']) {
            continue;
        }
        match entry(line) {
            Ok((user, password)) => drop(users.insert(user, Secret::new(password))),
            Err(what) => wrong.push((index + 1, what)),
        }
    }
    (users, wrong)
}

/// What follows the password on its line is passed over, as in PgBouncer.
fn entry(line: &str) -> Result<(String, String), &'static str> {
    let (user, rest) = quoted(line).ok_or("expected a user name in double quotes")?;
    let (password, _) =
        quoted(rest.trim_start()).ok_or("expected a password in double quotes after the user")?;
    if user.is_empty() || user.len() >= MAX_USER_LEN {
        return Err("a user name has 1 to 127 bytes");
    }
    Ok((user, password))
}

fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut rest = text.strip_prefix('"')?;
    loop {
        let (part, after) = rest.split_once('"')?;
        value.push_str(part);
        match after.strip_prefix('"') {
            Some(after) => {
                value.push('"');
                rest = after;
            }
            None => return Some((value, after)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn users_are_read_and_wrong_lines_named() {
        let text =
            "; comment\n\"bob\" \"secret\"\n\n  \"a\"\"b\" \"p\"\"w\"  rest\nbroken\n\"x\"\n\"\" \"y\"\n";
        let (users, wrong) = parse(text);
        let read: Vec<(&str, &str)> =
            users.iter().map(|(user, secret)| (user.as_str(), secret.expose())).collect();
        assert_eq!(read, [("a\"b", "p\"w"), ("bob", "secret")]);
        assert_eq!(wrong.iter().map(|(line, _)| *line).collect::<Vec<_>>(), [5, 6, 7]);
    }

    #[test]
    fn a_password_is_not_shown() {
        let (users, _) = parse("\"bob\" \"secret\"");
        assert!(!format!("{users:?}").contains("secret"));
    }

    proptest! {
        #[test]
        fn names_and_passwords_are_read_again(user in "[^\n\r\\pC]{1,12}", password in "[^\n\r\\pC]{0,12}") {
            let quote = |text: &str| format!("\"{}\"", text.replace('"', "\"\""));
            let (users, wrong) = parse(&format!("{} {}", quote(&user), quote(&password)));
            prop_assert_eq!(wrong, vec![]);
            prop_assert_eq!(users[&user].expose(), password);
        }
    }
}
