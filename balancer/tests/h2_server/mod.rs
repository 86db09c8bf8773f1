//! An origin of HTTP/2 by the h2 crate.

#![allow(clippy::unwrap_used, reason = "a world that cannot be built fails its test loudly")]

use std::net::TcpListener;
use std::sync::mpsc;

use bytes::Bytes;
use http::Request;

/// A server of HTTP/2 that hands each request to `answer`, which may tell of it.
pub fn h2_server<T, F, A>(answer: A) -> (u16, mpsc::Receiver<T>)
where
    T: Send + 'static,
    F: Future<Output = ()> + Send + 'static,
    A: Fn(Request<h2::RecvStream>, h2::server::SendResponse<Bytes>, mpsc::Sender<T>) -> F
        + Copy
        + Send
        + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    listener.set_nonblocking(true).unwrap();
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            while let Ok((wire, _)) = listener.accept().await {
                let tell = tell.clone();
                tokio::spawn(async move {
                    let mut connection = h2::server::handshake(wire).await.unwrap();
                    while let Some(Ok((request, respond))) = connection.accept().await {
                        tokio::spawn(answer(request, respond, tell.clone()));
                    }
                });
            }
        });
    });
    (port, told)
}
