//! One user's HTTP connection: kept alive, opened again when the server closed it, every wait bounded.

use crate::logic::fault::{Fault, RESPONSE};
use crate::logic::stats::{Key, Kind};
use crate::logic::target::Target;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

/// No answer of the chat service is longer; one that is would fill the generator's memory.
const BODY_MAX: usize = 1024 * 1024;

/// Where connections go and come from.
#[derive(Debug, Clone)]
pub struct Dialer {
    pub address: SocketAddr,
    pub authority: Rc<str>,
    /// The address to connect from; ip_hash sends networks, not users, to replicas.
    pub source: Option<Ipv4Addr>,
    pub limit: Duration,
}

impl Dialer {
    /// Looks the target's name up once.
    pub async fn resolve(target: &Target, limit: Duration) -> anyhow::Result<Self> {
        let found = tokio::net::lookup_host((target.host.as_str(), target.port)).await;
        let address = found.ok().and_then(|mut found| found.next());
        let address = address.ok_or_else(|| anyhow::anyhow!("cannot find {target}: check the host name"))?;
        Ok(Self { address, authority: target.authority().into(), source: None, limit })
    }

    /// The same target from network 127.0.`network`.0/24; only loopback can be dialled from there.
    pub fn from_network(&self, network: u8) -> Self {
        Self { source: Some(Ipv4Addr::new(127, 0, network, 1)), ..self.clone() }
    }

    /// From that network where it can be chosen, and as the system chooses elsewhere.
    pub fn of_network(&self, network: u8) -> Self {
        match self.address.ip() {
            IpAddr::V4(address) if address.is_loopback() => self.from_network(network),
            _ => self.clone(),
        }
    }

    pub async fn connect(&self) -> Result<TcpStream, Fault> {
        let dial = async {
            let Some(source) = self.source else { return TcpStream::connect(self.address).await };
            let socket = TcpSocket::new_v4()?;
            socket.bind(SocketAddr::new(IpAddr::V4(source), 0))?;
            socket.connect(self.address).await
        };
        let stream = timeout(self.limit, dial)
            .await
            .map_err(|_| Fault::Late { what: RESPONSE, limit: self.limit })?
            .map_err(|error| Fault::Connect(error.kind().to_string()))?;
        // Small requests must not wait for the acknowledgement of the one before.
        stream.set_nodelay(true).map_err(|error| Fault::Connect(error.kind().to_string()))?;
        Ok(stream)
    }
}

/// One request to be made.
#[derive(Debug, Clone)]
pub struct Call {
    pub key: Key,
    method: Method,
    path: String,
    headers: Vec<(&'static str, String)>,
    body: Bytes,
}

impl Call {
    pub fn get(name: &'static str, path: impl Into<String>) -> Self {
        Self::new(Key { kind: Kind::Get, name }, Method::GET, path.into())
    }

    pub fn post(name: &'static str, path: impl Into<String>, body: &serde_json::Value) -> Self {
        let call = Self::new(Key { kind: Kind::Post, name }, Method::POST, path.into());
        Self { body: body.to_string().into(), ..call }.header("content-type", "application/json".to_owned())
    }

    /// Any method; the body is JSON.
    pub fn of_method(
        method: Method,
        name: &'static str,
        path: impl Into<String>,
        body: Option<&serde_json::Value>,
    ) -> Self {
        let call = Self::new(Key { kind: Kind::Get, name }, method, path.into());
        let Some(body) = body else { return call };
        Self { body: body.to_string().into(), ..call }.header("content-type", "application/json".to_owned())
    }

    pub fn of_kind(mut self, kind: Kind) -> Self {
        self.key.kind = kind;
        self
    }

    pub fn bearer(self, token: &str) -> Self {
        self.header("authorization", format!("Bearer {token}"))
    }

    pub fn header(mut self, name: &'static str, value: String) -> Self {
        self.headers.push((name, value));
        self
    }

    fn new(key: Key, method: Method, path: String) -> Self {
        Self { key, method, path, headers: Vec::new(), body: Bytes::new() }
    }

