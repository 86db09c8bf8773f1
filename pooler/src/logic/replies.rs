//! What a server still owes, in order, and what becomes of each reply: forwarded, swallowed, or invented by us.
//! All rules of the reply order live here. No bytes: see session.rs.

#[cfg(test)]
mod tests;

use std::collections::VecDeque;

/// Who gets the reply to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// The client asked: it gets the reply.
    Forward,
    /// We asked: nobody sees the reply.
    Swallow,
}

/// A statement that a Parse or Close is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    Unnamed,
    /// A named statement, by the number of its shared text.
    Shared(u64),
    /// A name that passes through as the client wrote it; nothing is remembered about it.
    Verbatim,
}

/// A request on its way to the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owed {
    Parse(Fate, Target),
    Bind,
    Describe,
    Execute,
    Close(Fate, Target),
    Sync(Fate),
    Query(Fate),
    FunctionCall,
}

/// A reply that no server sends, because the request never went to one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Invented {
    ParseComplete,
    CloseComplete,
}

/// What to do with a message from the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Forward,
    Swallow,
    /// A request of our own failed: the connection is not what we took it for.
    OwnFailed,
    /// Nobody asked for this: close the server, never pool it.
    OutOfStep,
}

/// A request that failed, or that the server will not carry out because one before it failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lost {
    Parse(Target),
    Close(Target),
    /// See `ReplyQueue::push_change`.
    Change(Change),
    /// This change was the client's own Parse of its unnamed statement. It failed, which drops the one before it as well.
    Unnamed(Change),
    /// A simple query, which would have dropped the server's unnamed statement.
    Query,
}

/// The number of a change to the names that a client has given to statements.
pub type Change = u64;

/// Memory that one outstanding reply takes.
pub const ENTRY_LEN: usize = size_of::<Entry>();

#[derive(Debug, Default)]
pub struct ReplyQueue {
    entries: VecDeque<Entry>,
    state: State,
    /// Extended requests went out since the last Sync: the server holds a batch open.
    batch_open: bool,
    /// COPY data went out since CopyInResponse, or before it.
    copy_data_sent: bool,
    /// Syncs sent behind COPY data. The server ignores them, unless the COPY had failed by then.
    syncs_in_copy: usize,
    /// The count of ReadyForQuery can no longer be told for certain.
    is_uncertain: bool,
    lost: Vec<Lost>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Entry {
    Owed(Owed),
    Invent(Invented),
    /// The request before it has changed the client's names: with it the change is done or lost.
    Changed(Change),
    /// CopyData: the server may fail on it, so a Sync behind it is ignored or not, we cannot know.
    CopyStart,
    /// CopyDone or CopyFail: has no reply, but ends the time in which the server ignores Sync.
    CopyEnd,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    #[default]
    Normal,
    /// An extended request failed: the server drops everything up to the next Sync, which was not sent yet.
    Skipping,
    /// CopyInResponse came, CopyDone or CopyFail was not sent yet.
    CopyIn,
}

impl ReplyQueue {
    /// A request goes to the server.
    pub fn push(&mut self, owed: Owed) {
        let is_sync = matches!(owed, Owed::Sync(_));
        match self.state {
            State::CopyIn if is_sync => {
                self.syncs_in_copy += usize::from(self.copy_data_sent);
                return;
            }
            State::Skipping if is_sync => self.state = State::Normal,
            State::Skipping => return self.lose(Entry::Owed(owed)),
            _ => {}
        }
        self.batch_open = !matches!(owed, Owed::Sync(_) | Owed::Query(_) | Owed::FunctionCall);
        self.entries.push_back(Entry::Owed(owed));
    }

    /// A reply that the client expects at this point of the order and that we make ourselves.
    pub fn push_invented(&mut self, invented: Invented) {
        if self.state == State::Skipping {
            return self.lose(Entry::Invent(invented));
        }
        self.batch_open = true;
        self.entries.push_back(Entry::Invent(invented));
    }

    /// The request that was pushed last has changed the client's names.
    pub fn push_change(&mut self, change: Change) {
        match self.state {
            State::Skipping => self.lose(Entry::Changed(change)),
            _ => self.entries.push_back(Entry::Changed(change)),
        }
    }

