//! Which server block and which location a request belongs to, and who may come in.

use std::net::IpAddr;
use std::sync::Arc;

use super::Exchange;
use super::answer::Answer;
use super::scratch::Scratch;
use super::story::{PathIs, Story};
use crate::conf::listen::Names;
use crate::conf::location::{AccessRule, Location, Route, Server, Verdict, Who};
use crate::conf::settings::ErrorLevel;
use crate::conf::ssl::Verify;
use crate::error::Error;
use crate::logic::escape::escape_path;
use crate::logic::h1::target::{normalise, split_args, split_port};
use crate::logic::h1::{Refusal, Version};

/// So often a request may move inside before it is taken for a loop; nginx's number.
const MOVES_MAX: u32 = 10;

/// Finds the server block by host, and notes the host in the story.
pub fn server<'a>(names: &'a Names, scratch: &mut Scratch) -> &'a Server {
    let Story { request, host, .. } = &mut scratch.story;
    let head = scratch.inbound.unread();
    let named = request.target.authority.or(request.host).map_or(&b""[..], |span| span.of(head));
    let (name, _) = split_port(named);
    host.clear();
    host.extend_from_slice(name.strip_suffix(b".").unwrap_or(name));
    host.make_ascii_lowercase();
    let (server, groups) = names.find_with_groups(host);
    if let Some(groups) = groups {
        scratch.story.remember(groups);
    }
    server
}

impl<'a> Exchange<'a> {
    /// nginx's checks of a request against the connection that it came over.
    fn check_connection(&self, names: &Names) -> Result<(), Answer> {
        let Some(tls) = &self.down.arrival.tls else {
            return match names.is_tls {
                true => Err(Answer::page(497)),
                false => self.check_http2(names),
            };
        };
        let server = &self.server.tls;
        let refusal = match server.verify != Verify::Off && server.is_ready() && !tls.is_verified_by(server) {
            // A reload gave the block that was proved to another one in its place.
            true if Arc::ptr_eq(names.tls_for(tls.server_name.as_deref()), server) => {
                tls.refusal_again(server)
            }
            // Who proved itself to one server block has proved nothing to another that asks (CVE-2025-23419 and its kin).
            true => Some(421),
            false => tls.refusal(server.verify),
        };
        match refusal {
            Some(status) => Err(Answer::page(status)),
            None => self.check_http2(names),
        }
    }

    /// A connection's version was agreed on with one server block; another may not speak it.
    fn check_http2(&self, names: &Names) -> Result<(), Answer> {
        let is_http2 = self.scratch.story.request.version == Version::Http2;
        let is_spoken = self.server.http2.is_on || names.is_http2;
        if is_http2 && !is_spoken { Err(Answer::page(421)) } else { Ok(()) }
    }

    /// Finds the location of the request as it came.
    pub(super) fn route(&mut self, names: &Names) -> Result<(), Answer> {
        // Read first: the page of what the connection forbids may be a named location's, which passes the path on.
        let read = self.read_path();
        self.check_connection(names)?;
        if let Err(refusal) = read {
            self.log(&Error::Refused(refusal), None);
            return Err(Answer::page(refusal.status()));
        }
        self.find_client();
        self.rewrite_and_find()
    }

    /// The path as it came becomes `$uri`; empty where it breaks the rules.
    pub(super) fn read_path(&mut self) -> Result<(), Refusal> {
        let Story { request, path, .. } = &mut self.scratch.story;
        let raw = request.target.path.of(self.scratch.inbound.unread());
        path.clear();
        if !request.target.is_complex && !raw.is_empty() {
            path.extend_from_slice(raw);
            return Ok(());
        }
        normalise(raw, self.server.head.merge_slashes, path).inspect_err(|_| path.clear())
    }

    pub(super) fn find_location(&mut self) -> Result<(), Answer> {
        let server = self.server;
        match server.locations.route(&self.scratch.story.path) {
            Route::Location(location, captures) => {
                self.enter(location);
                if let Some(captures) = captures {
                    self.scratch.story.remember(captures);
                }
                if location.internal && !self.scratch.story.is_internal {
                    return Err(Answer::page(404));
                }
                Ok(())
            }
            Route::AddSlash(location) => {
                self.location = location;
                let mut to = Vec::new();
                escape_path(&self.scratch.story.path, &mut to);
                to.push(b'/');
                let args = self.args();
                if !args.is_empty() {
                    to.push(b'?');
                    to.extend_from_slice(args);
                }
                Err(Answer::redirect(301, to))
            }
            Route::Nothing => {
                self.location = &server.root;
                Ok(())
            }
        }
    }

    /// The location, or what its `limit_except` says of other methods.
    fn enter(&mut self, location: &'a Location) {
        self.scratch.story.lost_pass = false;
        self.location = match &location.except {
            Some(except) if !self.is_method_of(&except.methods) => &except.location,
            _ => location,
        };
    }

    fn is_method_of(&self, methods: &[Box<[u8]>]) -> bool {
        let method = self.scratch.story.method_name(self.scratch.inbound.unread());
        methods.iter().any(|known| **known == *method)
    }

    /// Moves the request to another path of the same server.
    pub(super) fn route_inside(&mut self, target: &[u8]) -> Result<(), Answer> {
        self.count_move()?;
        let (path, args) = split_args(target);
        self.change_target(path.to_vec(), args.to_vec())
    }

    /// As [`Exchange::route_inside`], with a path that may hold any byte.
    pub(super) fn route_to(&mut self, path: Vec<u8>, args: Vec<u8>) -> Result<(), Answer> {
        self.count_move()?;
        self.change_target(path, args)
    }

    fn change_target(&mut self, path: Vec<u8>, args: Vec<u8>) -> Result<(), Answer> {
        let story = &mut self.scratch.story;
        story.path = path;
        story.args = Some(args);
        story.path_is = PathIs::Changed;
        self.rewrite_and_find()
    }

    /// Moves the request to a named location; its target stays as it was.
    pub(super) fn route_named(&mut self, name: &[u8]) -> Result<(), Answer> {
        self.count_move()?;
        if self.scratch.story.path.is_empty() {
            let name = String::from_utf8_lossy(name);
            self.say(ErrorLevel::Error, format_args!("empty URI in redirect to named location \"{name}\""));
            return Err(Answer::page(500));
        }
        let server = self.server;
        let location = std::str::from_utf8(name).ok().and_then(|name| server.locations.named.get(name));
        match location {
            Some(location) => {
                self.enter(location);
                if self.run_location()? { self.find_and_run() } else { Ok(()) }
            }
            None => Err(Answer::page(500)),
        }
    }

    pub(super) fn may_move(&self) -> bool {
        self.scratch.story.moves < MOVES_MAX
    }

    fn count_move(&mut self) -> Result<(), Answer> {
        let story = &mut self.scratch.story;
        story.is_internal = true;
        story.moves += 1;
        if story.moves > MOVES_MAX { Err(Answer::page(500)) } else { Ok(()) }
    }
}

/// `allow` and `deny`: the first rule that fits counts.
pub fn access(location: &Location, client: Option<IpAddr>) -> Option<Verdict> {
    let client = client.map(|ip| ip.to_canonical());
    let fits = |rule: &&AccessRule| match &rule.who {
        Who::All => true,
        Who::Unix => client.is_none(),
        Who::Net(net) => client.is_some_and(|ip| net.contains(&ip)),
    };
    location.access.iter().find(fits).map(|rule| rule.verdict)
}
