//! A request's body in a file: where `proxy_request_buffering` is written out, or `client_body_in_file_only` or
//! `$request_body_file` ask for one.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// Read from the file and sent at a time.
const PIECE_LEN: u64 = 64 * 1024;

#[derive(Debug)]
pub struct Spool {
    path: PathBuf,
    file: File,
    len: u64,
    sent_len: u64,
    /// `client_body_in_file_only on`: the file stays after the request.
    is_kept: bool,
}

impl Spool {
    /// Makes a file that nobody else may read, in a folder that is made where it is missing.
    pub fn create(folder: &Path, number: u64, is_kept: bool) -> io::Result<Spool> {
        fs::create_dir_all(folder)?;
        let path = folder.join(format!("{number:020}"));
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
        Ok(Spool { path, file, len: 0, sent_len: 0, is_kept })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn len(&self) -> u64 {
        self.len
    }

    pub fn append(&mut self, data: &[u8]) -> io::Result<()> {
        // At its place: where an earlier write failed half-way, that half is written over.
        self.file.write_all_at(data, self.len)?;
        self.len += data.len() as u64;
        Ok(())
    }

    /// The whole body is to be sent, again where it was sent before.
    pub fn rewind(&mut self) {
        self.sent_len = 0;
    }

    pub fn is_sent(&self) -> bool {
        self.sent_len == self.len
    }

    /// Appends the next piece and tells its length.
    pub fn read(&mut self, out: &mut Vec<u8>) -> io::Result<usize> {
        let len = PIECE_LEN.min(self.len - self.sent_len);
        self.file.seek(SeekFrom::Start(self.sent_len))?;
        let read = (&self.file).take(len).read_to_end(out)? as u64;
        self.sent_len += read;
        // Somebody cut the file: what was promised cannot be sent.
        if read == len { Ok(read as usize) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        if !self.is_kept {
            // A file that cannot be removed is left to who looks after the folder.
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_read_back_whole_twice_and_its_file_goes_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let mut spool = Spool::create(&folder.path().join("bodies"), 7, false).unwrap();
        let data: Vec<u8> = (0..200_000u32).map(|n| n as u8).collect();
        data.chunks(999).for_each(|piece| spool.append(piece).unwrap());
        for _ in 0..2 {
            spool.rewind();
            let mut out = Vec::new();
            while !spool.is_sent() {
                spool.read(&mut out).unwrap();
            }
            assert_eq!(out, data);
        }
        let path = spool.path().to_owned();
        drop(spool);
        assert!(!path.exists());
        let mut kept = Spool::create(folder.path(), 8, true).unwrap();
        kept.append(b"x").unwrap();
        let path = kept.path().to_owned();
        drop(kept);
        assert_eq!(fs::read(path).unwrap(), b"x");
    }
}
