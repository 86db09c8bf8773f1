//! Passwords that a directory server checks. The directory is played by the test.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use crate::world::{Pooler, hba};

const BIND: u8 = 0x60;
const SEARCH: u8 = 0x63;

/// Knows `uid=alice,dc=x` with the password `right`, and answers each search with that one entry, or two for `both`.
struct Directory {
    port: u16,
    /// Who bound, and with which password.
    bound: Arc<Mutex<Vec<(String, String)>>>,
}

impl Directory {
    fn start() -> Directory {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port is free");
        let port = listener.local_addr().expect("it has an address").port();
        let bound = Arc::new(Mutex::new(Vec::new()));
        let seen = bound.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                serve(stream, &seen);
            }
        });
        Directory { port, bound }
    }

    fn bound(&self) -> Vec<(String, String)> {
        self.bound.lock().unwrap().clone()
    }
}

fn serve(mut stream: TcpStream, seen: &Mutex<Vec<(String, String)>>) {
    while let Some((id, operation, body)) = read(&mut stream) {
        let answer = match operation {
            BIND => {
                // Version, name, password.
                let (name, rest) = value(&body[3..]);
                let (password, _) = value(rest);
                let is_right = name.is_empty() || (name == "uid=alice,dc=x" && password == "right");
                seen.lock().unwrap().push((name, password));
                message(id, 0x61, &result(if is_right { 0 } else { 49 }))
            }
            SEARCH => {
                let count = if body.windows(4).any(|w| w == b"both") { 2 } else { 1 };
                let mut entry = tagged(4, b"uid=alice,dc=x");
                entry.extend([0x30, 0]);
                let mut out = message(id, 0x64, &entry).repeat(count);
                out.extend(message(id, 0x65, &result(0)));
                out
            }
            _ => return,
        };
        stream.write_all(&answer).expect("the pooler takes the answer");
    }
}

/// Number, kind and content of the next message; all of them are short.
fn read(stream: &mut TcpStream) -> Option<(u8, u8, Vec<u8>)> {
    let mut head = [0; 2];
    stream.read_exact(&mut head).ok()?;
    let mut body = vec![0; usize::from(head[1])];
    stream.read_exact(&mut body).ok()?;
    Some((body[2], body[3], body[5..].to_vec()))
}

fn value(bytes: &[u8]) -> (String, &[u8]) {
    let (value, rest) = bytes[2..].split_at(usize::from(bytes[1]));
    (String::from_utf8(value.to_vec()).unwrap(), rest)
}

fn tagged(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![tag, content.len() as u8];
    out.extend(content);
    out
}

fn message(id: u8, operation: u8, content: &[u8]) -> Vec<u8> {
    let mut body = tagged(2, &[id]);
    body.extend(tagged(operation, content));
    tagged(0x30, &body)
}

fn result(code: u8) -> Vec<u8> {
    vec![0x0a, 1, code, 4, 0, 4, 0]
}

async fn refused(pooler: &Pooler, user: &str, password: &str) {
    let result = pooler.client_as(user, &format!("password='{password}'")).await;
    let error = result.map(drop).unwrap_err();
    assert_eq!(error.as_db_error().map(|e| e.code().code().to_string()).as_deref(), Some("28P01"), "{error}");
}

#[tokio::test]
async fn the_directory_decides_about_the_password_and_never_about_an_empty_one() {
    let directory = Directory::start();
    let options =
        format!("ldapserver=127.0.0.1 ldapport={} ldapprefix=\"uid=\" ldapsuffix=\",dc=x\"", directory.port);
    let console = "host pgbouncer postgres all trust\n";
    let pooler = Pooler::start(&hba(&format!("{console}host all all all ldap {options}\n")));
    let client = pooler.client_as("alice", "password=right").await.expect("the directory lets her in");
    assert_eq!(
        client.query_one("SELECT current_user::text", &[]).await.unwrap().get::<_, String>(0),
        "alice"
    );
    refused(&pooler, "alice", "wrong").await;
    refused(&pooler, "bob", "right").await;
    let asked = directory.bound().len();
    refused(&pooler, "alice", "").await;
    assert_eq!(directory.bound().len(), asked, "a bind without a password would have succeeded");
    assert!(!pooler.log().contains("wrong\""), "no password is in the log");
}

#[tokio::test]
async fn a_search_finds_the_name_to_bind_as() {
    let directory = Directory::start();
    let url = format!("ldapurl=\"ldap://127.0.0.1:{}/dc=x?uid?sub\"", directory.port);
    let pooler = Pooler::start(&format!("auth_type = ldap\nauth_ldap_options = {url}"));
    pooler.client_as("alice", "password=right").await.expect("the directory lets her in");
    let expected = [("", ""), ("uid=alice,dc=x", "right")].map(|(a, b)| (a.to_string(), b.to_string()));
    assert_eq!(directory.bound(), expected);
    refused(&pooler, "both", "right").await;
    refused(&pooler, "ali*", "right").await;
    assert_eq!(
        directory.bound().len(),
        3,
        "two entries are bound as neither, an odd name is not searched for"
    );
}

#[tokio::test]
async fn a_directory_that_is_not_there_lets_nobody_in() {
    let options = format!("ldapserver=127.0.0.1 ldapport={} ldapbasedn=dc=x", crate::world::free_port());
    let pooler = Pooler::start(&format!("auth_type = ldap\nauth_ldap_options = {options}"));
    refused(&pooler, "alice", "right").await;
    pooler.wait_for_log("LDAP: ldap://127.0.0.1");
}
