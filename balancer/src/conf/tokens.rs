//! Characters → tokens, by nginx's rules of quotes, escapes, comments and `${name}`. No meaning: see blocks.rs.

use std::sync::Arc;

use super::error::{Error, Place, Result};

/// One token and the line on which it ends, as nginx counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    pub line: u32,
    pub kind: TokenKind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenKind {
    Word(Word),
    /// `;`
    End,
    /// `{`
    Open,
    /// `}`
    Close,
}

/// An argument or a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Word {
    pub text: String,
    pub quoted: bool,
}

/// All tokens of one file.
pub fn tokens(text: &[u8], file: &Arc<str>) -> Result<Vec<Token>> {
    let mut reader = Reader { text, at: 0, line: 1, file };
    let mut found = Vec::new();
    while let Some(token) = reader.next_token()? {
        found.push(token);
    }
    Ok(found)
}

struct Reader<'a> {
    text: &'a [u8],
    at: usize,
    line: u32,
    file: &'a Arc<str>,
}

impl Reader<'_> {
    fn next_token(&mut self) -> Result<Option<Token>> {
        self.skip_blanks();
        let Some(byte) = self.peek() else { return Ok(None) };
        let kind = match byte {
            b';' => TokenKind::End,
            b'{' => TokenKind::Open,
            b'}' => TokenKind::Close,
            b'"' | b'\'' => return self.quoted(byte).map(Some),
            _ => return self.plain().map(Some),
        };
        self.at += 1;
        Ok(Some(Token { line: self.line, kind }))
    }

    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn skip_blanks(&mut self) {
        while let Some(byte) = self.peek() {
            match byte {
                b'\n' => self.line += 1,
                b' ' | b'\t' | b'\r' => {}
                b'#' => {
                    let rest = &self.text[self.at..];
                    self.at += memchr::memchr(b'\n', rest).unwrap_or(rest.len());
                    continue;
                }
                _ => return,
            }
            self.at += 1;
        }
    }

    /// Up to a blank, `;` or `{`; a `{` right after `$` belongs to the word.
    fn plain(&mut self) -> Result<Token> {
        let start = self.at;
        let mut after_dollar = false;
        while let Some(byte) = self.peek() {
            match byte {
                b'{' if after_dollar => {}
                b' ' | b'\t' | b'\r' | b'\n' | b';' | b'{' => break,
                b'\\' => {
                    self.at += 1;
                    if self.peek() == Some(b'\n') {
                        self.line += 1;
                    }
                }
                _ => {}
            }
            after_dollar = byte == b'$';
            self.at += 1;
        }
        self.at = self.at.min(self.text.len());
        self.word(&self.text[start..self.at], false)
    }

    fn quoted(&mut self, quote: u8) -> Result<Token> {
        let start_line = self.line;
        self.at += 1;
        let start = self.at;
        loop {
            match self.peek() {
                None => {
                    let place = self.place(start_line);
                    let what = format!("unexpected end of file, missing terminating \"{}\"", quote as char);
                    return Err(Error::at(&place, what));
                }
                Some(b'\n') => self.line += 1,
                Some(b'\\') => {
                    self.at += 1;
                    if self.peek() == Some(b'\n') {
                        self.line += 1;
                    }
                }
                Some(byte) if byte == quote => break,
                Some(_) => {}
            }
            self.at += 1;
        }
        let token = self.word(&self.text[start..self.at], true)?;
        self.at += 1;
        match self.peek() {
            None | Some(b' ' | b'\t' | b'\r' | b'\n' | b';' | b'{' | b')') => Ok(token),
            Some(byte) => Err(Error::at(&self.place(self.line), format!("unexpected \"{}\"", byte as char))),
        }
    }

    fn word(&self, raw: &[u8], quoted: bool) -> Result<Token> {
        let text = String::from_utf8(unescape(raw))
            .map_err(|_| Error::at(&self.place(self.line), "this text is not UTF-8; write it as UTF-8"))?;
        Ok(Token { line: self.line, kind: TokenKind::Word(Word { text, quoted }) })
    }

    fn place(&self, line: u32) -> Place {
        Place { file: self.file.clone(), line }
    }
}

/// `\"`, `\'`, `\\` and `\t`, `\r`, `\n`; any other backslash stays, as patterns need it.
fn unescape(raw: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(raw.len());
    let mut bytes = raw.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        let escaped = match (byte, bytes.peek()) {
            (b'\\', Some(next @ (b'"' | b'\'' | b'\\'))) => Some(*next),
            (b'\\', Some(b't')) => Some(b'\t'),
            (b'\\', Some(b'r')) => Some(b'\r'),
            (b'\\', Some(b'n')) => Some(b'\n'),
            _ => None,
        };
        if escaped.is_some() {
            bytes.next();
        }
        out.push(escaped.unwrap_or(byte));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        let file: Arc<str> = "f".into();
        let show = |token: Token| match token.kind {
            TokenKind::Word(word) => word.text,
            TokenKind::End => ";".into(),
            TokenKind::Open => "{".into(),
            TokenKind::Close => "}".into(),
        };
        tokens(text.as_bytes(), &file).unwrap().into_iter().map(show).collect()
    }

    #[test]
    fn words_end_at_blanks_semicolons_and_braces() {
        assert_eq!(words("a b;c{d e;}"), ["a", "b", ";", "c", "{", "d", "e", ";", "}"]);
        assert_eq!(words("a # b;\nc;"), ["a", "c", ";"]);
        assert_eq!(words("a b#c;"), ["a", "b#c", ";"]);
    }

    #[test]
    fn quotes_hold_blanks_and_escapes() {
        assert_eq!(words(r#"a "b; {c} \"d\"" 'e "f" \'';"#), ["a", "b; {c} \"d\"", "e \"f\" '", ";"]);
        assert_eq!(words(r"a \.php$ \\x b\;c;"), ["a", r"\.php$", r"\x", r"b\;c", ";"]);
        assert_eq!(words(r#"a b"c d;"#), ["a", "b\"c", "d", ";"]);
    }

    #[test]
    fn braces_of_variables_belong_to_the_word() {
        assert_eq!(words("a ${b}c{"), ["a", "${b}c", "{"]);
        assert_eq!(words("return 200 $a${b};"), ["return", "200", "$a${b}", ";"]);
    }

    #[test]
    fn mistakes_are_found_on_their_line() {
        let file: Arc<str> = "f".into();
        let error = tokens(b"a\n\"b", &file).unwrap_err().to_string();
        assert_eq!(error, "unexpected end of file, missing terminating \"\"\" in f:2");
        let error = tokens(b"a\n\"b\"c;", &file).unwrap_err().to_string();
        assert_eq!(error, "unexpected \"c\" in f:2");
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(text in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..80)) {
            let _ = tokens(&text, &"f".into());
        }

        #[test]
        fn quoted_text_comes_back(text in "[^\\\\]{0,20}") {
            let written = format!("a \"{}\";", text.replace('"', "\\\""));
            proptest::prop_assert_eq!(&words(&written)[1], &text);
        }
    }
}
