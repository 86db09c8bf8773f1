//! The SQLSTATE codes that the pooler gives or looks at.

pub type SqlState = &'static str;

pub const SUCCESSFUL_COMPLETION: SqlState = "00000";
pub const WARNING: SqlState = "01000";
pub const CONNECTION_EXCEPTION: SqlState = "08000";
pub const CONNECTION_DOES_NOT_EXIST: SqlState = "08003";
pub const CONNECTION_REJECTED: SqlState = "08004";
pub const CONNECTION_FAILURE: SqlState = "08006";
/// What the pooler says when a server is lost or a client breaks the protocol.
pub const PROTOCOL_VIOLATION: SqlState = "08P01";
pub const FEATURE_NOT_SUPPORTED: SqlState = "0A000";
pub const INVALID_PARAMETER_VALUE: SqlState = "22023";
pub const IDLE_IN_TRANSACTION_TIMEOUT: SqlState = "25P03";
pub const FAILED_TRANSACTION: SqlState = "25P02";
pub const INVALID_STATEMENT_NAME: SqlState = "26000";
pub const INVALID_AUTHORIZATION: SqlState = "28000";
pub const INVALID_PASSWORD: SqlState = "28P01";
pub const INVALID_DATABASE: SqlState = "3D000";
pub const DUPLICATE_STATEMENT: SqlState = "42P05";
pub const SYNTAX_ERROR: SqlState = "42601";
pub const INSUFFICIENT_PRIVILEGE: SqlState = "42501";
pub const TOO_MANY_CONNECTIONS: SqlState = "53300";
pub const PROGRAM_LIMIT_EXCEEDED: SqlState = "54000";
pub const OBJECT_NOT_IN_PREREQUISITE_STATE: SqlState = "55000";
pub const QUERY_CANCELED: SqlState = "57014";
pub const ADMIN_SHUTDOWN: SqlState = "57P01";
pub const CRASH_SHUTDOWN: SqlState = "57P02";
pub const CANNOT_CONNECT_NOW: SqlState = "57P03";
pub const DATABASE_DROPPED: SqlState = "57P04";
pub const CONFIG_FILE_ERROR: SqlState = "F0000";
pub const INTERNAL_ERROR: SqlState = "XX000";
