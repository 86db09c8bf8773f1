//! How a file is sent: whole, in part, in several parts, or not at all. Reads block the worker, as nginx's do: the page
//! cache answers them.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;
use std::time::SystemTime;

use super::answer::Answer;
use super::inside::{Inside, PAGE_LEN_MAX};
use super::sink::Coding;
use super::{After, Exchange, Step};
use crate::error::Error;
use crate::headers::{Delivery, write_status};
use crate::logic::byteranges::{Multipart, content_range};
use crate::logic::h1::{Framing, Version, hash, lines, write};
use crate::logic::selection::{Selection, Thing, Wishes, select};

/// Read and sent at a time: a slow reader of a large file holds no more of it.
const PIECE_LEN: usize = 64 * 1024;

const IF_MATCH: (u32, &[u8]) = (hash(b"if-match"), b"if-match");
const IF_NONE_MATCH: (u32, &[u8]) = (hash(b"if-none-match"), b"if-none-match");
const IF_MODIFIED_SINCE: (u32, &[u8]) = (hash(b"if-modified-since"), b"if-modified-since");
const IF_UNMODIFIED_SINCE: (u32, &[u8]) = (hash(b"if-unmodified-since"), b"if-unmodified-since");
const IF_RANGE: (u32, &[u8]) = (hash(b"if-range"), b"if-range");
const RANGE: (u32, &[u8]) = (hash(b"range"), b"range");

/// A file that is to be sent.
pub(super) struct Found {
    pub file: File,
    pub len: u64,
    pub modified: SystemTime,
    /// Empty where there is to be none.
    pub tag: Vec<u8>,
    pub content_type: Vec<u8>,
    /// `gzip_static` found it.
    pub is_packed: bool,
    /// Whether it was found depends on what the client takes.
    pub varies: bool,
}

/// What of a file is sent, and how it is told.
struct Portion {
    status: u16,
    content_type: Vec<u8>,
    /// `Content-Range`, where the body is one range.
    range: Option<String>,
    stretches: Vec<Stretch>,
    /// Behind the last stretch.
    end: Vec<u8>,
}

/// Bytes of the file, and what stands before them in the body.
struct Stretch {
    before: Vec<u8>,
    bytes: Range<u64>,
}

impl Portion {
    fn of(status: u16, content_type: Vec<u8>, bytes: Range<u64>) -> Portion {
        let stretches = vec![Stretch { before: Vec::new(), bytes }];
        Portion { status, content_type, range: None, stretches, end: Vec::new() }
    }

    fn len(&self) -> u64 {
        let stretches = self.stretches.iter();
        let len: u64 = stretches
            .map(|stretch| stretch.before.len() as u64 + stretch.bytes.end - stretch.bytes.start)
            .sum();
        len + self.end.len() as u64
    }
}