    /// CopyData was sent.
    pub fn push_copy_data(&mut self) {
        match self.state {
            State::CopyIn => self.copy_data_sent = true,
            State::Normal if self.entries.back().is_some_and(|e| *e != Entry::CopyStart) => {
                self.entries.push_back(Entry::CopyStart);
            }
            _ => {}
        }
    }

    /// CopyDone or CopyFail was sent.
    pub fn push_copy_end(&mut self) {
        match self.state {
            State::CopyIn => self.state = State::Normal,
            State::Normal if !self.entries.is_empty() => self.entries.push_back(Entry::CopyEnd),
            _ => {}
        }
    }

    /// The next reply that we make ourselves, if its turn has come. Ask after each push and each message.
    pub fn next_invented(&mut self) -> Option<Invented> {
        self.skip_marks();
        let Some(Entry::Invent(invented)) = self.entries.front() else { return None };
        let invented = *invented;
        self.entries.pop_front();
        Some(invented)
    }

    /// The next reply is one to a query of our own.
    #[inline]
    pub fn owes_own_query(&self) -> bool {
        matches!(self.entries.front(), Some(Entry::Owed(Owed::Query(Fate::Swallow))))
    }

    /// A reply of our own is due now.
    #[inline]
    pub fn has_invented(&self) -> bool {
        matches!(self.entries.front(), Some(entry) if !matches!(entry, Entry::Owed(_)))
    }

    /// A message of this kind came from the server.
    pub fn on_server(&mut self, kind: u8) -> Verdict {
        self.skip_marks();
        let head = match self.entries.front() {
            Some(Entry::Owed(owed)) => Some(*owed),
            _ => None,
        };
        match kind {
            b'D' | b'd' | b'c' | b'H' | b'W' | b'V' => self.data(head),
            b'1' => self.answer(matches!(head, Some(Owed::Parse(..)))),
            b'2' => self.answer(head == Some(Owed::Bind)),
            b'3' => self.answer(matches!(head, Some(Owed::Close(..)))),
            b'T' | b'n' if head == Some(Owed::Describe) => self.answer(true),
            b'T' | b't' => self.data(head),
            b'C' | b'I' | b's' if head == Some(Owed::Execute) => {
                self.end_copy();
                self.answer(true)
            }
            b'C' | b'I' => {
                self.end_copy();
                self.data(head)
            }
            b'G' => self.on_copy_in(head),
            b'E' => self.on_error(head),
            b'Z' => self.on_ready(head),
            b'N' | b'A' | b'S' => fate_verdict(head),
            _ => Verdict::OutOfStep,
        }
    }

    /// Nothing is owed, no batch and no COPY is open: a server that says "idle" now may serve somebody else.
    pub fn is_clear(&self) -> bool {
        !self.batch_open && self.is_drained() && self.state == State::Normal && !self.is_uncertain
    }

    /// A request failed and the server drops all that comes before the next Sync.
    pub fn is_skipping(&self) -> bool {
        self.state == State::Skipping
    }

    /// No reply is outstanding, though a batch may be open.
    pub fn is_drained(&self) -> bool {
        self.entries.is_empty()
    }

    /// The order was lost for good: the server must be closed when the client is done with it.
    pub fn is_uncertain(&self) -> bool {
        self.is_uncertain
    }

    /// COPY data from the client is expected, or may be: CopyData goes to the server.
    pub fn takes_copy_data(&self) -> bool {
        self.state == State::CopyIn || !self.entries.is_empty() || self.batch_open
    }

    /// A query or a batch is being carried out.
    pub fn is_busy(&self) -> bool {
        !self.entries.is_empty() || self.batch_open
    }

    #[inline]
    pub fn has_lost(&self) -> bool {
        !self.lost.is_empty()
    }

    /// Requests that were dropped since the last call; statements must be forgotten or remembered accordingly.
    pub fn take_lost(&mut self) -> Vec<Lost> {
        std::mem::take(&mut self.lost)
    }

    fn answer(&mut self, fits: bool) -> Verdict {
        if !fits {
            return Verdict::OutOfStep;
        }
        match self.entries.pop_front() {
            Some(Entry::Owed(owed)) => fate_verdict(Some(owed)),
            _ => Verdict::OutOfStep,
        }
    }

