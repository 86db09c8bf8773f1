//! Server-sent events out of bytes, in whatever pieces they come (WHATWG HTML, section 9.2).

use crate::logic::fault::Fault;

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    pub name: String,
    pub data: String,
    pub id: Option<String>,
}

/// What has come and is not yet an event.
#[derive(Debug, Default)]
pub struct Parser {
    line: Vec<u8>,
    name: String,
    data: Option<String>,
    id: Option<String>,
    after: After,
}

/// What the byte before was, where that matters.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum After {
    #[default]
    Other,
    CarriageReturn,
}

/// No event of the chat service is longer; one that is would fill the generator's memory.
const EVENT_MAX: usize = 256 * 1024;

impl Parser {
    /// Takes in bytes; gives the events they complete.
    pub fn on_bytes(&mut self, bytes: &[u8]) -> Result<Vec<Event>, Fault> {
        let mut events = Vec::new();
        for byte in bytes {
            let after = std::mem::take(&mut self.after);
            match byte {
                b'\n' if after == After::CarriageReturn => {}
                b'\n' => events.extend(self.on_line()?),
                b'\r' => {
                    self.after = After::CarriageReturn;
                    events.extend(self.on_line()?);
                }
                other => self.line.push(*other),
            }
            if self.line.len() + self.data.as_ref().map_or(0, String::len) > EVENT_MAX {
                return Err(Fault::shape("an event is too long", format!("over {EVENT_MAX} bytes")));
            }
        }
        Ok(events)
    }

    fn on_line(&mut self) -> Result<Option<Event>, Fault> {
        let line = std::mem::take(&mut self.line);
        let line = String::from_utf8(line).map_err(|_| Fault::shape("an event is not UTF-8", ""))?;
        if line.is_empty() {
            return Ok(self.on_blank());
        }
        let (field, value) = line.split_once(':').unwrap_or((&line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.name),
            "id" if !value.contains('\0') => self.id = Some(value.to_owned()),
            "data" => match &mut self.data {
                Some(data) => {
                    data.push('\n');
                    data.push_str(value);
                }
                none => *none = Some(value.to_owned()),
            },
            // A comment has an empty field name; unknown fields are to be passed over.
            _ => {}
        }
        Ok(None)
    }

    fn on_blank(&mut self) -> Option<Event> {
        let name = std::mem::take(&mut self.name);
        let id = self.id.take();
        let data = self.data.take()?;
        Some(Event { name: if name.is_empty() { "message".to_owned() } else { name }, data, id })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn event(name: &str, data: &str, id: Option<&str>) -> Event {
        Event { name: name.into(), data: data.into(), id: id.map(str::to_owned) }
    }

    const SCRIPT: &[u8] = b": hello\n\nevent: start\ndata: {\"a\":1}\n\nevent:token\r\nid: s:0\r\ndata: two\r\ndata:lines\r\n\r\n\
        data\r\rid: 7\nretry: 10\n\n: end\n\nevent: done\ndata: \xc3\xa4\n\n";

    fn expected() -> Vec<Event> {
        vec![
            event("start", "{\"a\":1}", None),
            event("token", "two\nlines", Some("s:0")),
            event("message", "", None),
            event("done", "ä", None),
        ]
    }

    #[test]
    fn events_are_read_with_any_line_end_and_comments_passed_over() {
        assert_eq!(Parser::default().on_bytes(SCRIPT), Ok(expected()));
    }

    #[test]
    fn events_are_the_same_split_at_every_byte() {
        for at in 0..=SCRIPT.len() {
            let mut parser = Parser::default();
            let mut events = parser.on_bytes(&SCRIPT[..at]).expect("a good script");
            events.extend(parser.on_bytes(&SCRIPT[at..]).expect("a good script"));
            assert_eq!(events, expected(), "split at {at}");
        }
    }

    #[test]
    fn an_endless_event_is_refused() {
        let mut parser = Parser::default();
        let fault = (0..300).find_map(|_| parser.on_bytes(&[b'x'; 1024]).err());
        assert!(fault.expect("a limit").headline().contains("too long"));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes: Vec<u8>) { let _ = Parser::default().on_bytes(&bytes); }

        #[test]
        fn what_is_written_is_read(names in proptest::collection::vec("[a-z]{1,8}", 1..5), data in "[^\r\n]{0,30}") {
            let text: String = names.iter().map(|name| format!("event: {name}\ndata: {data}\n\n")).collect();
            let events = Parser::default().on_bytes(text.as_bytes()).expect("well formed");
            let wanted: Vec<Event> = names.iter().map(|name| event(name, &data, None)).collect();
            prop_assert_eq!(events, wanted);
        }
    }
}
