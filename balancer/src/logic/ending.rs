//! How a request ended, in two letters of HAProxy's ("Session state at disconnection" in its manual): who ended it, and
//! where it was then.

/// What went wrong last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    ClientLeft,
    ClientLate,
    ServerFailed,
    ServerLate,
    /// No server of the group came free in time.
    QueueLate,
    /// The request was one that we do not pass on.
    Refused,
    /// We lack descriptors, memory, room on a disk or the rest of a file.
    Lack,
    /// We ended it with its connection: an order to stop, or `worker_shutdown_timeout`.
    Stopped,
}

/// How far the server asked last had got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reached {
    /// No server was asked.
    Nobody,
    Connect,
    Head,
    Body,
}

/// `return 444`: refused without a word.
const NO_ANSWER: u16 = 444;

/// A request at its end.
#[derive(Debug, Clone, Copy)]
pub struct Ended {
    pub trouble: Option<Trouble>,
    pub reached: Reached,
    /// The client has the whole answer.
    pub is_complete: bool,
    /// The answer is no server's.
    pub is_ours: bool,
    pub status: u16,
}

/// `--` where a server's answer was passed on whole; else by whom (`C` the client, `S` a server, `P` refused by us, `L`
/// answered by us, `R` for want of something, `K` stopped by us; small where it was too slow), and when: `R` with the request, `Q` in a queue,
/// `C` connecting, `H` before the answer's head, `D` within the answer.
pub fn letters(ended: Ended) -> [u8; 2] {
    let Ended { trouble, reached, is_complete, is_ours, status } = ended;
    // An earlier server's failure is none of a request that another one has answered.
    if is_complete && (!is_ours || trouble.is_none() && reached != Reached::Nobody) {
        return *b"--";
    }
    let who = match trouble {
        None if is_complete && (status < 400 || status == 404) => b'L',
        None if is_complete || status == NO_ANSWER => b'P',
        None | Some(Trouble::ClientLeft) => b'C',
        Some(Trouble::ClientLate) => b'c',
        Some(Trouble::ServerFailed) => b'S',
        Some(Trouble::ServerLate | Trouble::QueueLate) => b's',
        Some(Trouble::Refused) => b'P',
        Some(Trouble::Lack) => b'R',
        Some(Trouble::Stopped) => b'K',
    };
    let when = match reached {
        _ if trouble == Some(Trouble::QueueLate) => b'Q',
        Reached::Nobody => b'R',
        Reached::Connect => b'C',
        Reached::Head => b'H',
        Reached::Body => b'D',
    };
    [who, when]
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: Ended =
        Ended { trouble: None, reached: Reached::Body, is_complete: true, is_ours: false, status: 200 };

    fn told(ended: Ended) -> String {
        String::from_utf8(letters(ended).to_vec()).unwrap()
    }

    #[test]
    fn a_servers_whole_answer_ends_well_whatever_was_tried_before() {
        assert_eq!(told(WHOLE), "--");
        assert_eq!(told(Ended { status: 503, ..WHOLE }), "--");
        assert_eq!(told(Ended { trouble: Some(Trouble::ServerLate), ..WHOLE }), "--");
        assert_eq!(told(Ended { is_ours: true, status: 404, ..WHOLE }), "--", "a page in place of its own");
    }

    #[test]
    fn what_we_answer_is_told_by_its_cause() {
        let ours = Ended { is_ours: true, reached: Reached::Nobody, ..WHOLE };
        assert_eq!(told(ours), "LR");
        assert_eq!(told(Ended { status: 404, ..ours }), "LR");
        assert_eq!(told(Ended { status: 403, ..ours }), "PR");
        let failed = |trouble, reached| told(Ended { trouble: Some(trouble), reached, status: 502, ..ours });
        assert_eq!(failed(Trouble::ServerFailed, Reached::Connect), "SC");
        assert_eq!(failed(Trouble::ServerLate, Reached::Head), "sH");
        assert_eq!(failed(Trouble::QueueLate, Reached::Connect), "sQ");
        assert_eq!(failed(Trouble::Lack, Reached::Connect), "RC");
        assert_eq!(failed(Trouble::Refused, Reached::Nobody), "PR");
    }

    #[test]
    fn what_is_cut_is_told_by_who_cut_it_and_when() {
        let cut = |trouble, reached| told(Ended { trouble, reached, is_complete: false, ..WHOLE });
        assert_eq!(cut(Some(Trouble::ServerFailed), Reached::Body), "SD");
        assert_eq!(cut(Some(Trouble::ServerLate), Reached::Body), "sD");
        assert_eq!(cut(Some(Trouble::ClientLeft), Reached::Head), "CH");
        assert_eq!(cut(Some(Trouble::ClientLate), Reached::Nobody), "cR");
        assert_eq!(cut(Some(Trouble::Stopped), Reached::Body), "KD");
        assert_eq!(cut(Some(Trouble::Stopped), Reached::Head), "KH");
        assert_eq!(cut(None, Reached::Body), "CD");
        let refused = Ended { is_complete: false, reached: Reached::Nobody, status: 444, ..WHOLE };
        assert_eq!(told(refused), "PR");
    }
}
