//! Messages of DNS (RFC 1035, and RFC 2782 for SRV): a question → bytes, bytes → an answer. Only what a resolver of
//! addresses needs. Names may be as long as nginx takes them, which is longer than RFC 1035 has it.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    A,
    Aaaa,
    Srv,
}

impl Kind {
    const fn number(self) -> u16 {
        match self {
            Kind::A => 1,
            Kind::Aaaa => 28,
            Kind::Srv => 33,
        }
    }

    fn of(number: u16) -> Option<Kind> {
        [Kind::A, Kind::Aaaa, Kind::Srv].into_iter().find(|kind| kind.number() == number)
    }
}

/// Response codes that say something about the name; others are the server's own trouble.
pub const FORMAT_ERROR: u8 = 1;
pub const NAME_ERROR: u8 = 3;
pub const REFUSED: u8 = 5;

/// An answer to a question of ours, as far as the message itself tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    pub id: u16,
    /// Lower case.
    pub name: String,
    pub kind: Kind,
    pub code: u8,
    /// Cut to the length of a datagram: all of it is there over TCP.
    pub is_cut: bool,
    pub records: Vec<Record>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Seconds.
    pub ttl: u32,
    pub data: Data,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Data {
    Address(IpAddr),
    Service(Service),
    /// CNAME.
    Alias(String),
}

/// Where a service is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// The lowest comes first.
    pub priority: u16,
    pub weight: u16,
    pub port: u16,
    pub name: String,
}

/// Why a message is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoReply {
    #[error("short DNS response")]
    Short,
    #[error("invalid name in DNS response")]
    Name,
    #[error("DNS message that is no answer to a question")]
    NotAnAnswer,
    #[error("DNS error in a response")]
    Failed,
}

const HEAD_LEN: usize = 12;
/// More names than this in one another lead nowhere.
const JUMPS_MAX: usize = 128;
const LABEL_LEN_MAX: usize = 63;
const CLASS_INTERNET: u16 = 1;

/// The question as a message. `None`: this cannot be a name.
pub fn question(id: u16, name: &str, kind: Kind) -> Option<Vec<u8>> {
    let mut message = Vec::with_capacity(HEAD_LEN + name.len() + 6);
    message.extend_from_slice(&id.to_be_bytes());
    // A standard query, recursion desired; one question, nothing else.
    message.extend_from_slice(&[1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.') {
        let len =
            u8::try_from(label.len()).ok().filter(|len| (1..=LABEL_LEN_MAX).contains(&usize::from(*len)))?;
        message.push(len);
        message.extend_from_slice(label.as_bytes());
    }
    message.push(0);
    message.extend_from_slice(&kind.number().to_be_bytes());
    message.extend_from_slice(&CLASS_INTERNET.to_be_bytes());
    Some(message)
}

/// Reads what a name server says.
pub fn read(message: &[u8]) -> Result<Reply, NoReply> {
    let mut reader = Reader { message, at: 0 };
    let id = reader.u16()?;
    let flags = reader.u16()?;
    let questions = reader.u16()?;
    let records = reader.u16()?;
    reader.at = HEAD_LEN;
    // A response to a standard query, with nothing set that must not be.
    if flags & 0xf870 != 0x8000 {
        return Err(NoReply::NotAnAnswer);
    }
    let code = (flags & 15) as u8;
    if code == FORMAT_ERROR || code > REFUSED {
        return Err(NoReply::Failed);
    }
    if questions != 1 {
        return Err(NoReply::NotAnAnswer);
    }
    let name = reader.name()?;
    let kind = Kind::of(reader.u16()?).ok_or(NoReply::NotAnAnswer)?;
    if reader.u16()? != CLASS_INTERNET {
        return Err(NoReply::NotAnAnswer);
    }
    let is_cut = flags & 0x200 != 0;
    let mut reply = Reply { id, name, kind, code, is_cut, records: Vec::new() };
    if !is_cut {
        for _ in 0..records {
            reply.records.extend(reader.record()?);
        }
    }
    Ok(reply)
}

struct Reader<'m> {
    message: &'m [u8],
    at: usize,
}

