//! Messages from a server to a client: writing those the pooler makes itself, reading those it has to understand.

use crate::build::{self, message};
use crate::read::{Malformed, Reader};
use crate::report::Report;
use crate::startup::{CANCEL_KEY_LEN, CancelKey};

/// Kinds of messages that servers send.
pub mod kind {
    pub const AUTHENTICATION: u8 = b'R';
    pub const BACKEND_KEY_DATA: u8 = b'K';
    pub const BIND_COMPLETE: u8 = b'2';
    pub const CLOSE_COMPLETE: u8 = b'3';
    pub const COMMAND_COMPLETE: u8 = b'C';
    pub const COPY_DATA: u8 = b'd';
    pub const COPY_DONE: u8 = b'c';
    pub const COPY_IN: u8 = b'G';
    pub const COPY_OUT: u8 = b'H';
    pub const COPY_BOTH: u8 = b'W';
    pub const DATA_ROW: u8 = b'D';
    pub const EMPTY_QUERY: u8 = b'I';
    pub const ERROR: u8 = b'E';
    pub const FUNCTION_CALL: u8 = b'V';
    pub const NEGOTIATE_PROTOCOL_VERSION: u8 = b'v';
    pub const NO_DATA: u8 = b'n';
    pub const NOTICE: u8 = b'N';
    pub const NOTIFICATION: u8 = b'A';
    pub const PARAMETER_DESCRIPTION: u8 = b't';
    pub const PARAMETER_STATUS: u8 = b'S';
    pub const PARSE_COMPLETE: u8 = b'1';
    pub const PORTAL_SUSPENDED: u8 = b's';
    pub const READY_FOR_QUERY: u8 = b'Z';
    pub const ROW_DESCRIPTION: u8 = b'T';
}

/// Where a server stands between queries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransactionStatus {
    Idle,
    InTransaction,
    /// In a transaction that failed: only its end is accepted.
    Failed,
}

impl TransactionStatus {
    /// Reads the body of ReadyForQuery. More bytes may follow in later protocols and are passed over.
    pub fn parse(body: &[u8]) -> Result<Self, Malformed> {
        match body.first() {
            Some(b'I') => Ok(TransactionStatus::Idle),
            Some(b'T') => Ok(TransactionStatus::InTransaction),
            Some(b'E') => Ok(TransactionStatus::Failed),
            _ => Err(Malformed("ReadyForQuery without a known status")),
        }
    }

    /// As in the body of ReadyForQuery.
    pub fn letter(self) -> u8 {
        match self {
            TransactionStatus::Idle => b'I',
            TransactionStatus::InTransaction => b'T',
            TransactionStatus::Failed => b'E',
        }
    }
}

/// What a server asks for, or answers, while a connection logs in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Authentication<'a> {
    Ok,
    CleartextPassword,
    Md5Password {
        salt: [u8; 4],
    },
    /// Names of SASL mechanisms, each ended by a zero byte.
    Sasl {
        mechanisms: &'a [u8],
    },
    SaslContinue(&'a [u8]),
    SaslFinal(&'a [u8]),
    /// GSSAPI, SSPI, Kerberos and whatever comes: not spoken here.
    Unsupported(u32),
}

impl<'a> Authentication<'a> {
    pub fn parse(body: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(body);
        Ok(match reader.u32()? {
            0 => Authentication::Ok,
            3 => Authentication::CleartextPassword,
            5 => Authentication::Md5Password { salt: reader.u32()?.to_be_bytes() },
            10 => Authentication::Sasl { mechanisms: reader.rest() },
            11 => Authentication::SaslContinue(reader.rest()),
            12 => Authentication::SaslFinal(reader.rest()),
            other => Authentication::Unsupported(other),
        })
    }
}

/// True when the list of mechanisms has this name.
pub fn offers_mechanism(mechanisms: &[u8], name: &str) -> bool {
    mechanisms.split(|byte| *byte == 0).any(|m| m == name.as_bytes())
}

/// Name and value of a ParameterStatus.
pub fn parse_parameter_status(body: &[u8]) -> Result<(&[u8], &[u8]), Malformed> {
    let mut reader = Reader::new(body);
    let pair = (reader.cstr()?, reader.cstr()?);
    reader.end()?;
    Ok(pair)
}

pub fn parse_backend_key_data(body: &[u8]) -> Result<CancelKey, Malformed> {
    let mut reader = Reader::new(body);
    let process_id = reader.u32()?;
    if !CANCEL_KEY_LEN.contains(&reader.rest().len()) {
        return Err(Malformed("a cancel key has 4 to 256 bytes"));
    }
    Ok(CancelKey { process_id, secret: reader.rest().to_vec() })
}

/// The newest minor version that the server speaks, from NegotiateProtocolVersion.
pub fn parse_negotiate_protocol_version(body: &[u8]) -> Result<u16, Malformed> {
    // The manual gives a 32-bit number whose lower half is the minor version.
    Reader::new(body).u32().map(|version| version as u16)
}

/// The tag of CommandComplete, such as `SELECT 1`.
pub fn parse_command_complete(body: &[u8]) -> Result<&[u8], Malformed> {
    Reader::new(body).cstr()
}

/// Names of the columns of a RowDescription.
pub fn parse_row_description(body: &[u8]) -> Result<Vec<&[u8]>, Malformed> {
    let mut reader = Reader::new(body);
    let count = reader.u16()?;
    let mut names = Vec::new();
    for _ in 0..count {
        names.push(reader.cstr()?);
        reader.bytes(18)?;
    }
    Ok(names)
}

/// Values of a DataRow.
pub fn parse_data_row(body: &[u8]) -> Result<Vec<Option<&[u8]>>, Malformed> {
    let mut reader = Reader::new(body);
    let count = reader.u16()?;
    let mut values = Vec::new();
    for _ in 0..count {
        values.push(reader.value()?);
    }
    Ok(values)
}

/// Type of a column of the console's tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColumnType {
    Text,
    Int4,
    Int8,
    Numeric,
    Bytea,
}

