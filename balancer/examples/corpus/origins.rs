//! The servers behind the balancer: Debian's nginx, apache2 and lighttpd, a small hyper server in this process, and a
//! server that accepts nothing but the strict grammar. Each echoes the request's id and logs each request that it saw.

use std::convert::Infallible;
use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::{Request, Response};

/// How long a server may take to listen.
const START_MAX: Duration = Duration::from_secs(20);

pub const NAMES: &[&str] = &["nginx", "apache2", "lighttpd", "hyper", "strict"];

#[derive(Debug)]
pub struct Origin {
    pub port: u16,
    log: Log,
    child: Option<Child>,
}

#[derive(Debug)]
enum Log {
    File(PathBuf),
    Lines(Arc<Mutex<Vec<String>>>),
}

pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    listener.local_addr().expect("a bound socket has an address").port()
}

pub fn await_port(port: u16) {
    let start = Instant::now();
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(start.elapsed() < START_MAX, "nothing listens on {port}");
        std::thread::yield_now();
    }
}

impl Origin {
    pub fn start(name: &str, dir: &Path) -> Origin {
        let port = free_port();
        let log = dir.join(format!("{name}.log"));
        if name == "hyper" {
            let (port, lines) = hyper_origin();
            return Origin { port, log: Log::Lines(lines), child: None };
        }
        let mut command = match name {
            "nginx" => nginx(dir, port, &log),
            "apache2" => apache(dir, port, &log),
            "lighttpd" => lighttpd(dir, port, &log),
            "strict" => strict(dir, port, &log),
            _ => panic!("no origin is called {name}: one of {NAMES:?}"),
        };
        let child = command.stdout(Stdio::null()).stderr(Stdio::inherit()).spawn();
        let child = child.unwrap_or_else(|cause| panic!("{name} does not start: {cause}"));
        await_port(port);
        Origin { port, log: Log::File(log), child: Some(child) }
    }

    /// Ends the server and gives a line for each request that it saw.
    pub fn into_log(mut self) -> String {
        stop(&mut self.child);
        match &self.log {
            Log::Lines(lines) => lines.lock().expect("nobody panics with the lock").join("\n"),
            Log::File(path) => String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned(),
        }
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        stop(&mut self.child);
    }
}

/// Asks a server to end, so that it writes its log, and waits for it.
pub fn stop(child: &mut Option<Child>) {
    let Some(mut child) = child.take() else { return };
    let pid = nix::unistd::Pid::from_raw(child.id().cast_signed());
    let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
    let _ = child.wait();
}

fn write_conf(dir: &Path, name: &str, text: &str) -> PathBuf {
    let path = dir.join(name);
    fs::write(&path, text).expect("the folder is ours");
    path
}

fn nginx(dir: &Path, port: u16, log: &Path) -> Command {
    let (d, log) = (dir.display(), log.display());
    let text = format!(
        "daemon off; worker_processes 1; pid {d}/nginx.pid; error_log {d}/nginx.err; events {{ worker_connections 1024; }}\n\
         http {{ log_format seen '$request'; access_log {log} seen buffer=64k; keepalive_requests 1000000000;\n\
         keepalive_timeout 1h; client_body_temp_path {d}/body; proxy_temp_path {d}/p; fastcgi_temp_path {d}/f;\n\
         uwsgi_temp_path {d}/u; scgi_temp_path {d}/s; large_client_header_buffers 8 64k; client_max_body_size 0;\n\
         server {{ listen 127.0.0.1:{port}; location / {{ add_header X-Echo id=$arg_id always; return 200 ok; }} }} }}\n"
    );
    let mut command = Command::new("nginx");
    command.arg("-c").arg(write_conf(dir, "nginx.conf", &text)).arg("-e").arg(dir.join("nginx.err"));
    command
}

