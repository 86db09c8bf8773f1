//! Connection strings: `key=value` pairs, values in single quotes where they hold spaces, a doubled quote for one.

/// Why a connection string could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConnstrError {
    #[error("expected key=value at \"{0}\"")]
    Pair(String),
    #[error("the value of {0} has no closing quote")]
    Quote(String),
    #[error("{0} has no value")]
    Empty(String),
}

/// All pairs in order.
pub fn parse(text: &str) -> Result<Vec<(String, String)>, ConnstrError> {
    let mut pairs = Vec::new();
    let mut rest = text.trim_ascii_start();
    while !rest.is_empty() {
        let (key, after) = take_key(rest)?;
        let (value, after) = take_value(key, after)?;
        if value.is_empty() {
            return Err(ConnstrError::Empty(key.to_string()));
        }
        pairs.push((key.to_string(), value));
        rest = after.trim_ascii_start();
    }
    Ok(pairs)
}

fn take_key(text: &str) -> Result<(&str, &str), ConnstrError> {
    // Not the whole text: it may hold a password.
    let wrong = || ConnstrError::Pair(text.split([' ', '=']).next().unwrap_or("").to_string());
    let len = text.find(['=', ' ']).ok_or_else(wrong)?;
    let (key, after) = text.split_at(len);
    let after = after.trim_ascii_start().strip_prefix('=').ok_or_else(wrong)?;
    if key.is_empty() { Err(wrong()) } else { Ok((key, after.trim_ascii_start())) }
}

fn take_value<'a>(key: &str, text: &'a str) -> Result<(String, &'a str), ConnstrError> {
    let Some(quoted) = text.strip_prefix('\'') else {
        let (value, after) = text.split_once(' ').unwrap_or((text, ""));
        return Ok((value.to_string(), after));
    };
    let mut value = String::new();
    let mut rest = quoted;
    loop {
        let (part, after) = rest.split_once('\'').ok_or_else(|| ConnstrError::Quote(key.to_string()))?;
        value.push_str(part);
        match after.strip_prefix('\'') {
            Some(after) => {
                value.push('\'');
                rest = after;
            }
            None => return Ok((value, after)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pairs(text: &str) -> Vec<(String, String)> {
        parse(text).unwrap()
    }

    fn pair(key: &str, value: &str) -> (String, String) {
        (key.to_string(), value.to_string())
    }

    #[test]
    fn pairs_with_and_without_quotes_are_read() {
        let text = "  host=127.0.0.1 port = 5432 connect_query='set a=''b''; set c' user='x y'z=1";
        let expected = [
            pair("host", "127.0.0.1"),
            pair("port", "5432"),
            pair("connect_query", "set a='b'; set c"),
            pair("user", "x y"),
            pair("z", "1"),
        ];
        assert_eq!(pairs(text), expected);
        assert_eq!(pairs(""), []);
    }

    #[test]
    fn what_is_no_pair_is_named_without_its_value() {
        assert_eq!(parse("host"), Err(ConnstrError::Pair("host".into())));
        assert_eq!(parse("=x"), Err(ConnstrError::Pair(String::new())));
        assert_eq!(parse("password secret"), Err(ConnstrError::Pair("password".into())));
        assert_eq!(parse("password='secret"), Err(ConnstrError::Quote("password".into())));
        assert_eq!(parse("user= "), Err(ConnstrError::Empty("user".into())));
    }

    proptest! {
        #[test]
        fn quoted_values_are_read_again(values in prop::collection::vec("\\PC{1,10}", 0..4)) {
            let text: Vec<String> =
                values.iter().map(|value| format!("k='{}'", value.replace('\'', "''"))).collect();
            let read: Vec<String> = pairs(&text.join(" ")).into_iter().map(|(_, value)| value).collect();
            prop_assert_eq!(read, values);
        }

        #[test]
        fn any_text_is_read_without_panic(text in "[a=' \u{e4}]{0,30}") {
            let _ = parse(&text);
        }
    }
}
