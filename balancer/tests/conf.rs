//! What configurations mean: inheritance, defaults, names, routes. Through the public face of `conf`.

#![allow(clippy::unwrap_used, reason = "a world that cannot be built fails its test loudly")]

mod conf_world;

use std::sync::Arc;
use std::time::Duration;

use balancer::conf::Settings;
use balancer::conf::files::Base;
use balancer::conf::listen::SocketKeepalive;
use balancer::conf::location::{Action, Location, ReturnBody, Route, Server};
use balancer::conf::proxy::{Proxy, Target, UriForm};
use balancer::conf::rewrite::Step;
use balancer::conf::settings::LogTarget;
use balancer::conf::template::Template;
use balancer::conf::upstream::{Address, Method};
use balancer::conf::variables::{Facts, Variable};
use balancer::logic::min_rate::MinRate;
use conf_world::{http, load, settings};

/// A request with a few headers, everything else absent.
struct Request<'a>(&'a [(&'a str, &'a str)]);

impl Facts for Request<'_> {
    fn value(&self, variable: &Variable, out: &mut Vec<u8>) -> bool {
        let name = match variable {
            Variable::Http(name) => format!("http_{}", String::from_utf8_lossy(&name.lower)),
            Variable::RequestId => "request_id".into(),
            Variable::Host => "host".into(),
            _ => return false,
        };
        let found = self.0.iter().find(|(known, _)| *known == name);
        out.extend_from_slice(found.map_or("", |(_, value)| value).as_bytes());
        found.is_some()
    }
}

fn render(template: &Template, request: &Request<'_>) -> String {
    String::from_utf8(template.to_bytes(request)).unwrap()
}

fn only_server(settings: &Settings) -> &Arc<Server> {
    &settings.http.listens[0].names.default
}

fn route<'a>(server: &'a Server, path: &str) -> &'a Location {
    match server.locations.route(path.as_bytes()) {
        Route::Location(location, _) => location,
        other => panic!("{path}: {other:?}"),
    }
}

fn header(proxy: &Proxy, name: &str) -> Option<Template> {
    let found = proxy.set_headers.iter().find(|header| header.name.eq_ignore_ascii_case(name.as_bytes()));
    found.map(|header| header.value.clone())
}

fn text_of(steps: &[Step]) -> String {
    let [Step::Return(answer)] = steps else { panic!("{steps:?}") };
    let ReturnBody::Text(text) = &answer.body else { panic!("{answer:?}") };
    String::from_utf8(text.constant().unwrap().to_vec()).unwrap()
}

#[test]
fn the_stack_s_own_configuration_is_understood() {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/nginx.conf")).unwrap();
    let settings = settings(&text);
    let group = |name: &str| settings.http.upstream_named(name).unwrap();
    for name in ["django_backend", "django_streaming", "django_websocket"] {
        assert_eq!(group(name).peers.len(), 10, "{name}");
        assert_eq!(group(name).keepalive.idle_max, 32);
    }
    assert!(matches!(group("django_backend").method, Method::RoundRobin));
    assert!(matches!(group("django_streaming").method, Method::LeastConn));
    let sockets = group("django_websocket");
    assert!(matches!(sockets.method, Method::IpHash { ipv6_bits: 128 }));
    let peer = &sockets.peers[9];
    let terms = &peer.terms;
    assert_eq!((&*terms.server, terms.max_conns, terms.max_fails), ("web-10:8000", 1500, 2));
    // Not the documents' 60: a restart of all replicas in turn would leave none to connect to.
    assert_eq!(terms.fail_timeout, Duration::from_secs(1));
    assert_eq!(peer.address, Address::Tcp(([10, 0, 0, 10], 8000).into()));
    assert_eq!(sockets.keepalive.timeout, Duration::from_secs(300));
    let server = only_server(&settings);
    let target = |path: &str| {
        let Action::Proxy(pass) = &route(server, path).action else { panic!("{path}") };
        let Target::Group(id) = pass.target else { panic!("{path}") };
        settings.http.upstream(id).name.to_string()
    };
    assert_eq!(target("/"), "django_backend");
    assert_eq!(target("/api/users"), "django_backend");
    assert_eq!(target("/messages/stream/"), "django_streaming");
    assert_eq!(target("/api/messages/stream/x"), "django_streaming");
    assert_eq!(target("/ws/chat/session/1/"), "django_websocket");
    let sockets = route(server, "/ws/x");
    assert!(!sockets.proxy.buffering);
    let connection = header(&sockets.proxy, "Connection").unwrap();
    assert_eq!(render(&connection, &Request(&[("http_upgrade", "websocket")])), "upgrade");
    assert_eq!(render(&connection, &Request(&[])), "");
    let id = header(&route(server, "/api/").proxy, "X-Request-Id").unwrap();
    const MADE: (&str, &str) = ("request_id", "0123");
    assert_eq!(render(&id, &Request(&[("http_x-request-id", "abcdefgh-1"), MADE])), "abcdefgh-1");
    assert_eq!(render(&id, &Request(&[("http_x-request-id", "a\"b"), MADE])), "0123");
    let log = &route(server, "/ws/").logs[0];
    let variables = format!("{:?}", log.format.line);
    assert!(
        variables.contains("UpstreamHttp")
            && !variables.contains("RequestUri")
            && !variables.contains("Args")
    );
}

