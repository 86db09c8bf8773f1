//! Where requests are served. The state of a request's way is large and an idle connection has none: so it lies in a
//! place that is lent to a connection while it has requests, and made once for many.

use std::cell::Cell;
use std::convert::Infallible;
use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;

use crate::downstream::Downstream;
use crate::relay::After;
use crate::relay::scratch::Scratch;

/// One place. Dropped while it serves, it drops what it serves.
pub struct Burst {
    desk: Rc<Desk>,
    serving: Pin<Box<dyn Future<Output = Infallible>>>,
}

/// What goes in and comes out.
#[derive(Default)]
struct Desk {
    job: Cell<Option<(Box<Downstream>, Box<Scratch>)>>,
    done: Cell<Option<Served>>,
}

/// A connection after its requests, and what becomes of it. `None`: not even the first byte of one has come.
pub type Served = (Box<Downstream>, Box<Scratch>, Option<After>);

impl Burst {
    pub fn new() -> Burst {
        let desk = Rc::<Desk>::default();
        let serving = Box::pin(serve_each(desk.clone()));
        Burst { desk, serving }
    }

    /// Serves the connection's requests as long as the next one is already here.
    pub async fn serve(&mut self, down: Box<Downstream>, scratch: Box<Scratch>) -> Served {
        self.desk.job.set(Some((down, scratch)));
        poll_fn(|cx| {
            // It never ends: what it has done lies on the desk.
            let _ = self.serving.as_mut().poll(cx);
            self.desk.done.take().map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }
}

async fn serve_each(desk: Rc<Desk>) -> Infallible {
    loop {
        let job = poll_fn(|_| desk.job.take().map_or(Poll::Pending, Poll::Ready));
        let (mut down, mut scratch) = job.await;
        let after = down.serve_burst(&mut scratch).await;
        desk.done.set(Some((down, scratch, after)));
    }
}

impl fmt::Debug for Burst {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Burst").finish_non_exhaustive()
    }
}
