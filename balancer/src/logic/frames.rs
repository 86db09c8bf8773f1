//! What a client's HTTP/2 frames cost beyond what they carry, and how fast they come. PING and SETTINGS have to be answered
//! and bring no request nearer, and nothing in the protocol bounds them (CVE-2019-9512, CVE-2019-9515). A request's head
//! that is not whole holds up all of the connection. Reads the heads of frames only.

use std::time::{Duration, Instant};

/// `PRI * HTTP/2.0`, two empty lines and `SM` between them: bytes before the first frame.
const PREFACE_LEN: usize = 24;
const HEAD_LEN: usize = 9;

/// Frames that carry nothing of a request which a client may send at once, and for each second that passes: what nghttp2
/// allows, and thrice that. An honest client pings about once for each time it was sent something.
const BURST: u64 = 1000;
const PER_SECOND: u64 = 100;
/// Who is sent this much may send one such frame for it: clients of gRPC measure the way with a PING for each reply.
const SENT_LEN_PER_FRAME: u64 = 64;
/// nginx's rule for all frames: an eighth of what comes may be overhead, past the first megabyte.
const OVERHEAD_FREE: u64 = 1 << 20;
const OVERHEAD_SHARE: u64 = 8;

/// The client wants work done that serves nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flood;

/// Follows one connection's bytes.
#[derive(Debug)]
pub struct FrameMeter {
    began: Instant,
    /// Bytes up to the next frame's head.
    skip: usize,
    head: [u8; HEAD_LEN],
    head_len: usize,
    /// Frames so far that carry nothing of a request.
    idle_frames: u64,
    received_len: u64,
    /// Of heads and bodies of requests.
    carried_len: u64,
    /// Of bodies, as far as it has come.
    body_len: u64,
    sent_len: u64,
    /// Whose payload comes now.
    frame: Frame,
    heading: Option<Heading>,
}

/// A request's head that has begun to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heading {
    pub since: Instant,
    /// Bytes of it so far, packed as they are.
    pub len: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Frame {
    Other,
    Body,
    Head { is_last: bool },
}

impl FrameMeter {
    pub fn new(now: Instant) -> FrameMeter {
        FrameMeter {
            began: now,
            skip: PREFACE_LEN,
            head: [0; HEAD_LEN],
            head_len: 0,
            idle_frames: 0,
            received_len: 0,
            carried_len: 0,
            body_len: 0,
            sent_len: 0,
            frame: Frame::Other,
            heading: None,
        }
    }

    /// The head that is under way, if one is.
    pub fn heading(&self) -> Option<Heading> {
        self.heading
    }

    /// Of all bodies so far.
    pub fn body_len(&self) -> u64 {
        self.body_len
    }

    pub fn on_sent(&mut self, len: usize) {
        self.sent_len += len as u64;
    }

    /// `now` is asked only where it counts.
    pub fn on_received(&mut self, data: &[u8], now: impl Fn() -> Instant) -> Result<(), Flood> {
        self.received_len += data.len() as u64;
        self.read(data, &now);
        let earned = BURST + self.sent_len / SENT_LEN_PER_FRAME;
        if self.idle_frames > earned {
            let age = now().saturating_duration_since(self.began);
            if self.idle_frames - earned > passed(age) {
                return Err(Flood);
            }
        }
        let useful = self.carried_len + self.sent_len + OVERHEAD_FREE;
        if self.received_len / OVERHEAD_SHARE > useful { Err(Flood) } else { Ok(()) }
    }

    fn read(&mut self, mut data: &[u8], now: &impl Fn() -> Instant) {
        loop {
            let skipped = self.skip.min(data.len());
            self.skip -= skipped;
            data = &data[skipped..];
            self.on_payload(skipped as u64, now);
            let wanted = (HEAD_LEN - self.head_len).min(data.len());
            self.head[self.head_len..][..wanted].copy_from_slice(&data[..wanted]);
            self.head_len += wanted;
            data = &data[wanted..];
            if self.head_len < HEAD_LEN {
                return;
            }
            self.on_head();
        }
    }

    fn on_head(&mut self) {
        const DATA: u8 = 0;
        const HEADERS: u8 = 1;
        const RST_STREAM: u8 = 3;
        const WINDOW_UPDATE: u8 = 8;
        const CONTINUATION: u8 = 9;
        const END_HEADERS: u8 = 4;
        self.head_len = 0;
        self.skip = u32::from_be_bytes([0, self.head[0], self.head[1], self.head[2]]) as usize;
        self.frame = match self.head[3] {
            DATA => Frame::Body,
            HEADERS | CONTINUATION => Frame::Head { is_last: self.head[4] & END_HEADERS != 0 },
            _ => Frame::Other,
        };
        match self.head[3] {
            DATA | HEADERS | CONTINUATION => self.carried_len += self.skip as u64,
            // Given up streams are counted where streams are; windows are opened as often as data is sent.
            RST_STREAM | WINDOW_UPDATE => {}
            _ => self.idle_frames += 1,
        }
    }

