//! Cuts an answer into tokens as it comes. The cut depends on the text alone, never on how it arrived: token `i` of
//! a stored answer is token `i` of the stream, so a reader can resume even after the stream's own record is gone.

/// A word longer than this, in bytes, is sent in parts: some scripts have no spaces.
const TOKEN_LEN_MAX: usize = 64;

/// Takes in pieces of text, gives out tokens: a word with the white space before it.
#[derive(Debug, Default)]
pub struct Splitter {
    token: String,
    has_word: bool,
}

impl Splitter {
    /// The tokens that are complete with this piece.
    pub fn push(&mut self, piece: &str) -> Vec<String> {
        let mut tokens = Vec::new();
        for letter in piece.chars() {
            let ends_word = letter.is_whitespace() && self.has_word;
            if ends_word || self.token.len() + letter.len_utf8() > TOKEN_LEN_MAX {
                tokens.push(std::mem::take(&mut self.token));
                self.has_word = false;
            }
            self.has_word |= !letter.is_whitespace();
            self.token.push(letter);
        }
        tokens
    }

    /// The last token, if one is left.
    pub fn finish(self) -> Option<String> {
        Some(self.token).filter(|token| !token.is_empty())
    }
}

/// All tokens of a whole text.
pub fn split(text: &str) -> Vec<String> {
    let mut splitter = Splitter::default();
    let mut tokens = splitter.push(text);
    tokens.extend(splitter.finish());
    tokens
}

/// The event id of token `index`: what `Last-Event-ID` brings back.
pub fn event_id(stream: uuid::Uuid, index: usize) -> String {
    format!("{stream}:{index}")
}

/// Where a reader goes on: the token after the one that `last_event_id` names. The error is a sentence for the client.
pub fn resume_index(stream: uuid::Uuid, last_event_id: &str) -> Result<usize, &'static str> {
    const ADVICE: &str = "Last-Event-ID must be the id of an event of this stream: STREAM:NUMBER";
    let (named, index) = last_event_id.trim().rsplit_once(':').ok_or(ADVICE)?;
    if uuid::Uuid::try_parse(named) != Ok(stream) {
        return Err(ADVICE);
    }
    let index: u32 = index.parse().map_err(|_| ADVICE)?;
    Ok(index as usize + 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    #[test]
    fn tokens_are_words_with_the_space_before_them() {
        assert_eq!(split("Hello, big  world\n"), ["Hello,", " big", "  world", "\n"]);
        assert!(split("").is_empty());
    }

    #[test]
    fn an_event_id_leads_to_the_next_token_of_its_own_stream_only() {
        let stream = Uuid::from_u128(7);
        assert_eq!(resume_index(stream, &event_id(stream, 4)), Ok(5));
        assert!(resume_index(stream, &event_id(Uuid::from_u128(8), 4)).is_err());
        assert!(resume_index(stream, "4").is_err());
        assert!(resume_index(stream, &format!("{stream}:-1")).is_err());
    }

    proptest! {
        #[test]
        fn the_cut_does_not_depend_on_the_pieces(pieces in prop::collection::vec("[ \\na-z漢é]{0,90}", 0..12)) {
            let whole = pieces.concat();
            let mut splitter = Splitter::default();
            let mut tokens: Vec<String> = pieces.iter().flat_map(|piece| splitter.push(piece)).collect();
            tokens.extend(splitter.finish());
            prop_assert_eq!(&tokens, &split(&whole));
            prop_assert_eq!(tokens.concat(), whole);
            prop_assert!(tokens.iter().all(|token| !token.is_empty() && token.len() <= TOKEN_LEN_MAX));
        }
    }
}