#[test]
fn clients_have_a_least_rate_but_where_bodies_are_streamed() {
    let settings = http(
        "server { client_header_min_rate 2k;\n\
         location / { proxy_pass http://10.0.0.1; } location /off { client_body_min_rate off; }\n\
         location /own { client_body_min_rate 1k after=5s; } location /rate { client_body_min_rate 1m; }\n\
         location /streamed/ { proxy_request_buffering off; proxy_pass http://10.0.0.1;\n\
           location /streamed/own { client_body_min_rate 7; } }\n\
         location /grpc { grpc_pass grpc://10.0.0.1:1; } }",
    );
    let rate = |per_second, after| Some(MinRate { per_second, after: Duration::from_secs(after) });
    let server = only_server(&settings);
    assert_eq!(server.head.min_rate, rate(2048, 20));
    for (path, expected) in [
        ("/", rate(500, 60)),
        ("/off", None),
        ("/own", rate(1024, 5)),
        ("/rate", rate(1 << 20, 60)),
        ("/streamed/", None),
        ("/streamed/own", rate(7, 60)),
        ("/grpc", None),
    ] {
        assert_eq!(route(server, path).body.min_rate, expected, "{path}");
    }
    assert_eq!(only_server(&http("client_header_min_rate 0; server { }")).head.min_rate, None);
    // Whoever keeps to the rate has the whole of `client_header_timeout`, and nobody has more.
    let settings = http("server { }");
    let patience = |len| only_server(&settings).head.patience(len).as_secs();
    let patience = [0, 500, 5_000, 50_000].map(patience);
    assert_eq!(patience, [20, 21, 30, 60]);
}

#[test]
fn defaults_are_those_of_nginx() {
    let settings = http("server { location / { proxy_pass http://10.0.0.1; } }");
    let location = route(only_server(&settings), "/");
    assert_eq!(location.proxy.connect_timeout, Duration::from_secs(60));
    assert_eq!(location.body.len_max, 1 << 20);
    assert_eq!(location.keepalive.timeout, Duration::from_secs(75));
    assert_eq!(location.keepalive.requests_max, 1000);
    assert!(location.proxy.next.error && location.proxy.next.timeout && !location.proxy.next.non_idempotent);
    let host = header(&location.proxy, "Host").unwrap();
    assert!(matches!(host.parts(), [balancer::conf::template::Part::Variable(Variable::ProxyHost)]));
    assert!(location.proxy.replaced.contains(b"connection") && location.proxy.replaced.contains(b"Upgrade"));
    assert!(location.proxy.hidden.contains(b"Server") && !location.proxy.hidden.contains(b"Content-Type"));
    let LogTarget::File(log) = &location.logs[0].target else { panic!("its name has no variables") };
    assert_eq!(log.to_string_lossy(), "/prefix/logs/access.log");
    assert_eq!(&*location.logs[0].format.name, "combined");
    let group = &settings.http.upstreams[0];
    // A group that only `proxy_pass` makes keeps no connections.
    assert_eq!((group.keepalive.idle_max, group.peers[0].terms.max_fails), (0, 1));
    let head = &only_server(&settings).head;
    assert_eq!((head.large_buffers, head.large_buffer_len, head.headers_max), (4, 8192, 1000));
    assert_eq!(settings.main.worker_processes, 1);
    assert!(settings.main.daemon);
}

