//! TLS with real peers: curl and `openssl s_client` as clients, nginx as origin.

#![allow(clippy::unwrap_used, reason = "a world that cannot be built fails its test loudly")]

mod common;
mod keys;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use common::{Balancer, PATIENCE};
use keys::Keys;

/// What curl prints, certificates unchecked.
fn curl(port: u16, host: &str, path: &str, more: &[&str]) -> String {
    let done = Command::new("curl")
        .args(["-sk", "--http1.1", "--max-time", "20", "--resolve", &format!("{host}:{port}:127.0.0.1")])
        .args(more)
        .arg(format!("https://{host}:{port}{path}"))
        .output()
        .unwrap();
    String::from_utf8_lossy(&done.stdout).into_owned()
}

fn s_client(port: u16, more: &str) -> String {
    let done = Command::new("openssl")
        .args(["s_client", "-connect", &format!("127.0.0.1:{port}")])
        .args(more.split(' ').filter(|word| !word.is_empty()))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr)
}

/// nginx, ended with its test.
struct Nginx {
    child: Child,
    port: u16,
    _folder: tempfile::TempDir,
}

impl Nginx {
    fn start(server: &str) -> Nginx {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().display();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let temp: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|what| format!("{what}_temp_path {dir}/{what};\n"))
            .concat();
        let text = format!(
            "daemon off; master_process off; pid {dir}/pid; error_log {dir}/error.log;\nevents {{ }}\n\
             http {{ access_log off; {temp} server {{ listen 127.0.0.1:{port} ssl; {server} }} }}\n"
        );
        std::fs::write(folder.path().join("nginx.conf"), text).unwrap();
        let program = if Path::new("/usr/sbin/nginx").exists() { "/usr/sbin/nginx" } else { "nginx" };
        let conf = folder.path().join("nginx.conf");
        let child = Command::new(program).arg("-p").arg(folder.path()).arg("-c").arg(conf).spawn().unwrap();
        let start = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(start.elapsed() < PATIENCE, "nginx does not listen");
            std::thread::yield_now();
        }
        Nginx { child, port, _folder: folder }
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn the_handshakes_name_chooses_the_server_and_its_certificate() {
    let keys = Keys::new();
    keys.own("one.test", "rsa");
    keys.own("two.test", "ec");
    let balancer = Balancer::start(&format!(
        "server {{ listen 127.0.0.1:PORT ssl; server_name one.test; {} location / {{ return 200 \"1 $scheme $https $ssl_server_name\"; }} }}\n\
         server {{ listen 127.0.0.1:PORT ssl; server_name two.test; {} location / {{ return 200 \"2 $ssl_protocol\"; }} }}\n\
         server {{ listen 127.0.0.1:PORT ssl; server_name no.test; ssl_reject_handshake on; }}",
        keys.shown("one.test"),
        keys.shown("two.test")
    ));
    let port = balancer.port;
    assert_eq!(curl(port, "one.test", "/", &[]), "1 https on one.test");
    assert_eq!(curl(port, "two.test", "/", &["--tls-max", "1.2"]), "2 TLSv1.2");
    assert_eq!(curl(port, "unknown.test", "/", &[]), "1 https on unknown.test");
    assert!(s_client(port, "-servername two.test").contains("CN = two.test"));
    assert!(s_client(port, "-servername no.test").contains("unrecognized name"));
}

#[test]
fn who_comes_in_clear_text_can_be_sent_to_the_same_path_by_a_named_location() {
    let keys = Keys::new();
    keys.own("one.test", "ec");
    let balancer = Balancer::start(&format!(
        "server {{ listen 127.0.0.1:PORT ssl; {} error_page 497 @clear;\n\
         location @clear {{ return 301 https://one.test$uri?$args; }} location / {{ return 200 x; }} }}",
        keys.shown("one.test")
    ));
    let answer = balancer.client().get("/a/../b%20c?d");
    assert_eq!((answer.status, answer.header("location")), (301, Some("https://one.test/b c?d")));
}

#[test]
fn of_several_certificates_the_one_is_shown_that_the_client_can_check() {
    let keys = Keys::new();
    keys.own("rsa.test", "rsa");
    keys.own("ec.test", "ec");
    let balancer = Balancer::start(&format!(
        "server {{ listen 127.0.0.1:PORT ssl; {} {} location / {{ return 200 $ssl_cipher; }} }}",
        keys.shown("rsa.test"),
        keys.shown("ec.test")
    ));
    let old = "-tls1_2 -sigalgs RSA+SHA256:RSA-PSS+SHA256";
    assert!(s_client(balancer.port, old).contains("CN = rsa.test"));
    assert!(s_client(balancer.port, "").contains("CN = ec.test"));
    let suite = ["--tls-max", "1.2", "--ciphers", "ECDHE-RSA-AES128-GCM-SHA256"];
    assert_eq!(curl(balancer.port, "x.test", "/", &suite), "ECDHE-RSA-AES128-GCM-SHA256");
}