    fn request(&self, authority: &str) -> Result<Request<Full<Bytes>>, Fault> {
        let mut request =
            Request::builder().method(&self.method).uri(&self.path).header(header::HOST, authority);
        for (name, value) in &self.headers {
            request = request.header(*name, value);
        }
        request
            .body(Full::new(self.body.clone()))
            .map_err(|error| Fault::shape("a request that cannot be made", error.to_string()))
    }
}

/// A whole answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: http::HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn expect(&self, wanted: StatusCode) -> Result<&Self, Fault> {
        if self.status == wanted.as_u16() {
            return Ok(self);
        }
        let title = crate::logic::shape::problem_title(&self.body);
        Err(Fault::Status { got: self.status, wanted: wanted.as_u16(), title })
    }

    pub fn json<T: DeserializeOwned>(&self) -> Result<T, Fault> {
        crate::logic::shape::decode(&self.body)
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// One user's connection.
#[derive(Debug)]
pub struct Client {
    pub dialer: Rc<Dialer>,
    conn: Option<SendRequest<Full<Bytes>>>,
}

impl Client {
    pub fn new(dialer: Rc<Dialer>) -> Self {
        Self { dialer, conn: None }
    }

    /// Sends and reads the whole answer.
    pub async fn call(&mut self, call: &Call) -> Result<Answer, Fault> {
        let response = self.open(call).await?;
        let (head, body) = response.into_parts();
        let limit = self.dialer.limit;
        let read = timeout(limit, Limited::new(body, BODY_MAX).collect()).await;
        let body = match read {
            Ok(Ok(body)) => body.to_bytes(),
            Ok(Err(error)) => return Err(self.forget(Fault::Cut(cause(error.as_ref())))),
            Err(_) => return Err(self.forget(Fault::Late { what: "end of the body", limit })),
        };
        Ok(Answer { status: head.status.as_u16(), headers: head.headers, body })
    }

    /// Sends and waits for the head alone: the body is a stream.
    pub async fn open(&mut self, call: &Call) -> Result<Response<Incoming>, Fault> {
        let limit = self.dialer.limit;
        match timeout(limit, self.send(call)).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(fault)) => Err(self.forget(fault)),
            Err(_) => Err(self.forget(Fault::Late { what: RESPONSE, limit })),
        }
    }

    /// Closes the connection, so that the next call opens one.
    pub fn close(&mut self) {
        self.conn = None;
    }

    async fn send(&mut self, call: &Call) -> Result<Response<Incoming>, Fault> {
        let mut request = call.request(&self.dialer.authority)?;
        if let Some(mut conn) = self.conn.take()
            && conn.ready().await.is_ok()
        {
            // A server may close an idle connection at any time. hyper gives the request back when no byte
            // of it was sent: only then may it go out again on a new connection.
            match conn.try_send_request(request).await {
                Ok(response) => return Ok(self.keep(conn, response)),
                Err(mut error) => match error.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(Fault::NoAnswer(cause(&error.into_error()))),
                },
            }
        }
        let mut conn = self.dial().await?;
        let response = conn.send_request(request).await.map_err(|error| Fault::NoAnswer(cause(&error)))?;
        Ok(self.keep(conn, response))
    }

    fn keep(&mut self, conn: SendRequest<Full<Bytes>>, response: Response<Incoming>) -> Response<Incoming> {
        self.conn = Some(conn);
        response
    }

    async fn dial(&self) -> Result<SendRequest<Full<Bytes>>, Fault> {
        let stream = self.dialer.connect().await?;
        let (conn, driver) = http1::Builder::new()
            // Answers are small; hyper's own choice would hold far more per user.
            .max_buf_size(64 * 1024)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| Fault::Connect(cause(&error)))?;
        tokio::task::spawn_local(async move {
            // The user of the connection is told by its own call; this end has nobody to tell.
            let _ = driver.await;
        });
        Ok(conn)
    }

    fn forget(&mut self, fault: Fault) -> Fault {
        self.close();
        fault
    }
}

/// The innermost cause in words: hyper's outer errors say little.
pub fn cause(error: &(dyn std::error::Error + 'static)) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    match innermost.downcast_ref::<std::io::Error>() {
        Some(io) => io.kind().to_string(),
        None => innermost.to_string(),
    }
}