fn apache(dir: &Path, port: u16, log: &Path) -> Command {
    let (d, log) = (dir.display(), log.display());
    let modules = "/usr/lib/apache2/modules";
    let text = format!(
        "LoadModule mpm_event_module {modules}/mod_mpm_event.so\nLoadModule authz_core_module {modules}/mod_authz_core.so\n\
         LoadModule headers_module {modules}/mod_headers.so\nServerName origin\nListen 127.0.0.1:{port}\n\
         User www-data\nGroup www-data\nPidFile {d}/apache.pid\nErrorLog {d}/apache.err\nDocumentRoot {d}\n\
         KeepAlive On\nMaxKeepAliveRequests 0\nKeepAliveTimeout 3600\nLimitRequestFieldSize 65536\nLimitRequestLine 65536\n\
         LimitRequestFields 0\nLogFormat \"%r\" seen\nCustomLog {log} seen\nBufferedLogs On\nUseCanonicalName On\n\
         HttpProtocolOptions Strict LenientMethods Require1.0\nAllowEncodedSlashes NoDecode\n\
         Header always set X-Echo \"expr=%{{QUERY_STRING}}\"\n"
    );
    let mut command = Command::new("/usr/sbin/apache2");
    command.args(["-D", "FOREGROUND", "-f"]).arg(write_conf(dir, "apache.conf", &text));
    command
}

fn lighttpd(dir: &Path, port: u16, log: &Path) -> Command {
    let (d, log) = (dir.display(), log.display());
    let text = format!(
        "server.modules = (\"mod_redirect\", \"mod_accesslog\")\nserver.document-root = \"{d}\"\nserver.bind = \"127.0.0.1\"\n\
         server.port = {port}\nserver.errorlog = \"{d}/lighttpd.err\"\naccesslog.filename = \"{log}\"\naccesslog.format = \"%r\"\n\
         server.max-keep-alive-requests = 65535\nserver.max-keep-alive-idle = 3600\nserver.max-request-field-size = 65536\n\
         url.redirect = (\"\" => \"/seen${{qsa}}\")\n"
    );
    let mut command = Command::new("/usr/sbin/lighttpd");
    command.arg("-D").arg("-f").arg(write_conf(dir, "lighttpd.conf", &text));
    command
}

fn strict(dir: &Path, port: u16, log: &Path) -> Command {
    let script = write_conf(dir, "strict_origin.py", include_str!("strict_origin.py"));
    let mut command = Command::new("python3");
    command.arg(script).arg(port.to_string()).arg(log);
    command
}

fn hyper_origin() -> (u16, Arc<Mutex<Vec<String>>>) {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    let port = listener.local_addr().expect("a bound socket has an address").port();
    listener.set_nonblocking(true).expect("a socket can be made so");
    let seen = lines.clone();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let tasks = tokio::task::LocalSet::new();
        tasks.block_on(&runtime.expect("a runtime starts"), accept(listener, seen));
    });
    (port, lines)
}

async fn accept(listener: TcpListener, lines: Arc<Mutex<Vec<String>>>) {
    let listener = tokio::net::TcpListener::from_std(listener).expect("made for this");
    while let Ok((stream, _)) = listener.accept().await {
        let _ = stream.set_nodelay(true);
        let lines = lines.clone();
        let service = hyper::service::service_fn(move |request| answer(request, lines.clone()));
        let io = hyper_util::rt::TokioIo::new(stream);
        // A connection that breaks is the balancer's to explain: the log of requests tells.
        tokio::task::spawn_local(hyper::server::conn::http1::Builder::new().serve_connection(io, service));
    }
}

async fn answer(
    request: Request<Incoming>,
    lines: Arc<Mutex<Vec<String>>>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let line = format!("{} {}", request.method(), request.uri());
    let query = request.uri().query().unwrap_or_default().to_owned();
    lines.lock().expect("nobody panics with the lock").push(line);
    let _ = request.into_body().collect().await;
    let response = Response::builder().header("X-Echo", query);
    Ok(response.body(Full::from("ok")).unwrap_or_default())
}