#[test]
fn a_session_is_resumed_by_ticket_and_by_cache_until_its_time_is_over() {
    let keys = Keys::new();
    keys.own("one.test", "ec");
    let balancer = |more: &str| {
        Balancer::start(&format!("server {{ listen 127.0.0.1:PORT ssl; {} {more} }}", keys.shown("one.test")))
    };
    let reused = |port: u16, version: &str| {
        s_client(port, &format!("-reconnect {version}")).matches("Reused,").count()
    };
    assert_eq!(reused(balancer("").port, "-tls1_2"), 5, "tickets");
    let cache = balancer("ssl_session_tickets off; ssl_session_cache shared:S:1m;");
    assert_eq!(reused(cache.port, "-tls1_2"), 5, "the cache");
    assert_eq!(reused(balancer("ssl_session_tickets off;").port, "-tls1_2"), 0, "neither");
    assert_eq!(reused(balancer("ssl_session_timeout 0;").port, "-tls1_2"), 0, "over at once");
}

#[test]
fn sessions_outlive_a_reload_that_has_their_zone_and_shows_and_asks_the_same() {
    let keys = Keys::new();
    keys.own("one.test", "ec");
    keys.own("two.test", "ec");
    let ask = format!("ssl_verify_client optional; ssl_client_certificate {};", keys.path("two.test.crt"));
    let zone = "ssl_session_cache shared:S:1m;";
    let larger = "ssl_session_cache shared:S:2m;";
    let asking = format!("{zone} {ask}");
    let cases = [
        (zone, zone, true),
        ("", "", false),
        (zone, larger, false),
        (zone, &asking[..], false),
        (&asking[..], zone, false),
    ];
    let is_reused = |balancer: &Balancer, way: &str| {
        s_client(balancer.port, &format!("-tls1_2 {way} {}", keys.path("session"))).contains("\nReused,")
    };
    let reload = |balancer: &Balancer, (from, to): (&str, &str)| {
        let conf = balancer.path("nginx.conf");
        let text = std::fs::read_to_string(&conf).unwrap().replace(from, to);
        std::fs::write(&conf, text).unwrap();
        let reloads = || balancer.errors().matches(" reconfigured").count();
        let before = reloads();
        balancer.signal_reload();
        common::wait_until("the reload is over", || reloads() > before);
    };
    for tickets in ["ssl_session_tickets on;", "ssl_session_tickets off;"] {
        for (before, after, is_resumed) in cases {
            let server = format!("{} {tickets}", keys.shown("one.test"));
            let balancer =
                Balancer::start(&format!("server {{ listen 127.0.0.1:PORT ssl; {server} {before} }}"));
            let (from, to) = (format!("{server} {before}"), format!("{server} {after}"));
            assert!(!is_reused(&balancer, "-sess_out"), "the first is a new one");
            reload(&balancer, (&from, &to));
            assert_eq!(is_reused(&balancer, "-sess_in"), is_resumed, "{tickets} {before} -> {after}");
            if is_resumed {
                reload(&balancer, ("one.test", "two.test"));
                assert!(!is_reused(&balancer, "-sess_in"), "{tickets} another certificate");
            }
        }
    }
}

#[test]
fn a_client_that_does_not_prove_itself_gets_a_page() {
    let keys = Keys::new();
    for name in ["server", "ca", "stranger"] {
        keys.own(name, "rsa");
    }
    keys.signed("friend", "ca");
    let balancer = Balancer::start(&format!(
        "server {{ listen 127.0.0.1:PORT ssl; server_name on.test; {shown} ssl_verify_client on; \
           ssl_client_certificate {ca}; \
           location / {{ return 200 \"$ssl_client_verify $ssl_client_s_dn $ssl_client_i_dn_legacy\"; }} }}\n\
         server {{ listen 127.0.0.1:PORT ssl; server_name off.test; {shown} \
           location / {{ return 200 \"$ssl_client_verify\"; }} }}",
        shown = keys.shown("server"),
        ca = keys.path("ca.crt"),
    ));
    let port = balancer.port;
    let shows = |name: &str| {
        let (crt, key) = (keys.path(&format!("{name}.crt")), keys.path(&format!("{name}.key")));
        curl(port, "on.test", "/", &["--cert", &crt, "--key", &key])
    };
    assert_eq!(shows("friend"), "SUCCESS CN=friend /CN=ca");
    assert!(shows("stranger").contains("400 The SSL certificate error"));
    assert!(curl(port, "on.test", "/", &[]).contains("400 No required SSL certificate was sent"));
    assert_eq!(curl(port, "off.test", "/", &[]), "NONE");
    let moved = curl(port, "off.test", "/", &["-H", "Host: on.test"]);
    assert!(moved.contains("421 Misdirected Request"), "proven to one server, used for another: {moved}");
}

