//! Clients of HTTP/1 that close their half of a connection: gone, as for nginx, unless `proxy_ignore_client_abort` says
//! that they may be reading still.

use std::net::Shutdown;
use std::sync::{Mutex, mpsc};

use crate::OK;
use crate::common::{Balancer, Origin, PATIENCE};

#[test]
fn a_client_that_closes_its_half_is_gone_and_its_request_ends_upstream() {
    let (tell, told) = mpsc::channel();
    let tell = Mutex::new(tell);
    let origin = Origin::scripted(move |served| {
        served.read_request();
        tell.lock().unwrap().send(None).unwrap();
        let behind = served.read_to_end();
        tell.lock().unwrap().send(Some(behind)).unwrap();
    });
    let balancer = Balancer::before(&[&origin], "");
    let mut client = balancer.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(told.recv_timeout(PATIENCE).unwrap(), None);
    client.stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(told.recv_timeout(PATIENCE).unwrap(), Some(Vec::new()));
    assert_eq!(client.rest().0, b"", "and it is told nothing");
}

#[test]
fn a_client_that_closed_its_half_is_answered_where_its_leaving_is_ignored() {
    let (release, held) = mpsc::channel::<()>();
    let (tell, told) = mpsc::channel();
    let gates = Mutex::new((tell, held));
    let origin = Origin::scripted(move |served| {
        served.read_request();
        let gates = gates.lock().unwrap();
        gates.0.send(()).unwrap();
        gates.1.recv_timeout(PATIENCE).unwrap();
        served.send(OK);
    });
    let balancer = Balancer::before(&[&origin], "proxy_ignore_client_abort on;");
    let mut client = balancer.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    told.recv_timeout(PATIENCE).unwrap();
    client.stream.shutdown(Shutdown::Write).unwrap();
    release.send(()).unwrap();
    assert_eq!(client.response().body, "ok");
}