#[test]
fn what_a_block_gives_hides_what_is_outside_as_a_whole() {
    let settings = http(
        "proxy_set_header A outer; proxy_set_header B outer; proxy_read_timeout 5s; add_header X outer;
         server { listen 80;
           proxy_read_timeout 7s;
           location /same/ { proxy_pass http://10.0.0.1; }
           location /other/ { proxy_pass http://10.0.0.1; proxy_set_header C inner; add_header Y inner always;
             location /other/nested/ { proxy_read_timeout 9s; } } }",
    );
    let server = only_server(&settings);
    let same = route(server, "/same/x");
    assert!(header(&same.proxy, "A").is_some() && header(&same.proxy, "B").is_some());
    assert_eq!(same.proxy.read_timeout, Duration::from_secs(7));
    let other = route(server, "/other/x");
    assert!(header(&other.proxy, "A").is_none() && header(&other.proxy, "C").is_some());
    assert!(other.headers.len() == 1 && other.headers[0].always);
    let nested = route(server, "/other/nested/x");
    assert_eq!(nested.proxy.read_timeout, Duration::from_secs(9));
    assert!(header(&nested.proxy, "C").is_some());
    assert!(matches!(nested.action, Action::Nothing), "proxy_pass is not inherited");
}

#[test]
fn locations_are_found_in_nginx_s_order() {
    let settings = http(
        r#"server { listen 80;
          location / { return 200 root; }
          location = /exact { return 200 exact; }
          location /images/ { return 200 images; }
          location ^~ /final/ { return 200 final; }
          location ~* \.(gif|jpg)$ { return 200 pattern; }
          location ~ ^/user/(?<id>[0-9]+)$ { return 200 user; }
          location /outer/ { return 200 outer; location /outer/in/ { return 200 inner; }
            location ~ \.gif$ { return 200 nested; } }
        }"#,
    );
    let server = only_server(&settings);
    let cases = [
        ("/", "root"),
        ("/exact", "exact"),
        ("/exactly", "root"),
        ("/images/a.png", "images"),
        ("/images/a.GIF", "pattern"),
        ("/final/a.gif", "final"),
        ("/user/12", "user"),
        ("/user/x", "root"),
        ("/outer/x", "outer"),
        ("/outer/in/x", "inner"),
        ("/outer/a.gif", "nested"),
        ("/outer/in/a.jpg", "pattern"),
    ];
    for (path, expected) in cases {
        assert_eq!(text_of(&route(server, path).steps), expected, "{path}");
    }
    let Route::Location(_, Some(captures)) = server.locations.route(b"/user/12") else { panic!() };
    assert_eq!(captures.group(1), Some(&b"12"[..]));
}