impl Exchange<'_> {
    pub(super) async fn send_file(&mut self, mut found: Found) -> Step {
        if self.scratch.story.is_sub() {
            return Step::Ended(self.collect_file(found).await);
        }
        self.scratch.story.answer.is_ours = true;
        let portion = match self.portion(&mut found) {
            Ok(portion) => portion,
            Err(answer) => return Step::Answer(answer),
        };
        let delivery = self.write_file_head(&portion, &found);
        let sent = match self.has_body(self.status_told()) {
            true => self.send_portion(&mut found.file, &portion).await,
            false => {
                let out = std::mem::take(&mut self.scratch.to_downstream.data);
                self.send_last(out).await
            }
        };
        Step::Ended(match sent {
            Ok(()) => {
                self.scratch.story.is_complete = true;
                self.after_answer(&delivery).await
            }
            Err(error) => {
                self.log(&error, None);
                After::Abort
            }
        })
    }

    /// The answer to a request that is made inside.
    async fn collect_file(&mut self, found: Found) -> After {
        let mut body = Vec::new();
        let wanted = if self.scratch.story.inside == Inside::Status { 0 } else { PAGE_LEN_MAX as u64 };
        // What cannot be read is missing in the page.
        let _ = found.file.take(wanted).read_to_end(&mut body);
        self.collect(200, &found.content_type, body).await;
        After::Close
    }

    fn portion(&mut self, found: &mut Found) -> Result<Portion, Answer> {
        let selection = self.selection(found);
        let content_type = std::mem::take(&mut found.content_type);
        Ok(match selection {
            Selection::Whole => Portion::of(200, content_type, 0..found.len),
            Selection::Part(bytes) => {
                let range = Some(content_range(&bytes, found.len));
                Portion { range, ..Portion::of(206, content_type, bytes) }
            }
            Selection::Parts(parts) => self.several(&content_type, parts, found.len),
            Selection::NotModified => Portion::of(304, content_type, 0..0),
            Selection::PreconditionFailed => return Err(Answer::page(412)),
            Selection::Unsatisfiable => {
                self.scratch.story.answer.unsatisfied_len = Some(found.len);
                return Err(Answer::page(416));
            }
        })
    }

    fn several(&self, content_type: &[u8], parts: Vec<Range<u64>>, len: u64) -> Portion {
        // The charset goes with the parts.
        let mut told = Vec::new();
        write::field(&mut told, b"Content-Type", content_type);
        self.write_charset(&self.location.dress, 206, &mut told);
        let content_type = lines::first(&told, b"content-type").unwrap_or_default();
        let multipart = Multipart::new(self.worker.random(), content_type, len);
        let stretches = parts.into_iter().map(|bytes| Stretch { before: multipart.head(&bytes), bytes });
        Portion {
            status: 206,
            content_type: multipart.content_type(),
            range: None,
            stretches: stretches.collect(),
            end: multipart.end(),
        }
    }

    fn selection(&self, found: &Found) -> Selection {
        let head = self.scratch.inbound.unread();
        let fields = &self.scratch.story.request.fields;
        let wish = |(hash, name): (u32, &'static [u8])| {
            let field = fields.find(head, hash, name);
            field.map(|field| field.value.of(head))
        };
        let wishes = Wishes {
            if_match: wish(IF_MATCH),
            if_none_match: wish(IF_NONE_MATCH),
            if_modified_since: wish(IF_MODIFIED_SINCE),
            if_unmodified_since: wish(IF_UNMODIFIED_SINCE),
            if_range: wish(IF_RANGE),
            range: wish(RANGE).filter(|_| self.keeps_bytes(&whole_head(found))),
            dates: self.location.files.dates,
            ranges_max: self.location.files.ranges_max,
        };
        if self.scratch.story.status_override.is_some() {
            return Selection::Whole;
        }
        select(&wishes, Thing { tag: &found.tag, modified: found.modified, len: found.len })
    }

    fn write_file_head(&mut self, portion: &Portion, found: &Found) -> Delivery {
        let status = self.scratch.story.status_override.take().unwrap_or(portion.status);
        self.scratch.story.status = status;
        let has_no_body = matches!(status, 204 | 304);
        let len = portion.len();
        let mut delivery = Delivery { framing: Framing::Length(len), keep_alive: self.keep_alive() };
        self.scratch.to_downstream.clear();
        let mut out = std::mem::take(&mut self.scratch.to_downstream.data);
        if self.scratch.story.request.version != Version::Http09 {
            out.extend_from_slice(b"HTTP/1.1 ");
            write_status(status, &mut out);
            out.extend_from_slice(b"\r\n");
            self.write_own_server_and_date(true, true, &mut out);
            if !has_no_body {
                if !portion.content_type.is_empty() {
                    write::field(&mut out, b"Content-Type", &portion.content_type);
                }
                write::content_length(&mut out, len);
            }
            if found.is_packed && !has_no_body {
                write::field(&mut out, b"Content-Encoding", b"gzip");
            }
            if found.varies {
                write::field(&mut out, b"Vary", b"Accept-Encoding");
            }
            // Under another status it is not what the file's age is told of.
            if matches!(status, 200 | 206 | 304) {
                let modified = httpdate::fmt_http_date(found.modified);
                write::field(&mut out, b"Last-Modified", modified.as_bytes());
            }
            if !found.tag.is_empty() {
                write::field(&mut out, b"ETag", &found.tag);
            }
            if let Some(range) = &portion.range {
                write::field(&mut out, b"Content-Range", range.as_bytes());
            }
            self.write_unsatisfied(&mut out);
            if status == 200 && self.location.files.ranges_max != Some(0) {
                write::field(&mut out, b"Accept-Ranges", b"bytes");
            }
            delivery = self.finish_head(delivery, &mut out);
        } else {
            self.scratch.sink.begin(Framing::UntilClose, Coding::Plain);
        }
        let story = &mut self.scratch.story;
        story.sent_head_len = out.len() as u64;
        story.kept_alive = delivery.keep_alive.is_some();
        story.answer.content_type.clone_from(&portion.content_type);
        story.answer.content_length = (!has_no_body).then_some(len);
        self.scratch.to_downstream.data = out;
        delivery
    }

    /// 416: what its page, or whatever comes in place of that, says of what no range could be had of.
    pub(super) fn write_unsatisfied(&self, out: &mut Vec<u8>) {
        if let Some(len) = self.scratch.story.answer.unsatisfied_len {
            write::field(out, b"Content-Range", format!("bytes */{len}").as_bytes());
        }
    }

    /// Head and first piece go out in one write.
    async fn send_portion(&mut self, file: &mut File, portion: &Portion) -> Result<(), Error> {
        let mut out = std::mem::take(&mut self.scratch.to_downstream.data);
        let mut piece = Vec::new();
        for Stretch { before, bytes } in &portion.stretches {
            self.scratch.sink.push(before, &mut out)?;
            file.seek(SeekFrom::Start(bytes.start)).map_err(Error::File)?;
            let mut left = bytes.end - bytes.start;
            while left > 0 {
                if out.len() >= PIECE_LEN {
                    self.write_paced(&out).await?;
                    out.clear();
                }
                let wanted = left.min(PIECE_LEN as u64);
                piece.clear();
                let read = file.take(wanted).read_to_end(&mut piece).map_err(Error::File)?;
                // A file that shrinks while it is sent cannot be finished: the client must see that it is cut.
                if (read as u64) < wanted {
                    return Err(Error::File(std::io::ErrorKind::UnexpectedEof.into()));
                }
                left -= wanted;
                self.scratch.sink.push(&piece, &mut out)?;
            }
        }
        self.scratch.sink.push(&portion.end, &mut out)?;
        let trailers = self.trailer_lines();
        self.scratch.sink.finish(&trailers, &mut out)?;
        self.finish_page(&mut out).await?;
        self.send_last(out).await
    }

    async fn send_last(&mut self, out: Vec<u8>) -> Result<(), Error> {
        let sent = self.write_paced(&out).await;
        self.scratch.to_downstream.data = out;
        self.scratch.to_downstream.clear();
        sent
    }
}

/// What the head of an answer with all of the file says of it.
fn whole_head(found: &Found) -> Vec<u8> {
    let mut head = Vec::new();
    write::field(&mut head, b"Content-Type", &found.content_type);
    write::content_length(&mut head, found.len);
    if found.is_packed {
        write::field(&mut head, b"Content-Encoding", b"gzip");
    }
    write::field(&mut head, b"Last-Modified", httpdate::fmt_http_date(found.modified).as_bytes());
    write::field(&mut head, b"ETag", &found.tag);
    head
}