    fn data(&self, head: Option<Owed>) -> Verdict {
        match head {
            None => Verdict::OutOfStep,
            some => fate_verdict(some),
        }
    }

    /// From here the server reads COPY data and ignores Sync: those already sent get no ReadyForQuery.
    fn on_copy_in(&mut self, head: Option<Owed>) -> Verdict {
        if !matches!(head, Some(Owed::Execute | Owed::Query(Fate::Forward))) {
            return Verdict::OutOfStep;
        }
        let (mut data_sent, mut ended, mut doubtful) = (false, false, 0);
        self.entries.retain(|entry| {
            data_sent |= *entry == Entry::CopyStart;
            ended |= *entry == Entry::CopyEnd;
            let ignored = !ended && matches!(entry, Entry::Owed(Owed::Sync(_)));
            doubtful += usize::from(ignored && data_sent);
            !ignored
        });
        self.syncs_in_copy += doubtful;
        self.copy_data_sent = data_sent;
        if !ended {
            self.state = State::CopyIn;
        }
        Verdict::Forward
    }

    fn end_copy(&mut self) {
        if self.state == State::CopyIn {
            self.state = State::Normal;
        }
        self.syncs_in_copy = 0;
    }

    fn on_error(&mut self, head: Option<Owed>) -> Verdict {
        // The server stopped reading COPY data at a point that we cannot know: it saw these Syncs or ignored them.
        self.is_uncertain |= self.syncs_in_copy > 0;
        self.end_copy();
        match head {
            Some(Owed::Query(Fate::Swallow) | Owed::Sync(Fate::Swallow)) => Verdict::OwnFailed,
            Some(Owed::Query(_) | Owed::FunctionCall | Owed::Sync(_)) => Verdict::Forward,
            None => Verdict::Forward,
            // Also when the Parse was ours: to the client its Bind has failed, and it hears that once.
            Some(failed) => {
                if failed == Owed::Parse(Fate::Forward, Target::Unnamed) {
                    self.lose_unnamed();
                }
                self.skip_to_sync();
                Verdict::Forward
            }
        }
    }

    /// After an error in a batch the server drops every request up to the next Sync, simple queries included.
    fn skip_to_sync(&mut self) {
        while let Some(entry) = self.entries.front().copied() {
            if matches!(entry, Entry::Owed(Owed::Sync(_))) {
                return;
            }
            self.entries.pop_front();
            self.lose(entry);
        }
        self.state = State::Skipping;
        self.batch_open = true;
    }

    fn lose_unnamed(&mut self) {
        self.entries.pop_front();
        self.lost.push(Lost::Parse(Target::Unnamed));
        if let Some(Entry::Changed(change)) = self.entries.front().copied() {
            self.entries.pop_front();
            self.lost.push(Lost::Unnamed(change));
        }
    }

    fn on_ready(&mut self, head: Option<Owed>) -> Verdict {
        if !matches!(head, Some(Owed::Sync(_) | Owed::Query(_) | Owed::FunctionCall)) {
            return if self.is_uncertain { Verdict::Forward } else { Verdict::OutOfStep };
        }
        self.end_copy();
        self.answer(true)
    }

    fn lose(&mut self, entry: Entry) {
        match entry {
            Entry::Owed(Owed::Parse(_, target)) => self.lost.push(Lost::Parse(target)),
            Entry::Owed(Owed::Close(_, target)) => self.lost.push(Lost::Close(target)),
            Entry::Owed(Owed::Query(_)) => self.lost.push(Lost::Query),
            Entry::Changed(change) => self.lost.push(Lost::Change(change)),
            _ => {}
        }
    }

    /// What has no reply of its own is over when its turn comes.
    fn skip_marks(&mut self) {
        while matches!(self.entries.front(), Some(Entry::CopyStart | Entry::CopyEnd | Entry::Changed(_))) {
            self.entries.pop_front();
        }
    }
}

fn fate_verdict(head: Option<Owed>) -> Verdict {
    match head {
        Some(
            Owed::Parse(Fate::Swallow, _)
            | Owed::Close(Fate::Swallow, _)
            | Owed::Sync(Fate::Swallow)
            | Owed::Query(Fate::Swallow),
        ) => Verdict::Swallow,
        _ => Verdict::Forward,
    }
}