impl<'m> Reader<'m> {
    fn take(&mut self, len: usize) -> Result<&'m [u8], NoReply> {
        let end = self.at.checked_add(len).ok_or(NoReply::Short)?;
        let taken = self.message.get(self.at..end).ok_or(NoReply::Short)?;
        self.at = end;
        Ok(taken)
    }

    fn u16(&mut self) -> Result<u16, NoReply> {
        let bytes = self.take(2)?;
        Ok(u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    fn u32(&mut self) -> Result<u32, NoReply> {
        Ok(u32::from(self.u16()?) << 16 | u32::from(self.u16()?))
    }

    /// A name, which may go on elsewhere in the message. Each jump leads further back: none can go round.
    fn name(&mut self) -> Result<String, NoReply> {
        let mut name = String::new();
        let mut ended_at = None;
        let mut jumps = 0;
        loop {
            let start = self.at;
            let len = usize::from(self.take(1)?[0]);
            match len {
                0 => break,
                1..=LABEL_LEN_MAX => {
                    if !name.is_empty() {
                        name.push('.');
                    }
                    push_label(&mut name, self.take(len)?);
                }
                len if len & 0xc0 == 0xc0 => {
                    let to = (len & 0x3f) << 8 | usize::from(self.take(1)?[0]);
                    ended_at.get_or_insert(self.at);
                    jumps += 1;
                    if to >= start || jumps > JUMPS_MAX {
                        return Err(NoReply::Name);
                    }
                    self.at = to;
                }
                _ => return Err(NoReply::Name),
            }
        }
        self.at = ended_at.unwrap_or(self.at);
        if name.is_empty() { Err(NoReply::Name) } else { Ok(name) }
    }

    /// `None`: one that has nothing to say to us.
    fn record(&mut self) -> Result<Option<Record>, NoReply> {
        // The owner may be the root.
        match self.name() {
            Ok(_) => {}
            Err(NoReply::Name) if self.message.get(self.at.wrapping_sub(1)) == Some(&0) => {}
            Err(error) => return Err(error),
        }
        let kind = self.u16()?;
        let class = self.u16()?;
        let ttl = self.u32()?;
        let len = usize::from(self.u16()?);
        let start = self.at;
        let data = self.take(len)?;
        let end = self.at;
        if class != CLASS_INTERNET {
            return Ok(None);
        }
        let data = match kind {
            1 => Data::Address(Ipv4Addr::from(<[u8; 4]>::try_from(data).map_err(|_| NoReply::Short)?).into()),
            28 => {
                Data::Address(Ipv6Addr::from(<[u8; 16]>::try_from(data).map_err(|_| NoReply::Short)?).into())
            }
            33 => {
                self.at = start;
                let (priority, weight, port) = (self.u16()?, self.u16()?, self.u16()?);
                Data::Service(Service { priority, weight: weight.max(1), port, name: self.name()? })
            }
            5 => {
                self.at = start;
                Data::Alias(self.name()?)
            }
            _ => return Ok(None),
        };
        self.at = end;
        // RFC 2181, 8: with the highest bit set it is as good as none.
        let ttl = if ttl > i32::MAX as u32 { 0 } else { ttl };
        Ok(Some(Record { ttl, data }))
    }
}

/// Bytes that are no text are kept apart from all that are, as in files of zones.
fn push_label(name: &mut String, label: &[u8]) {
    for byte in label {
        match byte {
            b'.' | b'\\' | 0..=32 | 127.. => {
                let _ = write!(name, "\\{byte:03}");
            }
            byte => name.push(char::from(byte.to_ascii_lowercase())),
        }
    }
}

#[cfg(test)]
mod tests;
