//! An htpasswd file and a password: an entry is one of the file's, and none that is empty or broken lets anybody in.
#![no_main]

use balancer::logic::passwords::{entry_of, fits};
use libfuzzer_sys::fuzz_target;

/// Entries that may ask for so much work as they like: the operator wrote them, but here they would take the time.
fn is_dear(entry: &[u8]) -> bool {
    [&b"$2"[..], b"$5$", b"$6$", b"$sha1$", b"_"].iter().any(|form| entry.starts_with(form))
}

fuzz_target!(|bytes: &[u8]| {
    let (password, file) = bytes.split_at(bytes.len().min(8));
    let user = password;
    if let Some(entry) = entry_of(file, user) {
        assert!(entry.len() + user.len() < file.len());
        assert!(!entry.contains(&b':') && !entry.contains(&b'\n'));
    }
    if !is_dear(file) {
        let _ = fits(password, file);
    }
    let plain = [b"{PLAIN}", file].concat();
    assert_eq!(fits(password, &plain), password == file);
    assert!(!fits(password, b""));
});
