//! A message to the console: a user who may only look gets nothing carried out but SHOW.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pooler::admin::facts::{Command, Show};
use pooler::admin::{Action, Console, Rights};

fn on(rights: Rights, kind: u8, body: &[u8]) {
    if let Action::Run(command) = Console::new(rights).on_message(kind, body)
        && rights == Rights::Stats
    {
        assert!(matches!(command, Command::Show(show) if show != Show::Fds));
    }
}

fuzz_target!(|bytes: &[u8]| {
    let Some((kind, text)) = bytes.split_first() else { return };
    let query = [text, b"\0"].concat();
    for rights in [Rights::Admin, Rights::Stats] {
        on(rights, *kind, text);
        on(rights, b'Q', &query);
    }
});