impl ColumnType {
    fn oid_and_len(self) -> (u32, i16) {
        match self {
            ColumnType::Text => (25, -1),
            ColumnType::Int4 => (23, 4),
            ColumnType::Int8 => (20, 8),
            ColumnType::Numeric => (1700, -1),
            ColumnType::Bytea => (17, -1),
        }
    }
}

fn authentication(out: &mut Vec<u8>, code: u32, data: &[u8]) {
    message(out, kind::AUTHENTICATION, |out| {
        build::u32(out, code);
        out.extend(data);
    });
}

pub fn authentication_ok(out: &mut Vec<u8>) {
    authentication(out, 0, b"");
}

pub fn authentication_cleartext(out: &mut Vec<u8>) {
    authentication(out, 3, b"");
}

pub fn authentication_md5(out: &mut Vec<u8>, salt: [u8; 4]) {
    authentication(out, 5, &salt);
}

pub fn authentication_sasl(out: &mut Vec<u8>, mechanisms: &[&str]) {
    let mut list = Vec::new();
    for name in mechanisms {
        build::cstr(&mut list, name);
    }
    list.push(0);
    authentication(out, 10, &list);
}

pub fn authentication_sasl_continue(out: &mut Vec<u8>, data: &[u8]) {
    authentication(out, 11, data);
}

pub fn authentication_sasl_final(out: &mut Vec<u8>, data: &[u8]) {
    authentication(out, 12, data);
}

/// Answers a startup message that asks for more than is spoken here.
pub fn negotiate_protocol_version(out: &mut Vec<u8>, newest_minor: u16, declined: &[&str]) {
    message(out, kind::NEGOTIATE_PROTOCOL_VERSION, |out| {
        build::u32(out, (3 << 16) | u32::from(newest_minor));
        build::u32(out, declined.len() as u32);
        for name in declined {
            build::cstr(out, name);
        }
    });
}

pub fn parameter_status(out: &mut Vec<u8>, name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) {
    message(out, kind::PARAMETER_STATUS, |out| {
        build::cstr(out, name);
        build::cstr(out, value);
    });
}

pub fn backend_key_data(out: &mut Vec<u8>, key: &CancelKey) {
    message(out, kind::BACKEND_KEY_DATA, |out| {
        build::u32(out, key.process_id);
        out.extend(&key.secret);
    });
}

pub fn ready_for_query(out: &mut Vec<u8>, status: TransactionStatus) {
    message(out, kind::READY_FOR_QUERY, |out| out.push(status.letter()));
}

pub fn command_complete(out: &mut Vec<u8>, tag: &str) {
    message(out, kind::COMMAND_COMPLETE, |out| build::cstr(out, tag));
}

pub fn error(out: &mut Vec<u8>, report: &Report<'_>) {
    message(out, kind::ERROR, |out| report.write(out));
}

pub fn notice(out: &mut Vec<u8>, report: &Report<'_>) {
    message(out, kind::NOTICE, |out| report.write(out));
}

pub fn row_description(out: &mut Vec<u8>, columns: &[(&str, ColumnType)]) {
    message(out, kind::ROW_DESCRIPTION, |out| {
        build::u16(out, columns.len() as u16);
        for (name, column_type) in columns {
            let (oid, len) = column_type.oid_and_len();
            build::cstr(out, name);
            build::u32(out, 0); // of no table
            build::u16(out, 0); // no attribute number
            build::u32(out, oid);
            build::u16(out, len as u16);
            build::u32(out, u32::MAX); // no type modifier
            build::u16(out, 0); // text format
        }
    });
}

pub fn data_row<'a>(out: &mut Vec<u8>, values: impl ExactSizeIterator<Item = Option<&'a [u8]>>) {
    message(out, kind::DATA_ROW, |out| {
        build::u16(out, values.len() as u16);
        for value in values {
            build::value(out, value);
        }
    });
}

pub fn parse_complete(out: &mut Vec<u8>) {
    message(out, kind::PARSE_COMPLETE, |_| {});
}

pub fn bind_complete(out: &mut Vec<u8>) {
    message(out, kind::BIND_COMPLETE, |_| {});
}

pub fn close_complete(out: &mut Vec<u8>) {
    message(out, kind::CLOSE_COMPLETE, |_| {});
}

pub fn no_data(out: &mut Vec<u8>) {
    message(out, kind::NO_DATA, |_| {});
}

pub fn empty_query(out: &mut Vec<u8>) {
    message(out, kind::EMPTY_QUERY, |_| {});
}

#[cfg(test)]
#[path = "backend_tests.rs"]
mod tests;
