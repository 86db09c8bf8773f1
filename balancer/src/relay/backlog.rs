//! What a slow client has not taken of its answer and memory may not hold: a file without a name, written at its end
//! and read at its front, so that the upstream is done as soon as it has said all.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;

/// Read back and offered to the client at a time.
const PIECE_LEN: usize = 32 * 1024;

#[derive(Debug)]
pub struct Backlog {
    file: File,
    written: u64,
    read: u64,
    /// Read from the file; what is before `sent` is with the client.
    piece: Vec<u8>,
    sent: usize,
}

impl Backlog {
    /// `number` names the file for the moment in which it has a name.
    pub fn create(folder: &Path, number: u64) -> io::Result<Backlog> {
        fs::create_dir_all(folder)?;
        let path = folder.join(format!("{number:020}"));
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
        // Whatever becomes of us, the file goes with its last descriptor.
        fs::remove_file(&path)?;
        Ok(Backlog { file, written: 0, read: 0, piece: Vec::new(), sent: 0 })
    }

    pub fn is_empty(&self) -> bool {
        self.sent == self.piece.len() && self.read == self.written
    }

    /// Bytes of the file: what was taken from its front counts until all of it is.
    pub fn file_len(&self) -> u64 {
        self.written
    }

    pub fn push(&mut self, data: &[u8]) -> io::Result<()> {
        self.file.write_all_at(data, self.written)?;
        self.written += data.len() as u64;
        Ok(())
    }

    /// The oldest bytes, so many at least if there are; empty once there are none.
    pub fn front(&mut self, len_min: usize) -> io::Result<&[u8]> {
        if self.sent == self.piece.len() {
            let left = usize::try_from(self.written - self.read).unwrap_or(usize::MAX);
            self.piece.resize(left.min(PIECE_LEN.max(len_min)), 0);
            self.file.read_exact_at(&mut self.piece, self.read)?;
            self.read += self.piece.len() as u64;
            self.sent = 0;
        }
        Ok(&self.piece[self.sent..])
    }

    /// The client takes nothing now: what was read back is read again when it does, and no memory waits with it.
    pub fn rest(&mut self) {
        self.read -= (self.piece.len() - self.sent) as u64;
        (self.piece, self.sent) = (Vec::new(), 0);
    }

    /// So much of the front is with the client.
    pub fn advance(&mut self, len: usize) -> io::Result<()> {
        self.sent = (self.sent + len).min(self.piece.len());
        if self.is_empty() && self.written > 0 {
            self.file.set_len(0)?;
            (self.written, self.read) = (0, 0);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_file_has_no_name_and_shrinks_when_all_is_taken() {
        let folder = tempfile::tempdir().unwrap();
        let mut backlog = Backlog::create(&folder.path().join("deep/er"), 7).unwrap();
        assert_eq!(fs::read_dir(folder.path().join("deep/er")).unwrap().count(), 0);
        backlog.push(&[1; 100_000]).unwrap();
        assert_eq!((backlog.file_len(), backlog.is_empty()), (100_000, false));
        while !backlog.is_empty() {
            let len = backlog.front(0).unwrap().len();
            backlog.advance(len).unwrap();
        }
        assert_eq!((backlog.file_len(), backlog.file.metadata().unwrap().len()), (0, 0));
        assert_eq!(backlog.front(0).unwrap(), b"");
    }

    proptest! {
        #[test]
        fn bytes_come_out_as_they_went_in(steps in proptest::collection::vec((0usize..50_000, 0usize..50_000), 0..20)) {
            let folder = tempfile::tempdir().unwrap();
            let mut backlog = Backlog::create(folder.path(), 1).unwrap();
            let (mut next_in, mut next_out) = (0u32, 0u32);
            for (pushed, taken) in steps {
                let data: Vec<u8> = (next_in..).take(pushed).map(|n| (n % 251) as u8).collect();
                next_in += pushed as u32;
                backlog.push(&data).unwrap();
                let front = backlog.front(0).unwrap();
                let len = front.len().min(taken);
                for byte in &front[..len] {
                    prop_assert_eq!(*byte, (next_out % 251) as u8);
                    next_out += 1;
                }
                backlog.advance(len).unwrap();
                if taken % 2 == 0 {
                    backlog.rest();
                }
            }
            prop_assert_eq!(backlog.is_empty(), next_in == next_out);
        }
    }
}
