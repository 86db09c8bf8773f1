//! A POST whose body is long under way: a request that is in flight at whatever moment it is wanted.

use crate::http::{Dialer, cause};
use crate::logic::fault::{Fault, RESPONSE};
use bytes::Bytes;
use futures_util::stream;
use http_body_util::StreamBody;
use hyper::body::Frame;
use hyper::client::conn::http1;
use hyper::{Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::rc::Rc;
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// Sends `body` byte by byte over `lasts` and gives the answer's status.
pub async fn post(
    dialer: Rc<Dialer>,
    path: &'static str,
    token: Rc<str>,
    body: serde_json::Value,
    lasts: Duration,
) -> Result<StatusCode, Fault> {
    let body = Bytes::from(body.to_string());
    let request = Request::post(path)
        .header(header::HOST, &*dialer.authority)
        .header(header::AUTHORIZATION, format!("Bearer {token}"))
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::CONTENT_LENGTH, body.len());
    let pause = lasts / u32::try_from(body.len()).unwrap_or(u32::MAX).max(1);
    let bytes = stream::unfold(body, move |mut left| async move {
        sleep(pause).await;
        (!left.is_empty()).then(|| (Ok::<_, Infallible>(Frame::data(left.split_to(1))), left))
    });
    let request = request
        .body(StreamBody::new(Box::pin(bytes)))
        .map_err(|error| Fault::shape("a request that cannot be made", error.to_string()))?;
    let stream = TokioIo::new(dialer.connect().await?);
    let (mut conn, driver) = http1::handshake(stream).await.map_err(|error| Fault::Connect(cause(&error)))?;
    tokio::task::spawn_local(async move {
        // The request is told by its own call.
        let _ = driver.await;
    });
    let limit = lasts + dialer.limit;
    match timeout(limit, conn.send_request(request)).await {
        Ok(Ok(answer)) => Ok(answer.status()),
        Ok(Err(error)) => Err(Fault::NoAnswer(cause(&error))),
        Err(_) => Err(Fault::Late { what: RESPONSE, limit }),
    }
}
