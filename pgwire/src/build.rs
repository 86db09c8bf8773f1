//! Appending one message to a buffer: the head is written first and its length filled in at the end.

/// Appends a message of this kind whose body the closure writes.
pub fn message(out: &mut Vec<u8>, kind: u8, body: impl FnOnce(&mut Vec<u8>)) {
    out.push(kind);
    sized(out, body);
}

/// Appends a block that starts with its own length, as startup packets do.
pub fn sized(out: &mut Vec<u8>, body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend([0; 4]);
    body(out);
    // A message over 2 GiB cannot be built here: what is built from parts is names, errors and console rows.
    let len = u32::try_from(out.len() - start).unwrap_or(u32::MAX);
    out[start..start + 4].copy_from_slice(&len.to_be_bytes());
}

/// A string and its zero byte. Zero bytes inside would end it early, so they are left out.
pub fn cstr(out: &mut Vec<u8>, text: impl AsRef<[u8]>) {
    out.extend(text.as_ref().iter().filter(|byte| **byte != 0));
    out.push(0);
}

pub fn u16(out: &mut Vec<u8>, number: u16) {
    out.extend(number.to_be_bytes());
}

pub fn u32(out: &mut Vec<u8>, number: u32) {
    out.extend(number.to_be_bytes());
}

/// A value with its length; None is NULL.
pub fn value(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    let Some(bytes) = bytes else {
        return u32(out, u32::MAX);
    };
    u32(out, u32::try_from(bytes.len()).unwrap_or(u32::MAX));
    out.extend(bytes);
}
