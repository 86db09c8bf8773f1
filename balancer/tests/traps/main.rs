//! Known traps of reverse proxies, each as docs/balancer-traps.md lists it, where no other file of tests watches it.

#![allow(clippy::unwrap_used, reason = "a world that cannot be built fails its test loudly")]

#[path = "../common/mod.rs"]
mod common;
#[path = "../frames/mod.rs"]
mod frames;
#[path = "../keys/mod.rs"]
mod keys;

mod document;
mod floods;
mod halves;
mod heads;
mod lengths;
mod logs;
mod retries;
mod room;
mod script;
mod streams;
mod tls;
mod trust;

/// An answer that is whole.
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