#[test]
fn a_proxied_prefix_without_its_slash_is_redirected() {
    let settings = http(
        "server { listen 80; location / { return 200 root; } location /a/ { proxy_pass http://10.0.0.1; }
           location /b/ { return 200 b; } location /c/ { proxy_pass http://10.0.0.1; } location = /c { return 200 c; } }",
    );
    let server = only_server(&settings);
    assert!(matches!(server.locations.route(b"/a"), Route::AddSlash(_)));
    assert_eq!(text_of(&route(server, "/b").steps), "root");
    assert_eq!(text_of(&route(server, "/c").steps), "c");
}

#[test]
fn host_names_find_their_server() {
    let settings = http(
        r#"server { listen 80; return 200 first; }
           server { listen 80; server_name example.com www.example.com; return 200 exact; }
           server { listen 80; server_name .example.org *.example.com; return 200 suffix; }
           server { listen 80; server_name www.example.*; return 200 prefix; }
           server { listen 80; server_name ~^(?<sub>.+)\.pattern$; return 200 pattern; }
           server { listen 80 default_server; server_name _; return 200 default; }"#,
    );
    let names = &settings.http.listens[0].names;
    let found = |host: &str| text_of(&names.find(host.as_bytes()).steps);
    for (host, expected) in [
        ("example.com", "exact"),
        ("a.example.com", "suffix"),
        ("example.org", "suffix"),
        ("x.example.org", "suffix"),
        ("www.example.net", "prefix"),
        ("a.pattern", "pattern"),
        ("other", "default"),
    ] {
        assert_eq!(found(host), expected, "{host}");
    }
    let (_, captures) = names.find_with_groups(b"a.pattern");
    assert_eq!(captures.unwrap().group(1), Some(&b"a"[..]));
    assert_eq!(&*names.find(b"example.org").name, "example.org");
}

#[test]
fn addresses_of_one_port_share_the_wildcard_s_socket() {
    let settings = http(
        "server { listen 8080 backlog=99; return 200 any; } server { listen 127.0.0.1:8080; return 200 local; }
         server { listen 127.0.0.1:9090; return 200 other; } server { listen [::]:8080; return 200 six; }
         server { listen unix:/run/x.sock; return 200 unix; }",
    );
    let listens = &settings.http.listens;
    let shown: Vec<String> = listens.iter().map(|listen| listen.address.to_string()).collect();
    assert_eq!(shown, ["0.0.0.0:8080", "127.0.0.1:9090", "[::]:8080", "unix:/run/x.sock"]);
    assert_eq!(listens[0].options.backlog, 99);
    let answer = |ip: [u8; 4]| {
        let names = listens[0].names_for(Some(ip.into()));
        text_of(&names.default.steps)
    };
    assert_eq!(answer([127, 0, 0, 1]), "local");
    assert_eq!(answer([10, 0, 0, 1]), "any");
    assert!(listens[0].needs_local() && !listens[1].needs_local());
}

#[test]
fn listen_says_what_holds_for_its_socket() {
    let options =
        |text: &str| http(&format!("server {{ listen 80 {text}; }}")).http.listens[0].options.clone();
    let seconds = |seconds| Some(Duration::from_secs(seconds));
    let on = |idle, interval, count| Some(SocketKeepalive::On { idle, interval, count });
    for (text, terms) in [
        ("", None),
        ("so_keepalive=on", on(None, None, None)),
        ("so_keepalive=off", Some(SocketKeepalive::Off)),
        ("so_keepalive=30m::10", on(seconds(1800), None, Some(10))),
        ("so_keepalive=:5:", on(None, seconds(5), None)),
        ("so_keepalive=1m", on(seconds(60), None, None)),
    ] {
        assert_eq!(options(text).so_keepalive, terms, "{text}");
    }
    let told = options("deferred fastopen=256");
    assert_eq!((told.deferred, told.fastopen), (true, Some(256)));
}

/// Found by the fuzz target `balancer_conf`: each address was looked for among all others, which took hours.
#[test]
fn a_range_of_all_ports_is_read_at_once() {
    let settings = http("server { listen *:8080; listen 127.0.0.1:1-65535; }");
    let listens = &settings.http.listens;
    assert_eq!(listens.len(), 65_535, "one of them shares the wildcard's");
    assert!(listens[0].needs_local() && !listens[1].needs_local());
}

#[test]
fn proxy_pass_says_where_and_what() {
    let settings = http(
        "upstream group { server web-1:8000; server twice weight=3 backup; }
         server { listen 80;
           location /a/ { proxy_pass http://group; }
           location /b/ { proxy_pass http://group/base/; }
           location /c/ { proxy_pass http://10.0.0.1:8080/x?y; }
           location /d/ { proxy_pass http://unix:/run/app.sock:/z; }
           location /e/ { proxy_pass http://$host$request_uri; } }",
    );
    let server = only_server(&settings);
    let pass = |path: &str| match &route(server, path).action {
        Action::Proxy(pass) => pass,
        other => panic!("{other:?}"),
    };
    assert!(matches!(pass("/a/").uri, UriForm::AsReceived));
    assert!(matches!(&pass("/b/").uri, UriForm::Replace { with, prefix_len: 3 } if **with == *b"/base/"));
    assert_eq!(&*pass("/c/").host, b"10.0.0.1:8080");
    assert_eq!((&*pass("/a/").host, &*pass("/a/").port), (&b"group"[..], &b"80"[..]));
    assert_eq!(&*pass("/d/").host, b"localhost");
    assert!(matches!(&pass("/d/").uri, UriForm::Replace { with, .. } if **with == *b"/z"));
    assert!(matches!(pass("/e/").target, Target::Dynamic { .. }));
    let group = settings.http.upstream_named("group").unwrap();
    let backups: Vec<bool> =
        group.peers.iter().map(|peer| peer.terms.tier == balancer::conf::upstream::Tier::Backup).collect();
    assert_eq!(backups, [false, true, true], "each address of a name is a server, backups come last");
    assert_eq!(&*group.peers[2].name, "10.0.1.2:80");
    let redirect = pass("/b/").default_redirect.clone().unwrap();
    assert_eq!((&*redirect.0, &*redirect.1), (&b"http://group/base/"[..], &b"/b/"[..]));
}

#[test]
fn maps_look_up_exact_names_wildcards_and_patterns() {
    let settings = http(
        r#"map $host $kind { hostnames; default other; example.com exact; *.example.com under; .example.org both;
             mail.* mail; ~^(?<first>\w+)\.re$ "re-$first-$1"; "" none; }
           map $kind $again { exact yes; default no; }
           server { listen 80; location / { return 200 "$kind $again"; } }"#,
    );
    let [Step::Return(answer)] = &route(only_server(&settings), "/").steps[..] else { panic!() };
    let ReturnBody::Text(text) = &answer.body else { panic!() };
    let case = |host: &str| render(text, &Request(&[("host", host)]));
    assert_eq!(case("EXAMPLE.com"), "exact yes");
    assert_eq!(case("a.example.com"), "under no");
    assert_eq!(case("example.org"), "both no");
    assert_eq!(case("b.example.org"), "both no");
    assert_eq!(case("mail.net"), "mail no");
    assert_eq!(case("abc.re"), "re-abc-abc no");
    assert_eq!(case(""), "none no");
    assert_eq!(case("x"), "other no");
}

#[test]
fn includes_are_put_in_their_place_in_order() {
    let settings = load(&[
        ("/etc/nginx.conf", "events {} http { include conf.d/*.conf; include one.inc; }"),
        ("/etc/conf.d/b.conf", "server { listen 82; }"),
        ("/etc/conf.d/a.conf", "server { listen 81; include ../etc/inner.inc; }"),
        ("/etc/../etc/inner.inc", "return 204;"),
        ("/etc/one.inc", "server { listen 83; }"),
    ]);
    // `root.join("../etc/inner.inc")` keeps the dots: the file system resolves them, this world does not.
    let settings = settings.unwrap();
    let ports: Vec<String> = settings.http.listens.iter().map(|listen| listen.address.to_string()).collect();
    assert_eq!(ports, ["0.0.0.0:81", "0.0.0.0:82", "0.0.0.0:83"]);
}

#[test]
fn directives_without_effect_are_named_with_their_reason() {
    let text = "events { multi_accept on; }\nhttp { sendfile on;\nserver { listen 80; gzip_buffers 4 4k; } }";
    let tree = conf_world::tree(text);
    let said = tree.moot();
    assert_eq!(said.len(), 3, "{said:?}");
    assert!(said[1].starts_with("\"sendfile\" in /etc/nginx.conf:2: no effect"), "{said:?}");
}

#[test]
fn grpc_pass_does_not_take_proxy_protocol_over() {
    let settings = http(
        "proxy_protocol v2; server { listen 80; location / { proxy_pass http://127.0.0.1:1; }
         location /g/ { grpc_pass 127.0.0.1:2; } }",
    );
    let told = |path: &str| route(only_server(&settings), path).proxy.protocol.is_some();
    assert_eq!((told("/"), told("/g/")), (true, false));
}

#[test]
fn files_have_a_root_an_index_and_types() {
    let settings = http(
        "types { text/css css; application/x-a a b; } root /srv; index a.html b.html;
         server { listen 80; location / { } location /x/ { alias /y/; location ~ z { } } location ~ w { alias /v; } }",
    );
    let server = only_server(&settings);
    let files = &route(server, "/").files;
    assert_eq!(files.types.of(b"/a.d/c.CSS"), Some(&b"text/css"[..]));
    assert_eq!(files.types.of(b"/a.css/c"), None);
    assert_eq!(files.index.len(), 2);
    let alias_len = |path: &str| match &route(server, path).files.base {
        Base::Alias { prefix_len, .. } => Some(*prefix_len),
        Base::Root(_) => None,
    };
    assert_eq!(alias_len("/x/y"), Some(Some(3)));
    assert_eq!(alias_len("/x/z"), Some(Some(3)), "an inner location keeps what the outer one replaces");
    assert_eq!(alias_len("/w"), Some(None));
    assert_eq!(alias_len("/"), None);
}
