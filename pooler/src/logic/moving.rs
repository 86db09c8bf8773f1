//! What one process tells another when a client moves there: everything that is known of the client, and of the server it
//! holds, as bytes and back. The sockets travel beside them.

use super::session::Mode;

/// A client between two processes, at a point where nothing is owed to it.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct MovedClient {
    pub database: String,
    pub user: String,
    pub application_name: String,
    /// Halves of its cancel key.
    pub process_id: u32,
    pub secret: [u8; 4],
    pub peer: (String, u16),
    pub local: (String, u16),
    /// Microseconds since 1970.
    pub connected_at: u64,
    /// Kept, whatever the settings say now.
    pub mode: Mode,
    /// Came and was not acted on.
    pub unread: Vec<u8>,
    pub parameters: Vec<MovedParameter>,
    pub statements: Vec<MovedStatement>,
    /// The Parse message of its unnamed statement.
    pub unnamed: Option<Vec<u8>>,
    pub credential: MovedCredential,
    pub server: Option<MovedServer>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MovedParameter {
    pub name: String,
    pub value: String,
    pub is_reported: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MovedStatement {
    pub name: Vec<u8>,
    pub query: Vec<u8>,
    pub types: Vec<u8>,
}

/// How the pool's servers log in as this user.
#[derive(Clone, PartialEq, Eq, Default)]
pub enum MovedCredential {
    #[default]
    None,
    Stored(String),
    ScramKeys {
        client_key: Vec<u8>,
        server_key: Vec<u8>,
    },
}

/// The server that the client holds: in a transaction, or for its session.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct MovedServer {
    pub address: MovedAddress,
    pub process_id: u32,
    pub secret: Vec<u8>,
    pub host: String,
    pub port: u16,
    pub local: (String, u16),
    pub connected_at: u64,
    /// The byte of ReadyForQuery.
    pub status: u8,
    pub parameters: Vec<MovedParameter>,
    /// What it said about itself at its login.
    pub statuses: Vec<(String, String)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MovedAddress {
    Tcp(std::net::SocketAddr),
    Unix(String),
    Abstract(String),
}

/// Bytes that are no record of ours: the other process is of another release.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a record of the process that is taken over cannot be read")]
pub struct Unreadable;

/// The first byte of a record; another meaning of what follows gets another one.
const FORM: u8 = 1;

impl Default for MovedAddress {
    fn default() -> Self {
        MovedAddress::Unix(String::new())
    }
}

/// Passwords and keys are in it.
impl std::fmt::Debug for MovedClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "MovedClient({}/{})", self.database, self.user)
    }
}

impl std::fmt::Debug for MovedCredential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MovedCredential(***)")
    }
}

/// Its cancel key is in it.
impl std::fmt::Debug for MovedServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "MovedServer({:?}, {})", self.address, self.process_id)
    }
}

impl MovedClient {
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Writer(vec![FORM]);
        out.texts(&[&self.database, &self.user, &self.application_name]);
        out.number(self.process_id.into());
        out.0.extend(self.secret);
        out.endpoint(&self.peer);
        out.endpoint(&self.local);
        out.number(self.connected_at);
        out.0.push(self.mode as u8);
        out.bytes(&self.unread);
        out.parameters(&self.parameters);
        out.number(self.statements.len() as u64);
        for statement in &self.statements {
            out.bytes(&statement.name);
            out.bytes(&statement.query);
            out.bytes(&statement.types);
        }
        out.option(self.unnamed.as_ref(), |out, parse| out.bytes(parse));
        match &self.credential {
            MovedCredential::None => out.0.push(0),
            MovedCredential::Stored(secret) => {
                out.0.push(1);
                out.bytes(secret.as_bytes());
            }
            MovedCredential::ScramKeys { client_key, server_key } => {
                out.0.push(2);
                out.bytes(client_key);
                out.bytes(server_key);
            }
        }
        out.option(self.server.as_ref(), |out, server| server.write(out));
        out.0
    }

    pub fn from_bytes(bytes: &[u8]) -> Result<MovedClient, Unreadable> {
        let mut from = Reader(bytes);
        if from.byte()? != FORM {
            return Err(Unreadable);
        }
        let client = MovedClient {
            database: from.text()?,
            user: from.text()?,
            application_name: from.text()?,
            process_id: from.narrow()?,
            secret: from.take(4)?.try_into().map_err(|_| Unreadable)?,
            peer: from.endpoint()?,
            local: from.endpoint()?,
            connected_at: from.number()?,
            mode: from.mode()?,
            unread: from.bytes()?,
            parameters: from.parameters()?,
            statements: from.list(|from| {
                Ok(MovedStatement { name: from.bytes()?, query: from.bytes()?, types: from.bytes()? })
            })?,
            unnamed: from.option(Reader::bytes)?,
            credential: from.credential()?,
            server: from.option(MovedServer::read)?,
        };
        if from.0.is_empty() { Ok(client) } else { Err(Unreadable) }
    }
}

