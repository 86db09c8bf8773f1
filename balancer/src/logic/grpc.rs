//! gRPC's health checking protocol (`grpc.health.v1`): what is asked, and whether the answer is a good one.

/// Of its method `Check`.
pub const PATH: &str = "/grpc.health.v1.Health/Check";
/// A frame begins with whether its message is packed and with its length.
const FRAME_HEAD_LEN: usize = 5;
/// `ServingStatus`.
const SERVING: u64 = 1;

/// Why an answer is not a good one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotServing {
    #[error("no grpc-status came")]
    NoStatus,
    #[error("grpc-status is {0}")]
    Status(u32),
    #[error("service does not serve")]
    NotServing,
}

/// The body that asks about a service; the empty name is the whole server.
pub fn request(service: &str) -> Vec<u8> {
    let mut message = Vec::new();
    if !service.is_empty() {
        message.push(0x0a);
        write_varint(service.len() as u64, &mut message);
        message.extend_from_slice(service.as_bytes());
    }
    let mut out = vec![0];
    out.extend_from_slice(&(message.len() as u32).to_be_bytes());
    out.extend_from_slice(&message);
    out
}

/// `status` is what `grpc-status` said. `also_good` is another than 0 that is taken for health, whatever the body says.
pub fn check(status: Option<&[u8]>, also_good: u32, body: &[u8]) -> Result<(), NotServing> {
    let status = status.and_then(|text| std::str::from_utf8(text).ok()?.parse().ok());
    match status.ok_or(NotServing::NoStatus)? {
        0 if serving_status(body) == Some(SERVING) => Ok(()),
        0 => Err(NotServing::NotServing),
        status if status == also_good => Ok(()),
        status => Err(NotServing::Status(status)),
    }
}

/// The field `status` of the answer's message; 0 where it is left out. None where there is no such message.
fn serving_status(body: &[u8]) -> Option<u64> {
    let (head, rest) = body.split_first_chunk::<FRAME_HEAD_LEN>()?;
    let [0, len @ ..] = head else { return None };
    let mut message = rest.get(..u32::from_be_bytes(*len) as usize)?;
    let mut status = 0;
    while !message.is_empty() {
        let tag = read_varint(&mut message)?;
        match tag & 7 {
            0 => {
                let value = read_varint(&mut message)?;
                status = if tag >> 3 == 1 { value } else { status };
            }
            1 => message = message.get(8..)?,
            2 => {
                let len = usize::try_from(read_varint(&mut message)?).ok()?;
                message = message.get(len..)?;
            }
            5 => message = message.get(4..)?,
            _ => return None,
        }
    }
    Some(status)
}

fn write_varint(mut value: u64, out: &mut Vec<u8>) {
    while value > 0x7f {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn read_varint(text: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = text.split_first()?;
        *text = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn framed(message: &[u8]) -> Vec<u8> {
        [&[0], &(message.len() as u32).to_be_bytes()[..], message].concat()
    }

    #[test]
    fn a_service_is_named_in_the_first_field() {
        assert_eq!(request(""), [0, 0, 0, 0, 0]);
        assert_eq!(request("a.B"), [0, 0, 0, 0, 5, 0x0a, 3, b'a', b'.', b'B']);
    }

    #[test]
    fn only_who_says_that_it_serves_is_healthy() {
        let serving = framed(&[0x08, 1]);
        assert_eq!(check(Some(b"0"), 0, &serving), Ok(()));
        assert_eq!(check(None, 0, &serving), Err(NotServing::NoStatus));
        assert_eq!(check(Some(b"x"), 0, &serving), Err(NotServing::NoStatus));
        assert_eq!(check(Some(b"12"), 0, b""), Err(NotServing::Status(12)));
        assert_eq!(check(Some(b"12"), 12, b""), Ok(()));
        // Fields that nobody knows yet are passed over.
        assert_eq!(check(Some(b"0"), 12, &framed(&[0x12, 2, 8, 2, 0x1d, 1, 2, 3, 4, 0x08, 1])), Ok(()));
        for other in
            [framed(&[0x08, 2]), framed(&[]), framed(&[0x08]), b"".to_vec(), vec![1, 0, 0, 0, 2, 8, 1]]
        {
            assert_eq!(check(Some(b"0"), 0, &other), Err(NotServing::NotServing), "{other:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(body in prop::collection::vec(any::<u8>(), 0..40), value: u64) {
            let _ = serving_status(&body);
            let _ = serving_status(&framed(&body));
            let mut text = Vec::new();
            write_varint(value, &mut text);
            prop_assert_eq!(read_varint(&mut &text[..]), Some(value));
        }

        /// A name that is asked about can be read back, and a cut message says nothing.
        #[test]
        fn a_message_is_whole_or_none(service in "[a-z.A-Z]{1,300}", cut in 1usize..300) {
            let asked = request(&service);
            let mut message = &asked[FRAME_HEAD_LEN..];
            prop_assert_eq!(read_varint(&mut message), Some(0x0a));
            prop_assert_eq!(read_varint(&mut message), Some(service.len() as u64));
            prop_assert_eq!(message, service.as_bytes());
            let cut = cut.min(asked.len());
            prop_assert_eq!(serving_status(&asked[..asked.len() - cut]), None);
        }
    }
}