#[test]
fn plain_http_on_a_port_of_tls_is_told_so_and_a_hello_that_never_comes_ends() {
    let keys = Keys::new();
    keys.own("one.test", "ec");
    let balancer = Balancer::start(&format!(
        "server {{ listen 127.0.0.1:PORT ssl; {} client_header_timeout 300ms; }}",
        keys.shown("one.test")
    ));
    let answer = balancer.client().get("/");
    assert_eq!(answer.status, 400);
    assert!(answer.body.contains("The plain HTTP request was sent to HTTPS port"), "{}", answer.body);
    for begun in [&b""[..], b"\x16\x03\x01"] {
        let mut silent = TcpStream::connect(("127.0.0.1", balancer.port)).unwrap();
        silent.set_read_timeout(Some(PATIENCE)).unwrap();
        silent.write_all(begun).unwrap();
        assert_eq!(silent.read(&mut [0; 64]).unwrap_or(0), 0, "closed at the deadline");
    }
}

#[test]
fn a_reload_changes_the_certificate_and_keeps_connections() {
    let keys = Keys::new();
    keys.own("old.test", "ec");
    keys.own("new.test", "ec");
    let keys_of = |name: &str| [format!("{name}.crt"), format!("{name}.key")];
    let put = |name: &str| {
        for (from, to) in keys_of(name).iter().zip(keys_of("current")) {
            std::fs::copy(keys.path(from), keys.path(&to)).unwrap();
        }
    };
    put("old.test");
    let balancer = Balancer::start(&format!(
        "server {{ listen 127.0.0.1:PORT ssl; {} location / {{ return 200 ok; }} }}",
        keys.shown("current")
    ));
    let mut kept = Command::new("openssl")
        .args(["s_client", "-quiet", "-connect", &format!("127.0.0.1:{}", balancer.port)])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let (mut input, mut output) = (kept.stdin.take().unwrap(), kept.stdout.take().unwrap());
    let mut ask = || {
        input.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\nok") {
            let mut byte = [0];
            assert_eq!(output.read(&mut byte).unwrap(), 1, "{}", String::from_utf8_lossy(&answer));
            answer.push(byte[0]);
        }
    };
    ask();
    put("new.test");
    balancer.signal_reload();
    let start = Instant::now();
    while !s_client(balancer.port, "").contains("CN = new.test") {
        assert!(start.elapsed() < PATIENCE, "the new certificate never came: {}", balancer.errors());
    }
    ask();
    let _ = kept.kill();
    let _ = kept.wait();
}

#[test]
fn an_upstream_is_named_checked_and_kept() {
    let keys = Keys::new();
    for name in ["ca", "stranger", "client"] {
        keys.own(name, "rsa");
    }
    keys.signed("origin.test", "ca");
    let origin = Nginx::start(&format!(
        "{} ssl_verify_client optional_no_ca; location / {{ return 200 \"$ssl_server_name,$connection_requests,$ssl_client_s_dn\"; }}",
        keys.shown("origin.test")
    ));
    let trusts = |ca: &str, name: &str| {
        format!(
            "proxy_ssl_verify on; proxy_ssl_trusted_certificate {}; proxy_ssl_name {name};",
            keys.path(ca)
        )
    };
    let pass = "proxy_pass https://origins;";
    let balancer = Balancer::start(&format!(
        "upstream origins {{ server 127.0.0.1:{port}; keepalive 4; }}\n\
         server {{ listen 127.0.0.1:PORT;\n\
           location /plain {{ {pass} }}\n\
           location /named {{ {pass} proxy_ssl_server_name on; {} }}\n\
           location /other {{ {pass} {} }}\n\
           location /stranger {{ {pass} {} }}\n\
           location /shows {{ {pass} proxy_ssl_certificate {crt}; proxy_ssl_certificate_key {key}; }}\n\
           location /url {{ set $origin 127.0.0.1:{port}; proxy_pass https://$origin; }} }}",
        trusts("ca.crt", "origin.test"),
        trusts("ca.crt", "other.test"),
        trusts("stranger.crt", "origin.test"),
        port = origin.port,
        crt = keys.path("client.crt"),
        key = keys.path("client.key"),
    ));
    let get = |path: &str| {
        let answer = balancer.client().get(path);
        (answer.status, answer.body)
    };
    assert_eq!(get("/plain"), (200, ",1,".into()));
    assert_eq!(get("/plain"), (200, ",2,".into()), "the connection is kept");
    assert_eq!(get("/named"), (200, "origin.test,1,".into()), "but not for one who means another peer");
    assert_eq!(get("/named"), (200, "origin.test,2,".into()));
    assert_eq!(get("/other").0, 502);
    assert_eq!(get("/stranger").0, 502);
    assert_eq!(get("/shows"), (200, ",1,CN=client".into()));
    assert_eq!(get("/url"), (200, ",1,".into()));
    let errors = balancer.errors();
    assert!(errors.contains("upstream SSL certificate does not match \"other.test\""), "{errors}");
    assert!(errors.contains("upstream SSL certificate verify error"), "{errors}");
}

