//! Names at run time, through the binary: a name server of our own that says what a test tells it to.

#![allow(clippy::unwrap_used, reason = "a world that cannot be built fails its test loudly")]

mod common;

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, TcpListener, UdpSocket};
use std::sync::{Arc, Mutex};

use balancer::logic::dns::{self, Kind};
use common::{Balancer, Origin, wait_until};

/// What is known under names: address or `priority weight port name` of a service; a failure is a response code.
type Zone = Vec<(&'static str, Result<String, u8>)>;

/// A name server on a port of its own, over UDP and TCP.
struct NameServer {
    port: u16,
    zone: Arc<Mutex<Zone>>,
    /// Names in the order of questions; those over TCP with a `!`.
    asked: Arc<Mutex<Vec<String>>>,
}

impl NameServer {
    fn start(zone: Zone) -> NameServer {
        let (udp, tcp) = loop {
            let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
            if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()) {
                break (udp, tcp);
            }
        };
        let port = udp.local_addr().unwrap().port();
        let server = NameServer { port, zone: Arc::new(Mutex::new(zone)), asked: Arc::default() };
        let (zone, asked) = (server.zone.clone(), server.asked.clone());
        std::thread::spawn(move || {
            let mut message = [0; 1024];
            while let Ok((len, from)) = udp.recv_from(&mut message) {
                let answer = answer(&message[..len], &zone, &asked, false);
                udp.send_to(&answer, from).unwrap();
            }
        });
        let (zone, asked) = (server.zone.clone(), server.asked.clone());
        std::thread::spawn(move || {
            for stream in tcp.incoming() {
                let mut stream = stream.unwrap();
                let mut len = [0; 2];
                stream.read_exact(&mut len).unwrap();
                let mut message = vec![0; u16::from_be_bytes(len).into()];
                stream.read_exact(&mut message).unwrap();
                let answer = answer(&message, &zone, &asked, true);
                let len = u16::try_from(answer.len()).unwrap().to_be_bytes();
                stream.write_all(&[&len, &answer[..]].concat()).unwrap();
            }
        });
        server
    }

    fn say(&self, zone: Zone) {
        *self.zone.lock().unwrap() = zone;
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

/// Names that begin with `long` do not fit into a datagram.
fn answer(question: &[u8], zone: &Mutex<Zone>, asked: &Mutex<Vec<String>>, is_tcp: bool) -> Vec<u8> {
    let mut message = question.to_vec();
    message[2] |= 0x80;
    let read = dns::read(&message).unwrap();
    asked.lock().unwrap().push(format!("{}{}", read.name, if is_tcp { "!" } else { "" }));
    if read.name.starts_with("long") && !is_tcp {
        message[2] |= 2;
        return message;
    }
    let mut count = 0u16;
    for (_, found) in zone.lock().unwrap().iter().filter(|(name, _)| *name == read.name) {
        match found {
            Err(code) => message[3] |= code,
            Ok(text) => {
                let Some((kind, data)) = data(text, read.kind) else { continue };
                message.extend([0xc0, 12]);
                message.extend(kind.to_be_bytes());
                message.extend([0, 1, 0, 0, 0, 0]);
                message.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
                message.extend(data);
                count += 1;
            }
        }
    }
    message[6..8].copy_from_slice(&count.to_be_bytes());
    message
}

/// Type and data of a record that answers a question of this kind.
fn data(text: &str, kind: Kind) -> Option<(u16, Vec<u8>)> {
    match (text.parse::<IpAddr>(), kind) {
        (Ok(IpAddr::V4(ip)), Kind::A) => Some((1, ip.octets().to_vec())),
        (Ok(IpAddr::V6(ip)), Kind::Aaaa) => Some((28, ip.octets().to_vec())),
        (Ok(_), _) => None,
        (Err(_), _) => {
            let mut words: Vec<&str> = text.split(' ').collect();
            let name = words.pop().unwrap();
            let mut data: Vec<u8> =
                words.iter().flat_map(|word| word.parse::<u16>().unwrap().to_be_bytes()).collect();
            name.split('.').for_each(|label| {
                data.push(label.len() as u8);
                data.extend(label.as_bytes());
            });
            data.push(0);
            Some((if words.is_empty() { 5 } else { 33 }, data))
        }
    }
}

fn named(name: &'static str) -> Origin {
    Origin::scripted(move |served| {
        while served.read_request().is_some() {
            served.send(&format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{name}", name.len()));
        }
    })
}

fn upstream(names: &NameServer, group: &str) -> String {
    format!(
        "resolver 127.0.0.1:{} valid=1s; resolver_timeout 1s; upstream g {{ zone g; {group} }}\n\
         server {{ listen 127.0.0.1:PORT; location /api {{ api write=on; }}\n\
         location / {{ proxy_pass http://g; add_header X-Addr $upstream_addr always; proxy_connect_timeout 100ms; }} }}",
        names.port
    )
}

fn addr(balancer: &Balancer) -> String {
    balancer.client().get("/").header("x-addr").unwrap().to_owned()
}

#[test]
fn a_server_follows_its_name_and_trouble_at_the_name_server_changes_nothing() {
    let origin = named("one");
    let names = NameServer::start(vec![("web.test", Ok("127.0.0.1".into()))]);
    let balancer = Balancer::start(&upstream(&names, &format!("server web.test:{} resolve;", origin.port)));
    let known = format!("127.0.0.1:{}", origin.port);
    assert_eq!(addr(&balancer), known, "the very first request finds it");
    names.say(vec![("web.test", Err(2))]);
    let asked = names.asked().len();
    wait_until("it was asked again, in vain", || names.asked().len() >= asked + 4);
    assert_eq!(addr(&balancer), known);
    assert!(balancer.errors().contains("web.test could not be resolved (2: Server failure)"));
    names.say(vec![]);
    wait_until("the name is gone, and its server with it", || addr(&balancer) == "g");
    names.say(vec![("web.test", Ok("host.test".into())), ("host.test", Ok("127.0.0.1".into()))]);
    wait_until("an alias is followed", || addr(&balancer) == known);
}

#[test]
fn counters_of_addresses_that_stay_are_kept() {
    let origin = named("one");
    let names = NameServer::start(vec![("web.test", Ok("127.0.0.1".into()))]);
    let balancer = Balancer::start(&upstream(&names, &format!("server web.test:{} resolve;", origin.port)));
    (0..3).for_each(|_| drop(addr(&balancer)));
    let peers = || {
        let answer = balancer.client().get("/api/9/http/upstreams/g").body;
        let group: serde_json::Value = serde_json::from_str(&answer).unwrap();
        let peers = group["peers"].as_array().unwrap().clone();
        let shown =
            peers.iter().map(|peer| (peer["id"].as_u64().unwrap(), peer["requests"].as_u64().unwrap()));
        shown.collect::<Vec<_>>()
    };
    assert_eq!(peers(), [(0, 3)]);
    names.say(vec![("web.test", Ok("127.0.0.9".into())), ("web.test", Ok("127.0.0.1".into()))]);
    wait_until("there are two", || peers().len() == 2);
    assert_eq!(peers(), [(0, 3), (1, 0)]);
}

#[test]
fn a_service_tells_ports_and_spares_and_is_asked_for_over_tcp_when_it_does_not_fit() {
    let (best, spare) = (named("best"), named("spare"));
    let names = NameServer::start(vec![
        ("long._http.test", Ok(format!("2 1 {} spare.test", spare.port))),
        ("long._http.test", Ok(format!("1 1 {} best.test", best.port))),
        ("best.test", Ok("127.0.0.1".into())),
        ("spare.test", Ok("127.0.0.1".into())),
    ]);
    let balancer = Balancer::start(&upstream(&names, "server test resolve service=long._http;"));
    assert!(names.asked().contains(&"long._http.test!".to_owned()), "it was asked for over TCP");
    (0..3).for_each(|_| assert_eq!(balancer.client().get("/").body, "best"));
    best.kill();
    wait_until("the spare one answers", || balancer.client().get("/").body == "spare");
}

#[test]
fn a_reload_goes_on_with_known_addresses_at_the_new_port() {
    let (one, two) = (named("one"), named("two"));
    let names = NameServer::start(vec![("web.test", Ok("127.0.0.1".into()))]);
    let balancer = Balancer::start(&upstream(&names, &format!("server web.test:{} resolve;", one.port)));
    assert_eq!(balancer.client().get("/").body, "one");
    names.say(vec![("web.test", Err(2))]);
    let conf = balancer.path("nginx.conf");
    let text = std::fs::read_to_string(&conf).unwrap();
    std::fs::write(&conf, text.replace(&format!("web.test:{}", one.port), &format!("web.test:{}", two.port)))
        .unwrap();
    balancer.reload();
    assert_eq!(balancer.client().get("/").body, "two");
}

#[test]
fn a_target_with_variables_is_looked_up_and_remembered() {
    let origin = named("one");
    let names = NameServer::start(vec![
        ("long.test", Ok("127.0.0.1".into())),
        ("six.test", Ok("::1".into())),
        ("bad.test", Err(3)),
    ]);
    let balancer = Balancer::start(&format!(
        "resolver 127.0.0.1:{} valid=60s;\n\
         server {{ listen 127.0.0.1:PORT; location / {{ proxy_pass http://$arg_h:{}; }}\n\
         location /four {{ resolver 127.0.0.1:{} ipv6=off; proxy_pass http://$arg_h:{}; }} }}\n\
         server {{ listen 127.0.0.1:PORT; server_name none; resolver_timeout 1s; }}",
        names.port, origin.port, names.port, origin.port
    ));
    let mut client = balancer.client();
    assert_eq!(client.get("/?h=LONG.test").body, "one");
    assert_eq!(client.get("/?h=long.test.").body, "one");
    let mut asked = names.asked();
    asked.sort();
    assert_eq!(asked, ["long.test", "long.test", "long.test!", "long.test!"], "both families, once");
    assert_eq!(client.get("/four?h=six.test").status, 502);
    assert_eq!(client.get("/?h=bad.test").status, 502);
    assert_eq!(client.get("/?h=no..name").status, 502);
    assert!(balancer.errors().contains("bad.test could not be resolved (3: Host not found)"));
}

#[test]
fn a_name_server_that_says_nothing_is_waited_for_no_longer_than_that() {
    let mute = UdpSocket::bind("127.0.0.1:0").unwrap();
    let balancer = Balancer::start(&format!(
        "resolver 127.0.0.1:{}; resolver_timeout 300ms;\n\
         server {{ listen 127.0.0.1:PORT; location / {{ proxy_pass http://$arg_h:80; }} }}",
        mute.local_addr().unwrap().port()
    ));
    assert_eq!(balancer.client().get("/?h=some.test").status, 502);
    let errors = balancer.errors();
    assert!(errors.contains("some.test could not be resolved (110: Operation timed out)"), "{errors}");
}
