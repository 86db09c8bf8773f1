//! Takes secrets out of request lines before they are logged.

use std::borrow::Cow;

/// Parameters whose values open doors: a browser's WebSocket can send no header field, so its ticket stands in the URL.
const SECRETS: [&[u8]; 3] = [b"token", b"access_token", b"ticket"];
const HIDDEN: &[u8] = b"***";

/// The line with the values of secret parameters of its query hidden.
pub fn request_line(line: &[u8]) -> Cow<'_, [u8]> {
    let Some(mark) = line.iter().position(|byte| *byte == b'?') else { return Cow::Borrowed(line) };
    let (before, query) = line.split_at(mark + 1);
    let end = query.iter().position(|byte| *byte == b' ').unwrap_or(query.len());
    let (query, after) = query.split_at(end);
    let parameters: Vec<Cow<'_, [u8]>> = query.split(|byte| *byte == b'&').map(parameter).collect();
    Cow::Owned([before, &parameters.join(&b'&'), after].concat())
}

fn parameter(text: &[u8]) -> Cow<'_, [u8]> {
    match text.iter().position(|byte| *byte == b'=') {
        Some(at) if SECRETS.contains(&&text[..at]) => Cow::Owned([&text[..=at], HIDDEN].concat()),
        _ => Cow::Borrowed(text),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hidden(line: &str) -> String {
        String::from_utf8(request_line(line.as_bytes()).into_owned()).expect("text stays text")
    }

    #[test]
    fn values_of_secret_parameters_are_hidden_and_nothing_else() {
        let line = hidden("GET /ws/chat/session/x/?token=eyJ.a-b_c&since=84&ticket=t HTTP/1.1");
        assert_eq!(line, "GET /ws/chat/session/x/?token=***&since=84&ticket=*** HTTP/1.1");
        for line in ["GET /token=x HTTP/1.1", "GET /?tokens=x&a=token HTTP/1.1", "GET /?token HTTP/1.1", ""] {
            assert_eq!(hidden(line), line);
        }
    }

    proptest! {
        #[test]
        fn no_secret_is_left_wherever_it_stands(before in "[a-z=&?]{0,9}", secret in "[A-Z0-9]{4,20}", after in "[a-z=&]{0,9}") {
            let line = hidden(&format!("GET /?{before}&token={secret}&{after} HTTP/1.1"));
            prop_assert!(!line.contains(&secret), "{line}");
        }
    }
}
