//! Panics: a line in the error log, whatever became of stderr, and a count. Each ends the connection or the worker in
//! which it was.

use std::any::Any;
use std::panic::PanicHookInfo;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use crate::metrics::Metrics;

/// Longest text that is repeated.
const TEXT_LEN_MAX: usize = 200;

/// From now on every panic of the process is told. Once the error logs are there.
pub fn tell(metrics: Arc<Metrics>) {
    std::panic::set_hook(Box::new(move |panic| {
        metrics.panics.fetch_add(1, Relaxed);
        log(panic);
    }));
}

fn log(panic: &PanicHookInfo<'_>) {
    let thread = std::thread::current();
    let thread = thread.name().unwrap_or("without a name");
    let place = panic.location().map_or_else(|| "an unknown place".into(), ToString::to_string);
    let text = text(panic.payload());
    tracing::error!(alert = true, "thread {thread} panicked at {place}: {text}");
}

/// std quotes the string it was working on, which may be a client's, behind a backtick: that is left out.
fn text(payload: &(dyn Any + Send)) -> &str {
    let text = match (payload.downcast_ref::<&str>(), payload.downcast_ref::<String>()) {
        (Some(text), _) => text,
        (_, Some(text)) => text.split('`').next().unwrap_or_default(),
        _ => "",
    };
    &text[..text.floor_char_boundary(TEXT_LEN_MAX)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_client_sent_is_not_repeated() {
        let sliced = "byte index 1 is not a char boundary; it is inside 'é' of `secret`".to_owned();
        assert!(!text(&sliced).contains("secret"));
        assert!(text(&sliced).starts_with("byte index 1"));
        assert_eq!(text(&"ours: `as it stands`"), "ours: `as it stands`");
        assert_eq!(text(&"é".repeat(TEXT_LEN_MAX)).len(), TEXT_LEN_MAX);
        assert_eq!(text(&7), "");
    }
}