impl MovedServer {
    fn write(&self, out: &mut Writer) {
        let (kind, text) = match &self.address {
            MovedAddress::Tcp(address) => (0, address.to_string()),
            MovedAddress::Unix(path) => (1, path.clone()),
            MovedAddress::Abstract(name) => (2, name.clone()),
        };
        out.0.push(kind);
        out.bytes(text.as_bytes());
        out.number(self.process_id.into());
        out.bytes(&self.secret);
        out.endpoint(&(self.host.clone(), self.port));
        out.endpoint(&self.local);
        out.number(self.connected_at);
        out.0.push(self.status);
        out.parameters(&self.parameters);
        out.number(self.statuses.len() as u64);
        self.statuses.iter().for_each(|(name, value)| out.texts(&[name, value]));
    }

    fn read(from: &mut Reader<'_>) -> Result<MovedServer, Unreadable> {
        let (kind, text) = (from.byte()?, from.text()?);
        let address = match kind {
            0 => MovedAddress::Tcp(text.parse().map_err(|_| Unreadable)?),
            1 => MovedAddress::Unix(text),
            2 => MovedAddress::Abstract(text),
            _ => return Err(Unreadable),
        };
        let (process_id, secret) = (from.narrow()?, from.bytes()?);
        let (host, port) = from.endpoint()?;
        Ok(MovedServer {
            address,
            process_id,
            secret,
            host,
            port,
            local: from.endpoint()?,
            connected_at: from.number()?,
            status: from.byte()?,
            parameters: from.parameters()?,
            statuses: from.list(|from| Ok((from.text()?, from.text()?)))?,
        })
    }
}

/// Numbers are eight bytes, texts have their length in front.
struct Writer(Vec<u8>);

struct Reader<'a>(&'a [u8]);

