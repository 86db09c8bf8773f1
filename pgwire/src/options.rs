//! The startup parameter `options`: a command line of `-c name=value` and `--name=value`, with backslash escapes.

/// An argument that is neither form, such as `-W 5` or a name without `=`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unsupported options startup parameter: only '-c config=val' and '--config=val' are allowed")]
pub struct Unsupported;

/// Reads all settings of the command line, in order.
///
/// Postgres takes `-` in a name of the `--name` form for `_`; a name has to be there (`-c=` made PgBouncer loop,
/// CVE-2026-107349).
pub fn parse(options: &str) -> Result<Vec<(String, String)>, Unsupported> {
    let mut settings = Vec::new();
    let mut rest = options.trim_ascii_start();
    while !rest.is_empty() {
        let (argument, dashes) = if let Some(after) = rest.strip_prefix("-c") {
            (after.trim_ascii_start(), false)
        } else {
            (rest.strip_prefix("--").ok_or(Unsupported)?, true)
        };
        let (token, after) = take_token(argument);
        let (name, value) = token.split_once('=').ok_or(Unsupported)?;
        if name.is_empty() {
            return Err(Unsupported);
        }
        let name = if dashes { name.replace('-', "_") } else { name.to_string() };
        settings.push((name, value.to_string()));
        rest = after.trim_ascii_start();
    }
    Ok(settings)
}

/// One word, its escapes undone, and what follows it.
fn take_token(text: &str) -> (String, &str) {
    let mut token = String::new();
    let mut chars = text.char_indices();
    while let Some((at, char)) = chars.next() {
        match char {
            '\\' => token.extend(chars.next().map(|(_, escaped)| escaped)),
            _ if char.is_ascii_whitespace() || char == '\x0b' => return (token, &text[at..]),
            _ => token.push(char),
        }
    }
    (token, "")
}

/// Writes settings as a command line that `parse` and Postgres read back.
pub fn format<'a>(settings: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let mut line = String::new();
    for (name, value) in settings {
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str("-c ");
        escape(&mut line, name);
        line.push('=');
        escape(&mut line, value);
    }
    line
}

fn escape(line: &mut String, text: &str) {
    for char in text.chars() {
        if char == '\\' || char.is_ascii_whitespace() || char == '\x0b' {
            line.push('\\');
        }
        line.push(char);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn settings(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
    }

    #[test]
    fn both_forms_and_escapes_are_read() {
        let line = r"-c a=b  -cb=c\ d --search-path=x\\y --empty= ";
        let wanted = settings(&[("a", "b"), ("b", "c d"), ("search_path", r"x\y"), ("empty", "")]);
        assert_eq!(parse(line), Ok(wanted));
        assert_eq!(parse(""), Ok(vec![]));
    }

    #[test]
    fn other_arguments_are_refused() {
        for line in ["-W 5", "-c", "-c a", "-c=", "-c =x", "--=x", "--", "a=b", "-"] {
            assert_eq!(parse(line), Err(Unsupported), "{line}");
        }
    }

    proptest! {
        #[test]
        fn any_line_ends_without_panic(line in "[-c=a \\\\\t-]{0,30}") {
            let _ = parse(&line);
        }

        #[test]
        fn what_is_written_is_read_again(pairs in prop::collection::vec(("[a-z_.]{1,8}", "\\PC{0,12}"), 0..4)) {
            let line = format(pairs.iter().map(|(n, v)| (n.as_str(), v.as_str())));
            prop_assert_eq!(parse(&line), Ok(pairs));
        }
    }
}
