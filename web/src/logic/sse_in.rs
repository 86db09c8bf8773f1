//! Reads a `text/event-stream` of an OpenAI-compatible endpoint as its bytes come: lines → events → pieces of text.

use serde::Deserialize;

/// A line or event longer than this is refused: the endpoint is not what it claims to be.
const EVENT_LEN_MAX: usize = 1024 * 1024;

/// One thing that the endpoint said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    Text(String),
    /// The answer is complete.
    Done,
}

/// Why the stream cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadStream {
    #[error("the endpoint sent an event of more than 1 MiB")]
    TooLong,
    #[error("the endpoint sent an event that is not a chat completion chunk: {0}")]
    NotAChunk(String),
    #[error("the endpoint reported an error in its stream")]
    Reported,
}

/// The reader: bytes in, pieces out.
#[derive(Debug, Default)]
pub struct SseReader {
    line: Vec<u8>,
    data: String,
    /// The last byte was CR: a LF right after it belongs to the same line end.
    after_cr: bool,
}

#[derive(Deserialize)]
struct Chunk {
    #[serde(default)]
    choices: Vec<Choice>,
    error: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct Choice {
    delta: Option<Delta>,
}

#[derive(Deserialize)]
struct Delta {
    content: Option<String>,
}

impl SseReader {
    /// Takes in bytes as they come.
    pub fn on_bytes(&mut self, mut bytes: &[u8]) -> Result<Vec<Piece>, BadStream> {
        let mut pieces = Vec::new();
        if self.after_cr && bytes.first() == Some(&b'\n') {
            bytes = &bytes[1..];
        }
        if !bytes.is_empty() {
            self.after_cr = false;
        }
        while let Some((line, rest, ended_by_cr)) = find_line_end(bytes) {
            self.line.extend_from_slice(line);
            bytes = rest;
            if ended_by_cr && bytes.is_empty() {
                self.after_cr = true;
            } else if ended_by_cr && bytes[0] == b'\n' {
                bytes = &bytes[1..];
            }
            let line = std::mem::take(&mut self.line);
            pieces.extend(self.on_line(&String::from_utf8_lossy(&line))?);
        }
        self.line.extend_from_slice(bytes);
        if self.line.len() + self.data.len() > EVENT_LEN_MAX {
            return Err(BadStream::TooLong);
        }
        Ok(pieces)
    }

    fn on_line(&mut self, line: &str) -> Result<Option<Piece>, BadStream> {
        if line.is_empty() {
            let data = std::mem::take(&mut self.data);
            return if data.is_empty() { Ok(None) } else { piece(&data) };
        }
        // Comments begin with a colon; other fields say nothing about the text.
        if let Some(value) = line.strip_prefix("data:") {
            if !self.data.is_empty() {
                self.data.push('\n');
            }
            self.data.push_str(value.strip_prefix(' ').unwrap_or(value));
        }
        Ok(None)
    }
}

fn piece(data: &str) -> Result<Option<Piece>, BadStream> {
    if data.trim() == "[DONE]" {
        return Ok(Some(Piece::Done));
    }
    let chunk: Chunk = serde_json::from_str(data).map_err(|error| BadStream::NotAChunk(error.to_string()))?;
    if chunk.error.is_some_and(|error| !error.is_null()) {
        return Err(BadStream::Reported);
    }
    let text =
        chunk.choices.into_iter().next().and_then(|choice| choice.delta).and_then(|delta| delta.content);
    Ok(text.filter(|text| !text.is_empty()).map(Piece::Text))
}

/// The first line, what follows its end, and whether a CR ended it.
fn find_line_end(bytes: &[u8]) -> Option<(&[u8], &[u8], bool)> {
    let at = bytes.iter().position(|byte| matches!(byte, b'\n' | b'\r'))?;
    Some((&bytes[..at], &bytes[at + 1..], bytes[at] == b'\r'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const STREAM: &str = concat!(
        ": hello\n\n",
        "data: {\"choices\":[{\"delta\":{\"role\":\"assistant\"}}]}\r\n\r\n",
        "event: x\ndata: {\"choices\":[{\"delta\":{\"content\":\"Grüß\"}}]}\n\n",
        "data: {\"choices\":[{\"delta\":\ndata: {\"content\":\" Gott\"}}]}\r\r",
        "data: {\"choices\":[]}\n\n",
        "data: [DONE]\n\n",
    );

    fn expected() -> Vec<Piece> {
        vec![Piece::Text("Grüß".into()), Piece::Text(" Gott".into()), Piece::Done]
    }

    #[test]
    fn a_stream_reads_the_same_split_at_every_byte() {
        for at in 0..=STREAM.len() {
            let mut reader = SseReader::default();
            let (head, tail) = STREAM.as_bytes().split_at(at);
            let mut pieces = reader.on_bytes(head).expect("a good stream");
            pieces.extend(reader.on_bytes(tail).expect("a good stream"));
            assert_eq!(pieces, expected(), "split at {at}");
        }
    }

    #[test]
    fn errors_of_the_endpoint_are_told_apart() {
        let read = |text: &str| SseReader::default().on_bytes(text.as_bytes());
        assert_eq!(read("data: {\"error\":{\"message\":\"no\"}}\n\n"), Err(BadStream::Reported));
        assert!(matches!(read("data: <html>\n\n"), Err(BadStream::NotAChunk(_))));
        assert_eq!(read(&"x".repeat(EVENT_LEN_MAX + 1)), Err(BadStream::TooLong));
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..8)) {
            let mut reader = SseReader::default();
            for part in parts {
                if reader.on_bytes(&part).is_err() {
                    break;
                }
            }
        }
    }
}
