//! Any order of requests, invented replies and messages from a server: no panic, and "clear" never with a debt.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pooler::logic::replies::{Fate, Invented, Owed, ReplyQueue, Target, Verdict};

fn owed(byte: u8) -> Owed {
    let fate = if byte & 8 == 0 { Fate::Forward } else { Fate::Swallow };
    let target = if byte & 16 == 0 { Target::Unnamed } else { Target::Shared(u64::from(byte >> 5)) };
    match byte % 8 {
        0 => Owed::Parse(fate, target),
        1 => Owed::Bind,
        2 => Owed::Describe,
        3 => Owed::Execute,
        4 => Owed::Close(fate, target),
        5 => Owed::Sync(fate),
        6 => Owed::Query(fate),
        _ => Owed::FunctionCall,
    }
}

fuzz_target!(|bytes: &[u8]| {
    let mut queue = ReplyQueue::default();
    // A ReadyForQuery is passed on only for one that was asked for, unless the count is known to be in doubt.
    let (mut asked, mut got) = (0, 0);
    for pair in bytes.chunks_exact(2) {
        let (what, byte) = (pair[0], pair[1]);
        match what % 8 {
            0 | 1 => {
                asked +=
                    usize::from(matches!(owed(byte), Owed::Sync(_) | Owed::Query(_) | Owed::FunctionCall));
                queue.push(owed(byte));
            }
            2 => queue.push_invented(Invented::ParseComplete),
            3 => queue.push_invented(Invented::CloseComplete),
            4 => {}
            5 => queue.push_copy_data(),
            6 => queue.push_copy_end(),
            _ => {
                let verdict = queue.on_server(byte);
                got += usize::from(byte == b'Z' && matches!(verdict, Verdict::Forward | Verdict::Swallow));
                assert!(got <= asked || queue.is_uncertain());
            }
        }
        while queue.next_invented().is_some() {}
        assert!(!queue.has_invented());
        assert!(!queue.is_clear() || (queue.is_drained() && !queue.is_busy() && !queue.is_skipping()));
        queue.take_lost();
    }
});
