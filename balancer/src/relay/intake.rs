//! The client's body as it comes: which part of it is kept before an upstream is asked, in memory or in a file, and what
//! is read away because nobody wants it. How it goes up: upload.rs.

use std::io;

use super::Exchange;
use super::spool::Spool;
use super::upload::{DISCARD_LEN_MAX, Sends};
use crate::buffer::BUFFER_LEN;
use crate::conf::proxy::Version as ProxyVersion;
use crate::error::Error;
use crate::logic::h1::Framing;

impl Exchange<'_> {
    /// As `read_ahead`, for what has no body: true when there was nothing else to do.
    pub fn is_bodiless(&mut self) -> bool {
        let proxy = &self.location.proxy;
        let request = &self.scratch.story.request;
        let is_bodiless =
            request.framing == Framing::None && !request.expects_continue && proxy.body.is_none();
        if is_bodiless {
            let is_client = !self.scratch.story.as_get && proxy.pass_request_body;
            self.scratch.upload.sends = if is_client { Sends::Clients } else { Sends::Nothing };
        }
        is_bodiless
    }

    /// Before the first server of a location is asked: which body it gets. Reads the client's as far as it is kept,
    /// answering `Expect`: a slow upload of ordinary size so holds no upstream, and a retry can send it again.
    pub async fn read_ahead(&mut self) -> Result<(), Error> {
        let proxy = &self.location.proxy;
        if let Some(template) = &proxy.body {
            if template.has_request_body() {
                self.read_clients(true).await?;
            }
            let body = template.to_bytes(&self.facts());
            self.scratch.upload.sends = Sends::Ours(body);
            return Ok(());
        }
        if self.scratch.story.as_get || !proxy.pass_request_body {
            self.scratch.upload.sends = Sends::Nothing;
            return Ok(());
        }
        if self.scratch.upload.is_refused() {
            // A method that may have a body is told, as by nginx, that there is none.
            self.scratch.upload.sends = Sends::Ours(Vec::new());
            return Ok(());
        }
        self.scratch.upload.sends = Sends::Clients;
        // HTTP/1.0 knows no chunks: it has to be told the length.
        let needs_len =
            proxy.version == ProxyVersion::Http10 && self.scratch.upload.framing == Framing::Chunked;
        let is_file_wanted = proxy.request_buffering && self.location.body.spool.is_wanted();
        if needs_len || is_file_wanted || self.scratch.upload.spool.is_some() {
            return self.read_into_file().await;
        }
        self.read_clients(proxy.request_buffering).await
    }

    /// True when there is nothing to be read. What an earlier location's upstream has taken cannot be sent once more.
    fn has_clients(&self) -> Result<bool, Error> {
        let upload = &self.scratch.upload;
        match upload.is_holed() {
            true => Err(Error::BodyGone),
            false => Ok(self.scratch.story.request.framing == Framing::None || upload.is_all_kept()),
        }
    }

    /// The client's body into memory, as far as that may hold it: what has come, or, where it `waits`, what comes.
    pub(super) async fn read_clients(&mut self, waits: bool) -> Result<(), Error> {
        if self.scratch.upload.is_refused() {
            return Ok(());
        }
        if self.has_clients()? {
            return self.invite_body().await;
        }
        let kept_max = if waits { self.location.body.buffer_len } else { BUFFER_LEN };
        if self.scratch.keep_body(kept_max)? {
            self.scratch.upload.on_all_kept();
            return self.invite_body().await;
        }
        self.invite_body().await?;
        while waits && self.scratch.upload.kept.len() < kept_max {
            self.read_more_body().await?;
            if self.scratch.keep_body(kept_max)? {
                self.scratch.upload.on_all_kept();
                break;
            }
        }
        Ok(())
    }

    /// The whole body: in memory where it is short and no file is demanded, else in a file.
    pub(super) async fn read_into_file(&mut self) -> Result<(), Error> {
        if self.has_clients()? {
            return self.invite_body().await;
        }
        let terms = &self.location.body;
        // `client_body_buffer_size 0`: what is held on its way to the file is one read's.
        let kept_max = terms.buffer_len.max(1);
        let mut is_whole = self.scratch.keep_body(kept_max)?;
        self.invite_body().await?;
        loop {
            let upload = &self.scratch.upload;
            let is_due = upload.kept.len() >= kept_max;
            if is_due || is_whole && (upload.spool.is_some() || terms.spool.is_demanded()) {
                let mut written = self.write_kept();
                if let Err(error) = &written
                    && self.worker.makes_room_after(error).await
                {
                    written = self.write_kept();
                }
                written.map_err(Error::Spool)?;
            }
            if is_whole {
                self.scratch.upload.on_all_kept();
                return Ok(());
            }
            if !is_due {
                self.read_more_body().await?;
            }
            is_whole = self.scratch.keep_body(kept_max)?;
        }
    }

    fn write_kept(&mut self) -> io::Result<()> {
        let terms = &self.location.body.spool;
        let number = self.worker.random();
        let upload = &mut self.scratch.upload;
        if upload.spool.is_none() {
            upload.spool = Some(Spool::create(&terms.folder, number, terms.is_kept())?);
        }
        if let Some(spool) = &mut upload.spool {
            spool.append(&upload.kept)?;
        }
        upload.kept.clear();
        Ok(())
    }

    /// `100 Continue`, when the client waits for it before it sends its body.
    async fn invite_body(&mut self) -> Result<(), Error> {
        let Exchange { down, scratch, .. } = self;
        if !std::mem::take(&mut scratch.story.request.expects_continue)
            || scratch.upload.is_read() && scratch.upload.len > 0
        {
            return Ok(());
        }
        down.deadline.set(tokio::time::Instant::now(), self.location.send_timeout);
        down.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await
    }

    /// Before an answer of our own to a request whose body nobody reads: what has come of it must at least be one.
    pub fn is_body_sound(&mut self) -> bool {
        if !self.scratch.upload.has_begun() {
            self.scratch.upload.begin(self.scratch.story.request.framing, 0);
        }
        if self.scratch.upload.is_refused() || !self.scratch.upload.is_untouched() {
            return true;
        }
        // What nobody wants may be of any length.
        self.scratch.upload.limit(0);
        let decoded = self.scratch.keep_body(usize::MAX);
        self.scratch.upload.kept.clear();
        !matches!(decoded, Err(Error::ClientBody(_)))
    }

    /// Reads and forgets the rest of a body that nobody wants, so that the next request can be found. False when it
    /// is not worth while or does not end in time.
    pub async fn discard_body(&mut self) -> bool {
        if self.scratch.upload.is_refused() {
            return false;
        }
        self.scratch.upload.limit(DISCARD_LEN_MAX);
        let awaited = self.scratch.story.request.expects_continue && self.scratch.story.request_body_len == 0;
        let end = tokio::time::Instant::now() + self.location.lingering.time;
        if self.scratch.upload.is_read() {
            return true;
        }
        loop {
            let before = self.scratch.upload.len;
            self.scratch.upload.kept.clear();
            match self.scratch.keep_body(BUFFER_LEN) {
                Ok(true) => {
                    // The tail of a body is not `$request_body`.
                    self.scratch.upload.kept.clear();
                    return true;
                }
                Ok(false) if self.scratch.upload.len > before => continue,
                Ok(false) if awaited => return false,
                Ok(false) => {}
                Err(_) => return false,
            }
            if self.read_rest(end).await.is_err() {
                return false;
            }
        }
    }

    /// As `read_more_body`, with the patience of `lingering_timeout` and `lingering_time`.
    async fn read_rest(&mut self, end: tokio::time::Instant) -> Result<(), Error> {
        let Exchange { down, scratch, location, .. } = self;
        down.deadline.set_at(end.min(tokio::time::Instant::now() + location.lingering.timeout));
        let len_max = BUFFER_LEN + scratch.story.request.len;
        down.read_into(&mut scratch.inbound, len_max).await
    }
}
