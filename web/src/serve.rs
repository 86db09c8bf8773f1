//! The HTTP listener: accepts, serves each connection in a task, and closes without cutting anybody off.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use axum::extract::Request;
use chassis::tasks::Tasks;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use crate::router::without_trailing_slash;

/// A client that has not sent its request's head by then is cut off; also the idle limit of a kept connection. Longer
/// than any `keepalive_timeout` of the balancer (300 s), so that it is the balancer who closes and never sends a
/// request into a connection that is just being closed. Slow heads are the balancer's to cut.
const HEAD_TIMEOUT: Duration = Duration::from_secs(330);
/// hyper's default would let one connection hold 400 KB before the head is even complete.
const HEAD_LEN_MAX: usize = 32 * 1024;
const HEADERS_MAX: usize = 100;
/// After a failed accept (no file left, usually): long enough not to spin, short enough to be back soon.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// hyper closes a connection without a request at once, and with it resets one that is on its way: a POST that a balancer
/// then cannot send again. So it stays open for a moment; its next answer ends it.
const LAST_REQUEST_WAIT: Duration = Duration::from_secs(1);

/// Serves `router` until `stop`; then takes those who already knocked, and lets every connection finish its request.
pub async fn serve(listener: std::net::TcpListener, router: Router, tasks: Tasks, stop: CancellationToken) {
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(cause) => {
            tracing::error!(%cause, "the listener cannot be used: {cause}");
            return;
        }
    };
    let accept = |stream: TcpStream, peer: SocketAddr| {
        let connection = connection(stream, peer, router.clone(), stop.clone());
        tasks.spawn("http connection", connection);
    };
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => break,
        };
        match accepted {
            Ok((stream, peer)) => accept(stream, peer),
            Err(cause) => {
                tracing::warn!(%cause, "cannot accept a connection: {cause}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    // Closing a listener resets the connections in its queue: take them first.
    let Ok(listener) = listener.into_std() else { return };
    while let Ok((stream, peer)) = listener.accept() {
        if stream.set_nonblocking(true).is_ok()
            && let Ok(stream) = TcpStream::from_std(stream)
        {
            accept(stream, peer);
        }
    }
}

async fn connection(stream: TcpStream, peer: SocketAddr, router: Router, stop: CancellationToken) {
    // Small frames and stream tokens must not wait for an acknowledgement of the one before.
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let router = router.clone();
        async move {
            let mut request: Request = request.map(axum::body::Body::new);
            request.extensions_mut().insert(ConnectInfo(peer));
            Ok::<_, Infallible>(
                router.oneshot(without_trailing_slash(request)).await.unwrap_or_else(|never| match never {}),
            )
        }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_LEN_MAX)
        .max_headers(HEADERS_MAX);
    let served = http.serve_connection(TokioIo::new(stream), service).with_upgrades();
    tokio::pin!(served);
    tokio::select! {
        ended = &mut served => log_end(ended),
        () = stop.cancelled() => {
            tokio::select! {
                ended = &mut served => return log_end(ended),
                () = tokio::time::sleep(LAST_REQUEST_WAIT) => {}
            }
            served.as_mut().graceful_shutdown();
            log_end(served.await);
        }
    }
}

/// Clients that go away in the middle are no news.
fn log_end(ended: Result<(), hyper::Error>) {
    if let Err(cause) = ended {
        tracing::debug!(%cause, "a connection ended early: {cause}");
    }
}