#[test]
fn a_revoked_client_is_refused_and_the_authoritys_word_is_stapled() {
    let keys = Keys::new();
    keys.own("ca", "rsa");
    for name in ["server", "friend", "revoked"] {
        keys.signed(name, "ca");
    }
    keys.revoked("revoked", "ca", "crl.pem");
    keys.openssl(
        "ocsp -index index.txt -CA ca.crt -rsigner ca.crt -rkey ca.key -issuer ca.crt -cert server.crt \
         -respout ocsp.der -ndays 3",
    );
    let balancer = Balancer::start(&format!(
        "server {{ listen 127.0.0.1:PORT ssl; {} ssl_verify_client on; ssl_client_certificate {}; ssl_crl {}; \
           ssl_stapling on; ssl_stapling_file {}; location / {{ return 200 $ssl_client_verify; }} \
           error_page 495 /why; location = /why {{ return 200 $ssl_client_verify; }} }}",
        keys.shown("server"),
        keys.path("ca.crt"),
        keys.path("crl.pem"),
        keys.path("ocsp.der"),
    ));
    let shows = |name: &str| {
        let (crt, key) = (keys.path(&format!("{name}.crt")), keys.path(&format!("{name}.key")));
        curl(balancer.port, "x.test", "/", &["--cert", &crt, "--key", &key])
    };
    assert_eq!(shows("friend"), "SUCCESS");
    assert_eq!(shows("revoked"), "FAILED:certificate revoked");
    assert!(s_client(balancer.port, "-status").contains("OCSP Response Status: successful"));
}

#[test]
fn a_key_under_a_password_is_opened_by_the_password_file() {
    let keys = Keys::new();
    keys.own("one.test", "rsa");
    keys.openssl("pkcs8 -topk8 -in one.test.key -out sealed.key -passout pass:second");
    std::fs::write(keys.path("passwords"), "first\nsecond\n").unwrap();
    let balancer = Balancer::start(&format!(
        "server {{ listen 127.0.0.1:PORT ssl; ssl_certificate {}; ssl_certificate_key {}; ssl_password_file {}; \
           location / {{ return 200 opened; }} }}",
        keys.path("one.test.crt"),
        keys.path("sealed.key"),
        keys.path("passwords"),
    ));
    assert_eq!(curl(balancer.port, "one.test", "/", &[]), "opened");
}

#[test]
fn a_kept_client_is_checked_again_by_what_a_reload_trusts() {
    let keys = Keys::new();
    for name in ["server", "ca", "stranger"] {
        keys.own(name, "rsa");
    }
    keys.signed("friend", "ca");
    let trust = |name: &str| std::fs::copy(keys.path(name), keys.path("trusted.crt")).unwrap();
    trust("ca.crt");
    let balancer = Balancer::start(&format!(
        "server {{ listen 127.0.0.1:PORT ssl; {} ssl_verify_client on; ssl_client_certificate {}; \
           location / {{ return 200 $ssl_client_verify; }} }}",
        keys.shown("server"),
        keys.path("trusted.crt"),
    ));
    let mut kept = Command::new("openssl")
        .args(["s_client", "-quiet", "-connect", &format!("127.0.0.1:{}", balancer.port)])
        .args(["-cert", &keys.path("friend.crt"), "-key", &keys.path("friend.key")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let (mut input, mut output) = (kept.stdin.take().unwrap(), kept.stdout.take().unwrap());
    let mut ask = |wanted: &str| {
        input.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        let mut answer = Vec::new();
        let ends = |answer: &[u8]| answer.ends_with(b"SUCCESS") || answer.ends_with(b"</html>\r\n");
        let mut byte = [0];
        while !ends(&answer) && output.read(&mut byte).unwrap() == 1 {
            answer.push(byte[0]);
        }
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.contains(wanted), "{answer}");
    };
    let reload = || {
        let reloads = || balancer.errors().matches(" reconfigured").count();
        let before = reloads();
        balancer.signal_reload();
        common::wait_until("the reload is over", || reloads() > before);
    };
    ask("SUCCESS");
    reload();
    ask("SUCCESS");
    trust("stranger.crt");
    reload();
    ask("400 The SSL certificate error");
    let _ = kept.kill();
    let _ = kept.wait();
}
