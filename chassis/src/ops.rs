//! The ops port: `/metrics`, `/health/live`, `/health/ready`. Never reached through the balancer.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};

use crate::metrics;
use crate::tasks::Tasks;

/// A scraper that has not sent its request's head by then is cut off.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// After a failed accept (no file left, usually): long enough not to spin, short enough to be back soon.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What the ops port tells.
#[derive(Clone)]
pub struct Ops {
    /// The metrics as OpenMetrics text.
    pub metrics: Arc<dyn Fn() -> String + Send + Sync>,
    /// Whether this service should get work.
    pub ready: Arc<dyn Fn() -> bool + Send + Sync>,
}

/// Serves the ops port until drain ends it. A listener that cannot be used is logged; the service lives on without it.
pub async fn serve(listener: std::net::TcpListener, ops: Ops, tasks: Tasks) {
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(cause) => {
            tracing::error!(%cause, "the ops port cannot be served: {cause}");
            return;
        }
    };
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = tasks.drain_started() => return,
        };
        match accepted {
            Ok((stream, _)) => tasks.spawn("ops connection", connection(stream, ops.clone(), tasks.clone())),
            Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
        }
    }
}

async fn connection(stream: TcpStream, ops: Ops, tasks: Tasks) {
    let service = service_fn(|request| {
        let ops = ops.clone();
        async move { Ok::<_, Infallible>(answer(&request, &ops)) }
    });
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).max_headers(64);
    let served = http.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(served);
    tokio::select! {
        // A scraper that breaks off is its own business.
        _ = &mut served => {}
        () = tasks.drain_started() => {
            served.as_mut().graceful_shutdown();
            let _ = served.await;
        }
    }
}

fn answer(request: &Request<Incoming>, ops: &Ops) -> Response<Full<Bytes>> {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        let mut refused = plain(StatusCode::METHOD_NOT_ALLOWED, "method not allowed\n");
        refused.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return refused;
    }
    match request.uri().path() {
        "/metrics" => {
            let mut response = Response::new(Full::from((ops.metrics)()));
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(metrics::CONTENT_TYPE));
            response
        }
        "/health/live" => plain(StatusCode::OK, "ok\n"),
        "/health/ready" | "/health" if (ops.ready)() => plain(StatusCode::OK, "ok\n"),
        "/health/ready" | "/health" => plain(StatusCode::SERVICE_UNAVAILABLE, "not ready\n"),
        _ => plain(StatusCode::NOT_FOUND, "here are /metrics, /health/live and /health/ready\n"),
    }
}

fn plain(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;
    use crate::listen::{self, Tcp};

    async fn get(addr: std::net::SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(addr).await.unwrap();
        stream
            .write_all(format!("{request} HTTP/1.1\r\nHost: ops\r\nConnection: close\r\n\r\n").as_bytes())
            .await
            .unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        text
    }

    #[tokio::test]
    async fn the_port_tells_metrics_and_health_and_ends_on_drain() {
        let listener = listen::tcp("127.0.0.1:0".parse().unwrap(), Tcp::default()).unwrap();
        let addr = listener.local_addr().unwrap();
        let ready = Arc::new(AtomicBool::new(false));
        let asked = Arc::clone(&ready);
        let ops = Ops {
            metrics: Arc::new(|| "up 1\n# EOF\n".to_owned()),
            ready: Arc::new(move || asked.load(Ordering::Relaxed)),
        };
        let tasks = Tasks::new();
        tasks.spawn("ops", serve(listener, ops, tasks.clone()));

        assert!(get(addr, "GET /metrics").await.ends_with("up 1\n# EOF\n"));
        assert!(get(addr, "GET /health/live").await.starts_with("HTTP/1.1 200"));
        assert!(get(addr, "GET /health/ready").await.starts_with("HTTP/1.1 503"));
        ready.store(true, Ordering::Relaxed);
        assert!(get(addr, "GET /health/ready").await.starts_with("HTTP/1.1 200"));
        assert!(get(addr, "POST /metrics").await.to_lowercase().contains("allow: get, head"));
        assert!(get(addr, "GET /nothing").await.starts_with("HTTP/1.1 404"));
        assert_eq!(tasks.drain(Duration::from_secs(5)).await, 0);
        assert!(TcpStream::connect(addr).await.is_err(), "the listener is closed after drain");
    }
}