    /// So much more has come of the present frame. `now` is asked only for a head that did not come at once.
    fn on_payload(&mut self, len: u64, now: &impl Fn() -> Instant) {
        match self.frame {
            Frame::Other => {}
            Frame::Body => self.body_len += len,
            Frame::Head { is_last: true } if self.skip == 0 => {
                self.frame = Frame::Other;
                self.heading = None;
            }
            Frame::Head { .. } => {
                self.heading.get_or_insert_with(|| Heading { since: now(), len: 0 }).len += len;
            }
        }
    }
}

/// Frames that time has earned.
fn passed(age: Duration) -> u64 {
    u64::try_from(age.as_millis()).unwrap_or(u64::MAX).saturating_mul(PER_SECOND) / 1000
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, len: usize) -> Vec<u8> {
        let mut frame = (len as u32).to_be_bytes()[1..].to_vec();
        frame.extend_from_slice(&[kind, 0, 0, 0, 0, 0]);
        frame.resize(9 + len, 0xff);
        frame
    }

    /// A meter past the preface, and the moment it began.
    fn meter() -> (FrameMeter, Instant) {
        let now = Instant::now();
        let mut meter = FrameMeter::new(now);
        assert_eq!(meter.on_received(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", || now), Ok(()));
        (meter, now)
    }

    #[test]
    fn frames_are_counted_alike_however_they_are_cut() {
        let mut text = [frame(4, 6), frame(1, 300), frame(0, 70_000), frame(6, 8), frame(8, 4)].concat();
        text.extend(frame(0, 0));
        for piece in 1..20 {
            let (mut meter, now) = meter();
            text.chunks(piece).for_each(|piece| assert_eq!(meter.on_received(piece, || now), Ok(())));
            assert_eq!((meter.idle_frames, meter.carried_len, meter.head_len), (2, 70_300, 0), "by {piece}");
        }
    }

    #[test]
    fn a_head_is_under_way_until_its_last_frame_is_whole() {
        let text = |flags: u8, kind: u8, len: usize| {
            let mut frame = frame(kind, len);
            frame[4] = flags;
            frame
        };
        let (mut meter, now) = meter();
        let at = |second: u64| move || now + Duration::from_secs(second);
        let mut take = |data: &[u8], second: u64| {
            meter.on_received(data, at(second)).unwrap();
            meter.heading()
        };
        assert_eq!(take(&text(4, 1, 300), 1), None, "whole at once");
        let (head, rest) = (text(0, 1, 300), text(4, 9, 20));
        assert_eq!(take(&head[..8], 2), None, "no frame yet");
        let since = at(3)();
        assert_eq!(take(&head[8..109], 3), Some(Heading { since, len: 100 }));
        assert_eq!(take(&head[109..], 4), Some(Heading { since, len: 300 }));
        assert_eq!(take(&rest[..9], 5), Some(Heading { since, len: 300 }));
        assert_eq!(take(&rest[9..], 6), None);
        assert_eq!(take(&frame(0, 50)[..30], 7), None, "a body");
        assert_eq!(meter.body_len(), 21);
    }

    #[test]
    fn pings_past_the_burst_are_a_flood_unless_time_or_answers_have_earned_them() {
        let ping = frame(6, 8);
        let (mut meter, now) = meter();
        for _ in 0..BURST {
            assert_eq!(meter.on_received(&ping, || now), Ok(()));
        }
        assert_eq!(meter.on_received(&ping, || now + Duration::from_millis(9)), Err(Flood));
        assert_eq!(meter.on_received(&ping, || now + Duration::from_millis(20)), Ok(()), "two in 20 ms");
        meter.on_sent(64 * 3);
        for _ in 0..3 {
            assert_eq!(meter.on_received(&ping, || now + Duration::from_millis(20)), Ok(()));
        }
        assert_eq!(meter.on_received(&ping, || now + Duration::from_millis(20)), Err(Flood));
    }

    #[test]
    fn windows_that_open_for_nothing_are_a_flood_and_those_for_an_answer_are_none() {
        let opened = frame(8, 4).repeat(1000);
        let (mut meter, now) = meter();
        let (mut rounds, mut served) = (0, self::meter().0);
        while meter.on_received(&opened, || now).is_ok() {
            served.on_sent(64_000);
            assert_eq!(served.on_received(&opened, || now), Ok(()));
            rounds += 1;
            assert!(rounds < 1000, "never a flood");
        }
        assert_eq!(rounds, (8 << 20) / opened.len());
    }
}
