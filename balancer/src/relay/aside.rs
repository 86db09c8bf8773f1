//! Ways that few requests take. The way of most runs through its code once, and what the processor has to fetch of it
//! counts: so these lie apart, in code and in the memory of a request.

use std::pin::Pin;

/// Out of line, with a future of its own.
#[cold]
#[inline(never)]
pub fn aside<'f, T>(way: impl Future<Output = T> + 'f) -> Pin<Box<dyn Future<Output = T> + 'f>> {
    Box::pin(way)
}
