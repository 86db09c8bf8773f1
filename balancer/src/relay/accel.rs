//! What an upstream may order by `X-Accel-*`: to answer from another location, how fast, in which charset, and whether it
//! is held for a slow client.

use super::Exchange;
use super::answer::Answer;
use crate::conf::settings::ErrorLevel;
use crate::conf::value;
use crate::logic::h1::target::safe_target;
use crate::logic::h1::{hash, write};

type Name = (u32, &'static [u8]);

const REDIRECT: Name = (hash(b"x-accel-redirect"), b"x-accel-redirect");
const LIMIT_RATE: Name = (hash(b"x-accel-limit-rate"), b"x-accel-limit-rate");
const BUFFERING: Name = (hash(b"x-accel-buffering"), b"x-accel-buffering");
const CHARSET: Name = (hash(b"x-accel-charset"), b"x-accel-charset");
const CONTENT_TYPE: Name = (hash(b"content-type"), b"content-type");

/// Headers of the answer that gave the order which go with the one that is sent in its place.
const CARRIED: [Name; 5] = [
    (hash(b"set-cookie"), b"set-cookie"),
    (hash(b"content-disposition"), b"content-disposition"),
    (hash(b"cache-control"), b"cache-control"),
    (hash(b"expires"), b"expires"),
    (hash(b"accept-ranges"), b"accept-ranges"),
];

impl Exchange<'_> {
    /// Where the upstream sends this request.
    pub(super) fn accel_redirect(&self) -> Option<Vec<u8>> {
        let target = self.order(REDIRECT)?;
        (!self.location.proxy.ignored.redirect).then(|| target.to_vec())
    }

    pub(super) fn obey_limit_rate(&mut self) {
        if self.location.proxy.ignored.limit_rate {
            return;
        }
        let rate = self.order(LIMIT_RATE).and_then(|text| std::str::from_utf8(text).ok());
        if let Some(rate) = rate.and_then(value::count) {
            self.scratch.story.limit_rate = Some(rate);
        }
    }

    /// Also for the answer of a location that the upstream sends the request to.
    pub(super) fn obey_charset(&mut self) {
        if self.location.proxy.ignored.charset || self.location.dress.charsets.is_empty() {
            return;
        }
        if let Some(charset) = self.order(CHARSET).filter(|charset| !charset.is_empty()) {
            self.scratch.story.charset = Some(charset.to_vec());
        }
    }

    /// Whether what the client is slow to take is held here.
    pub(super) fn is_buffered(&self) -> bool {
        let proxy = &self.location.proxy;
        match self.order(BUFFERING) {
            Some(told) if !proxy.ignored.buffering && told.eq_ignore_ascii_case(b"no") => false,
            Some(told) if !proxy.ignored.buffering && told.eq_ignore_ascii_case(b"yes") => true,
            _ => proxy.buffering,
        }
    }

    fn order(&self, (hash, name): Name) -> Option<&[u8]> {
        let head = self.scratch.from_upstream.unread();
        self.scratch.story.response.fields.find(head, hash, name).map(|field| field.value.of(head))
    }

    /// Goes there, with what the answer said for the client.
    pub(super) fn move_to(&mut self, target: &[u8]) -> Result<(), Answer> {
        self.carry();
        if target.first() == Some(&b'@') {
            return self.route_named(target);
        }
        // An origin that builds the target of what a client has said must not lead it past the folder it names.
        let Some((path, args)) = safe_target(target) else {
            let target = String::from_utf8_lossy(target);
            self.say(ErrorLevel::Error, format_args!("unsafe URI \"{target}\" was detected"));
            return Err(Answer::page(404));
        };
        self.scratch.story.as_get = true;
        self.route_to(path, args)
    }

    fn carry(&mut self) {
        let head = self.scratch.from_upstream.unread();
        let story = &mut self.scratch.story;
        story.carried.clear();
        for field in &story.response.fields.list {
            let name = field.name.of(head);
            if CARRIED.iter().any(|(hash, known)| field.hash == *hash && name.eq_ignore_ascii_case(known)) {
                write::field(&mut story.carried, name, field.value.of(head));
            }
        }
        let kind = story.response.fields.find(head, CONTENT_TYPE.0, CONTENT_TYPE.1);
        story.carried_type = kind.map(|field| field.value.of(head).to_vec());
    }
}