impl Writer {
    fn number(&mut self, number: u64) {
        self.0.extend(number.to_be_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.0.extend(bytes);
    }

    fn texts(&mut self, texts: &[&str]) {
        texts.iter().for_each(|text| self.bytes(text.as_bytes()));
    }

    fn endpoint(&mut self, (host, port): &(String, u16)) {
        self.bytes(host.as_bytes());
        self.number((*port).into());
    }

    fn parameters(&mut self, parameters: &[MovedParameter]) {
        self.number(parameters.len() as u64);
        for parameter in parameters {
            self.texts(&[&parameter.name, &parameter.value]);
            self.0.push(parameter.is_reported.into());
        }
    }

    fn option<T>(&mut self, value: Option<T>, write: impl FnOnce(&mut Writer, T)) {
        self.0.push(value.is_some().into());
        if let Some(value) = value {
            write(self, value);
        }
    }
}

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], Unreadable> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or(Unreadable)?;
        self.0 = rest;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, Unreadable> {
        self.take(1).map(|bytes| bytes[0])
    }

    fn number(&mut self) -> Result<u64, Unreadable> {
        let bytes = self.take(8)?.try_into().map_err(|_| Unreadable)?;
        Ok(u64::from_be_bytes(bytes))
    }

    fn narrow<T: TryFrom<u64>>(&mut self) -> Result<T, Unreadable> {
        T::try_from(self.number()?).map_err(|_| Unreadable)
    }

    fn bytes(&mut self) -> Result<Vec<u8>, Unreadable> {
        let len = self.narrow()?;
        self.take(len).map(<[u8]>::to_vec)
    }

    fn text(&mut self) -> Result<String, Unreadable> {
        String::from_utf8(self.bytes()?).map_err(|_| Unreadable)
    }

    fn endpoint(&mut self) -> Result<(String, u16), Unreadable> {
        Ok((self.text()?, self.narrow()?))
    }

    fn mode(&mut self) -> Result<Mode, Unreadable> {
        match self.byte()? {
            0 => Ok(Mode::Session),
            1 => Ok(Mode::Transaction),
            2 => Ok(Mode::Statement),
            _ => Err(Unreadable),
        }
    }

    fn credential(&mut self) -> Result<MovedCredential, Unreadable> {
        match self.byte()? {
            0 => Ok(MovedCredential::None),
            1 => Ok(MovedCredential::Stored(self.text()?)),
            2 => Ok(MovedCredential::ScramKeys { client_key: self.bytes()?, server_key: self.bytes()? }),
            _ => Err(Unreadable),
        }
    }

    fn truth(&mut self) -> Result<bool, Unreadable> {
        match self.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Unreadable),
        }
    }

    fn parameters(&mut self) -> Result<Vec<MovedParameter>, Unreadable> {
        self.list(|from| {
            Ok(MovedParameter { name: from.text()?, value: from.text()?, is_reported: from.truth()? })
        })
    }

    fn list<T>(&mut self, read: impl Fn(&mut Self) -> Result<T, Unreadable>) -> Result<Vec<T>, Unreadable> {
        let count = self.number()?;
        // No memory for a count that is believed only once the items are there.
        let mut items = Vec::new();
        for _ in 0..count {
            items.push(read(self)?);
        }
        Ok(items)
    }

    fn option<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, Unreadable>,
    ) -> Result<Option<T>, Unreadable> {
        self.truth()?.then(|| read(self)).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn parameters() -> impl Strategy<Value = Vec<MovedParameter>> {
        let one = ("\\PC{0,8}", "\\PC{0,8}", any::<bool>())
            .prop_map(|(name, value, is_reported)| MovedParameter { name, value, is_reported });
        vec(one, 0..4)
    }

    fn server() -> impl Strategy<Value = MovedServer> {
        let address = prop_oneof![
            any::<std::net::SocketAddr>()
                // A flow label and a scope are not part of an address that was dialed.
                .prop_map(|a| MovedAddress::Tcp(std::net::SocketAddr::new(a.ip(), a.port()))),
            "\\PC{0,8}".prop_map(MovedAddress::Unix),
            "\\PC{0,8}".prop_map(MovedAddress::Abstract),
        ];
        (address, any::<u32>(), vec(any::<u8>(), 0..9), any::<(u64, u8, u16)>(), parameters()).prop_map(
            |(address, process_id, secret, (connected_at, status, port), parameters)| MovedServer {
                address,
                process_id,
                secret,
                port,
                connected_at,
                status,
                statuses: parameters
                    .iter()
                    .map(|p: &MovedParameter| (p.name.clone(), p.value.clone()))
                    .collect(),
                parameters,
                ..MovedServer::default()
            },
        )
    }

    fn client() -> impl Strategy<Value = MovedClient> {
        let statement = any::<(Vec<u8>, Vec<u8>, Vec<u8>)>()
            .prop_map(|(name, query, types)| MovedStatement { name, query, types });
        let credential = prop_oneof![
            Just(MovedCredential::None),
            "\\PC{0,8}".prop_map(MovedCredential::Stored),
            any::<(Vec<u8>, Vec<u8>)>()
                .prop_map(|(client_key, server_key)| MovedCredential::ScramKeys { client_key, server_key }),
        ];
        let parts = (
            ("\\PC{0,8}", any::<u16>(), any::<u32>(), any::<[u8; 4]>(), any::<u64>()),
            (parameters(), vec(statement, 0..3), any::<Option<Vec<u8>>>(), any::<Vec<u8>>()),
            (credential, proptest::option::of(server()), 0..3u8),
        );
        parts.prop_map(
            |((name, port, process_id, secret, at), (parameters, statements, unnamed, unread), rest)| {
                MovedClient {
                    database: name.clone(),
                    user: format!("{name} user"),
                    application_name: name.clone(),
                    process_id,
                    secret,
                    peer: (name, port),
                    local: ("unix".to_string(), port),
                    connected_at: at,
                    mode: [Mode::Session, Mode::Transaction, Mode::Statement][usize::from(rest.2)],
                    unread,
                    parameters,
                    statements,
                    unnamed,
                    credential: rest.0,
                    server: rest.1,
                }
            },
        )
    }

    proptest! {
        #[test]
        fn a_client_arrives_as_it_left(client in client()) {
            prop_assert_eq!(MovedClient::from_bytes(&client.to_bytes()), Ok(client));
        }

        #[test]
        fn a_record_that_lacks_anything_is_unreadable(client in client(), more: u8) {
            let bytes = client.to_bytes();
            for len in 0..bytes.len() {
                prop_assert_eq!(MovedClient::from_bytes(&bytes[..len]), Err(Unreadable));
            }
            let longer = [bytes, vec![more]].concat();
            prop_assert_eq!(MovedClient::from_bytes(&longer), Err(Unreadable));
        }

        #[test]
        fn any_bytes_are_read_without_panic(bytes: Vec<u8>) {
            let _ = MovedClient::from_bytes(&bytes);
            let _ = MovedClient::from_bytes(&[&[FORM], &bytes[..]].concat());
        }
    }
}
