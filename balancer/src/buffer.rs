//! A read buffer with a front and an end. Its memory is initialised once and lent from connection to connection.

/// What one buffer holds as a rule; larger only while a large head is read.
pub const BUFFER_LEN: usize = 16 * 1024;

#[derive(Debug, Default)]
pub struct Buffer {
    data: Vec<u8>,
    start: usize,
    end: usize,
}

impl Buffer {
    /// Exactly these bytes, unread.
    pub fn of(data: Vec<u8>) -> Buffer {
        Buffer { start: 0, end: data.len(), data }
    }

    /// Appends bytes that are at hand.
    pub fn extend(&mut self, data: &[u8]) {
        if self.data.len() - self.end < data.len() {
            self.data.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.len());
            self.data.resize((self.end + data.len()).max(self.data.len()), 0);
        }
        self.data[self.end..][..data.len()].copy_from_slice(data);
        self.fill(data.len());
    }

    /// Bytes that came and were not consumed.
    pub fn unread(&self) -> &[u8] {
        &self.data[self.start..self.end]
    }

    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    pub fn len(&self) -> usize {
        self.end - self.start
    }

    pub fn consume(&mut self, len: usize) {
        debug_assert!(len <= self.len(), "only what has come can be consumed");
        self.start = (self.start + len).min(self.end);
        if self.start == self.end {
            self.clear();
        }
    }

    /// Forgets the bytes from `from` on, counted from the front.
    pub fn truncate(&mut self, from: usize) {
        self.end = self.end.min(self.start + from);
    }

    /// Cuts bytes `from..to`, counted from the front, out of the unread ones.
    pub fn remove(&mut self, from: usize, to: usize) {
        let (from, to) = (self.start + from, self.start + to);
        debug_assert!(from <= to && to <= self.end, "only what has come can be removed");
        if to < self.end {
            self.data.copy_within(to..self.end, from);
        }
        self.end -= to - from;
    }

    pub fn clear(&mut self) {
        self.start = 0;
        self.end = 0;
    }

    /// Room to read into: what is left of the memory, made larger up to `len_max` unread bytes when there is none.
    /// Empty once `len_max` bytes wait.
    pub fn space(&mut self, len_max: usize) -> &mut [u8] {
        let room = len_max.saturating_sub(self.len());
        if self.data.len() - self.end < room && self.start > 0 {
            self.data.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        if self.end == self.data.len() && room > 0 {
            let grown = (self.data.len() * 2).clamp(BUFFER_LEN, len_max.max(BUFFER_LEN));
            self.data.resize(grown, 0);
        }
        let to = self.data.len().min(self.end + room);
        &mut self.data[self.end..to]
    }

    /// `len` bytes were read into `space`.
    pub fn fill(&mut self, len: usize) {
        self.end = (self.end + len).min(self.data.len());
    }

    /// Ready for the next user: empty, and no larger than usual.
    pub fn reset(&mut self) {
        self.clear();
        if self.data.len() > BUFFER_LEN {
            self.data.truncate(BUFFER_LEN);
            self.data.shrink_to_fit();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(buffer: &mut Buffer, data: &[u8], len_max: usize) {
        buffer.space(len_max)[..data.len()].copy_from_slice(data);
        buffer.fill(data.len());
    }

    #[test]
    fn bytes_come_out_as_they_went_in_and_the_limit_holds() {
        let mut buffer = Buffer::default();
        put(&mut buffer, b"hello", 8);
        assert_eq!(buffer.space(8).len(), 3);
        put(&mut buffer, b"abc", 8);
        assert!(buffer.space(8).is_empty());
        buffer.remove(1, 4);
        assert_eq!(buffer.unread(), b"hoabc");
        buffer.consume(2);
        assert_eq!(buffer.unread(), b"abc");
        assert_eq!(buffer.space(8).len(), 5);
        buffer.consume(3);
        assert!(buffer.is_empty());
    }

    #[test]
    fn bytes_at_hand_fit_into_any_memory() {
        let mut buffer = Buffer::of(b"head".to_vec());
        buffer.consume(3);
        buffer.extend(b" and more than there was");
        assert_eq!(buffer.unread(), b"d and more than there was");
        buffer.clear();
        buffer.extend(&[7; 2 * BUFFER_LEN]);
        assert_eq!(buffer.len(), 2 * BUFFER_LEN);
    }

    #[test]
    fn a_large_head_grows_the_buffer_and_reset_gives_the_memory_back() {
        let mut buffer = Buffer::default();
        let data = vec![7u8; BUFFER_LEN];
        put(&mut buffer, &data, 3 * BUFFER_LEN);
        put(&mut buffer, &data, 3 * BUFFER_LEN);
        assert_eq!(buffer.len(), 2 * BUFFER_LEN);
        buffer.reset();
        assert_eq!(buffer.space(BUFFER_LEN).len(), BUFFER_LEN);
    }
}
