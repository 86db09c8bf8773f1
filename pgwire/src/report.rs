//! Errors and notices: a list of fields, each a letter and a text.

use crate::build;
use crate::read::{Malformed, Reader};

/// How bad it is, as written in the fields S and V.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    Error,
    Fatal,
    Panic,
    Warning,
    Notice,
    Info,
}

impl Severity {
    pub fn as_str(self) -> &'static str {
        match self {
            Severity::Error => "ERROR",
            Severity::Fatal => "FATAL",
            Severity::Panic => "PANIC",
            Severity::Warning => "WARNING",
            Severity::Notice => "NOTICE",
            Severity::Info => "INFO",
        }
    }
}

/// An error or notice to be sent.
#[derive(Clone, Copy, Debug)]
pub struct Report<'a> {
    pub severity: Severity,
    pub sqlstate: &'a str,
    pub message: &'a str,
    pub detail: Option<&'a str>,
    pub hint: Option<&'a str>,
}

impl<'a> Report<'a> {
    pub fn new(severity: Severity, sqlstate: &'a str, message: &'a str) -> Self {
        Report { severity, sqlstate, message, detail: None, hint: None }
    }

    pub fn error(sqlstate: &'a str, message: &'a str) -> Self {
        Report::new(Severity::Error, sqlstate, message)
    }

    pub fn fatal(sqlstate: &'a str, message: &'a str) -> Self {
        Report::new(Severity::Fatal, sqlstate, message)
    }

    pub fn detail(self, detail: &'a str) -> Self {
        Report { detail: Some(detail), ..self }
    }

    pub fn hint(self, hint: &'a str) -> Self {
        Report { hint: Some(hint), ..self }
    }

    /// Appends it as the body of an ErrorResponse or NoticeResponse.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        let severity = self.severity.as_str();
        let mut field = |letter: u8, text: &str| {
            out.push(letter);
            build::cstr(out, text);
        };
        field(b'S', severity);
        field(b'V', severity);
        field(b'C', self.sqlstate);
        field(b'M', self.message);
        if let Some(detail) = self.detail {
            field(b'D', detail);
        }
        if let Some(hint) = self.hint {
            field(b'H', hint);
        }
        out.push(0);
    }
}

/// An error or notice that came. A field that is missing is None: a peer may leave out any of them (CVE-2026-6666).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Received<'a> {
    /// Not translated where the server gives V, else the translated S.
    pub severity: Option<&'a [u8]>,
    pub sqlstate: Option<&'a [u8]>,
    pub message: Option<&'a [u8]>,
    pub detail: Option<&'a [u8]>,
    pub hint: Option<&'a [u8]>,
}

impl<'a> Received<'a> {
    /// Reads the body of an ErrorResponse or NoticeResponse.
    pub fn parse(body: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(body);
        let mut received = Received::default();
        let mut plain_severity = None;
        loop {
            let letter = reader.u8()?;
            if letter == 0 {
                received.severity = plain_severity.or(received.severity);
                return Ok(received);
            }
            let text = Some(reader.cstr()?);
            match letter {
                b'S' => received.severity = text,
                b'V' => plain_severity = text,
                b'C' => received.sqlstate = text,
                b'M' => received.message = text,
                b'D' => received.detail = text,
                b'H' => received.hint = text,
                _ => {}
            }
        }
    }

    /// For a log line: `FATAL database "x" does not exist`.
    pub fn summary(&self) -> String {
        let text = |field: Option<&[u8]>| String::from_utf8_lossy(field.unwrap_or(b"?")).into_owned();
        format!("{} {}", text(self.severity), text(self.message))
    }

    pub fn has_sqlstate(&self, code: &str) -> bool {
        self.sqlstate == Some(code.as_bytes())
    }

    /// After FATAL and PANIC the server closes the connection.
    pub fn ends_connection(&self) -> bool {
        matches!(self.severity, Some(b"FATAL" | b"PANIC"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_written_is_read_again() {
        let mut body = Vec::new();
        Report::fatal("28P01", "no").detail("why").hint("do").write(&mut body);
        let received = Received::parse(&body).unwrap();
        assert_eq!(received.summary(), "FATAL no");
        assert!(received.has_sqlstate("28P01") && received.ends_connection());
        assert_eq!((received.detail, received.hint), (Some(&b"why"[..]), Some(&b"do"[..])));
    }

    #[test]
    fn an_error_without_a_code_is_read() {
        let received = Received::parse(b"SERROR\0Mbad\0\0").unwrap();
        assert_eq!((received.sqlstate, received.summary().as_str()), (None, "ERROR bad"));
    }

    proptest! {
        #[test]
        fn any_body_is_read_without_panic(body in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = Received::parse(&body).map(|r| r.summary());
        }
    }
}
