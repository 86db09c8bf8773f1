//! A cursor over a message body. Each step either succeeds or says that the body is malformed; none panics.

/// A body that does not have the form its kind demands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed message: {0}")]
pub struct Malformed(pub &'static str);

/// Reads a body from its start.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub fn new(body: &'a [u8]) -> Self {
        Reader { rest: body }
    }

    pub fn rest(self) -> &'a [u8] {
        self.rest
    }

    pub fn is_empty(self) -> bool {
        self.rest.is_empty()
    }

    pub fn bytes(&mut self, len: usize) -> Result<&'a [u8], Malformed> {
        if len > self.rest.len() {
            return Err(Malformed("ends too early"));
        }
        let (taken, rest) = self.rest.split_at(len);
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let taken = self.rest.first_chunk::<N>().ok_or(Malformed("ends too early"))?;
        self.rest = &self.rest[N..];
        Ok(*taken)
    }

    pub fn u8(&mut self) -> Result<u8, Malformed> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub fn u16(&mut self) -> Result<u16, Malformed> {
        self.array().map(u16::from_be_bytes)
    }

    pub fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_be_bytes)
    }

    pub fn i32(&mut self) -> Result<i32, Malformed> {
        self.array().map(i32::from_be_bytes)
    }

    /// A string up to its zero byte, without it.
    pub fn cstr(&mut self) -> Result<&'a [u8], Malformed> {
        let end = memchr::memchr(0, self.rest).ok_or(Malformed("a string has no zero byte at its end"))?;
        let taken = &self.rest[..end];
        self.rest = &self.rest[end + 1..];
        Ok(taken)
    }

    pub fn str(&mut self) -> Result<&'a str, Malformed> {
        std::str::from_utf8(self.cstr()?).map_err(|_| Malformed("a string is not UTF-8"))
    }

    /// A value with a four-byte length, -1 for NULL.
    pub fn value(&mut self) -> Result<Option<&'a [u8]>, Malformed> {
        match self.i32()? {
            -1 => Ok(None),
            len => self.bytes(usize::try_from(len).map_err(|_| Malformed("a negative length"))?).map(Some),
        }
    }

    /// Nothing may be left.
    pub fn end(self) -> Result<(), Malformed> {
        if self.rest.is_empty() { Ok(()) } else { Err(Malformed("has bytes after its end")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_sequence_of_reads_panics(bytes in prop::collection::vec(any::<u8>(), 0..40),
                                       steps in prop::collection::vec(0u8..7, 0..12)) {
            let mut reader = Reader::new(&bytes);
            for step in steps {
                let _ = match step {
                    0 => reader.u8().map(drop),
                    1 => reader.u16().map(drop),
                    2 => reader.u32().map(drop),
                    3 => reader.cstr().map(drop),
                    4 => reader.value().map(drop),
                    5 => reader.bytes(7).map(drop),
                    _ => reader.str().map(drop),
                };
            }
            prop_assert!(bytes.ends_with(reader.rest()));
        }
    }
}
