//! Who may go on: limits first, then `allow`/`deny`, passwords, and another location's word. In nginx's order.

use std::fs;
use std::io;
use std::time::{Duration, Instant};

use super::answer::Answer;
use super::inside::Inside;
use super::story::Limited;
use super::{Exchange, Step, route};
use crate::conf::guard::{Assigned, AuthBasic, AuthRequest, Refusal, Satisfy};
use crate::conf::location::Verdict;
use crate::conf::settings::ErrorLevel;
use crate::conf::template::Template;
use crate::logic::h1::target::split_args;
use crate::logic::h1::{fields, hash, write};
use crate::logic::limits::{self, Admission, Asked};
use crate::logic::passwords;

/// What one check says.
enum Checked {
    NotAsked,
    Passed,
    /// 401 or 403: with `satisfy any` another check may still let the request in.
    Refused(u16),
    Failed(Step),
}

impl<'a> Exchange<'a> {
    /// Every check before a location acts. Who asks was looked at with the client's own request; limits count what was
    /// not counted there.
    pub(super) async fn guard(&mut self) -> Result<(), Step> {
        self.limit_requests().await?;
        self.limit_connections()?;
        if self.scratch.story.is_sub() { Ok(()) } else { self.check_access().await }
    }

    async fn limit_requests(&mut self) -> Result<(), Step> {
        let terms = &self.location.guard.requests;
        if terms.limits.is_empty() || self.scratch.story.limited_requests.is_some() {
            return Ok(());
        }
        let zones = &self.running.settings.http.request_zones;
        let limits = &self.running.limits;
        let asked: Vec<Asked<'_>> = terms
            .limits
            .iter()
            .map(|limit| Asked {
                zone: limits.requests(limit.zone),
                rate: zones[limit.zone.0].rate,
                burst: limit.burst,
                delay_after: limit.delay_after,
                key: self.limited_key(&zones[limit.zone.0].key),
            })
            .collect();
        if asked.iter().all(|asked| asked.key.is_empty()) {
            return Ok(());
        }
        let admission = limits::admit(&asked, self.worker.clock.since_start(self.now));
        let dry = if terms.refusal.dry_run { ", dry run" } else { "" };
        let told = |excess: u64, index: usize| {
            let zone = &zones[terms.limits[index].zone.0].name;
            format!("excess: {}.{:03} by zone \"{zone}\"", excess / 1000, excess % 1000)
        };
        match admission {
            Admission::Pass => self.scratch.story.limited_requests = Some(Limited::Passed),
            Admission::Refuse { index, excess } => {
                self.say(
                    terms.refusal.level,
                    format_args!("limiting requests{dry}, {}", told(excess, index)),
                );
                self.scratch.story.limited_requests = Some(Limited::rejected(terms.refusal.dry_run));
                return self.reject(&terms.refusal);
            }
            Admission::Delay { wait, index, excess } => {
                let level = milder(terms.refusal.level);
                self.say(level, format_args!("delaying request{dry}, {}", told(excess, index)));
                self.scratch.story.limited_requests = Some(Limited::delayed(terms.refusal.dry_run));
                if !terms.refusal.dry_run {
                    self.wait(wait).await?;
                }
            }
        }
        Ok(())
    }

    /// The key of a limit; one that is too long to count by is not limited, as in nginx.
    fn limited_key(&self, key: &Template) -> Vec<u8> {
        let key = key.to_bytes(&self.facts());
        if key.len() <= 65_535 {
            return key;
        }
        self.say(ErrorLevel::Error, format_args!("the value of a limit's key is more than 65535 bytes"));
        Vec::new()
    }

    fn limit_connections(&mut self) -> Result<(), Step> {
        let terms = &self.location.guard.connections;
        if self.scratch.story.limited_connections.is_some() {
            return Ok(());
        }
        for limit in &terms.limits {
            let zone = &self.running.settings.http.connection_zones[limit.zone.0];
            let key = self.limited_key(&zone.key);
            if key.is_empty() {
                continue;
            }
            self.scratch.story.limited_connections = Some(Limited::Passed);
            match self.running.limits.connections(limit.zone).take(&key, limit.count_max) {
                Some(place) => self.scratch.story.places.push(place),
                None => {
                    let dry = if terms.refusal.dry_run { ", dry run" } else { "" };
                    let name = &zone.name;
                    self.say(
                        terms.refusal.level,
                        format_args!("limiting connections{dry} by zone \"{name}\""),
                    );
                    self.scratch.story.places.clear();
                    self.scratch.story.limited_connections = Some(Limited::rejected(terms.refusal.dry_run));
                    return self.reject(&terms.refusal);
                }
            }
        }
        Ok(())
    }

    fn reject(&self, refusal: &Refusal) -> Result<(), Step> {
        if refusal.dry_run { Ok(()) } else { Err(Step::Answer(Answer::page(refusal.status))) }
    }

    /// Holds the request back; its client may leave meanwhile.
    async fn wait(&mut self, time: Duration) -> Result<(), Step> {
        let waited = self.pause(time).await;
        self.now = Instant::now();
        waited.map_err(|error| self.not_upstreams_fault(&error))
    }

    /// `satisfy`: all of the checks, or any.
    async fn check_access(&mut self) -> Result<(), Step> {
        let guard = &self.location.guard;
        let mut refused: Option<u16> = None;
        for check in 0..3 {
            let checked = match check {
                0 => self.check_address(),
                1 => match &guard.basic {
                    Some(basic) => self.check_password(basic).await,
                    None => Checked::NotAsked,
                },
                _ => match &guard.request {
                    Some(terms) => self.ask_location(terms).await,
                    None => Checked::NotAsked,
                },
            };
            match (checked, guard.satisfy) {
                (Checked::NotAsked, _) | (Checked::Passed, Satisfy::All) => {}
                (Checked::Passed, Satisfy::Any) => {
                    self.scratch.story.answer.challenges.clear();
                    return Ok(());
                }
                (Checked::Refused(status), Satisfy::All) => return Err(self.turn_away(status).await),
                (Checked::Refused(status), Satisfy::Any) => {
                    refused = Some(if refused == Some(401) { 401 } else { status });
                }
                (Checked::Failed(step), _) => return Err(step),
            }
        }
        match refused {
            Some(status) => Err(self.turn_away(status).await),
            None => Ok(()),
        }
    }

    /// A refusal. `auth_delay` makes who guesses wait.
    async fn turn_away(&mut self, status: u16) -> Step {
        let delay = self.location.guard.auth_delay;
        if status == 401
            && !delay.is_zero()
            && let Err(step) = self.wait(delay).await
        {
            return step;
        }
        Step::Answer(Answer::page(status))
    }

    fn check_address(&self) -> Checked {
        match route::access(self.location, self.client_ip()) {
            None => Checked::NotAsked,
            Some(Verdict::Allow) => Checked::Passed,
            Some(Verdict::Deny) => {
                self.say(ErrorLevel::Error, format_args!("access forbidden by rule"));
                Checked::Refused(403)
            }
        }
    }

    async fn check_password(&mut self, basic: &AuthBasic) -> Checked {
        let realm = basic.realm.to_bytes(&self.facts());
        if realm == b"off" {
            return Checked::NotAsked;
        }
        let Some((user, password)) = self.credentials() else {
            self.say(
                ErrorLevel::Info,
                format_args!("no user/password was provided for basic authentication"),
            );
            return self.challenge(&realm);
        };
        let name = basic.file.to_bytes(&self.facts());
        let file = basic.folder.join(String::from_utf8_lossy(&name).as_ref());
        let mut entries = fs::read(&file);
        if let Err(error) = &entries
            && self.worker.makes_room_after(error).await
        {
            entries = fs::read(&file);
        }
        let entries = match entries {
            Ok(entries) => entries,
            Err(error) => {
                let (level, status) = match error.kind() {
                    io::ErrorKind::NotFound => (ErrorLevel::Error, 403),
                    _ => (ErrorLevel::Crit, 500),
                };
                self.say(level, format_args!("{}", crate::conf::error::system("open", &file, &error)));
                return Checked::Failed(Step::Answer(Answer::page(status)));
            }
        };
        let user_text = String::from_utf8_lossy(&user);
        match passwords::entry_of(&entries, &user) {
            Some(entry) if passwords::fits(&password, entry) => return Checked::Passed,
            Some(_) => self.say(ErrorLevel::Error, format_args!("user \"{user_text}\": password mismatch")),
            None => self.say(
                ErrorLevel::Error,
                format_args!("user \"{user_text}\" was not found in \"{}\"", file.display()),
            ),
        }
        self.challenge(&realm)
    }

    /// Name and password of `Authorization: Basic`.
    fn credentials(&self) -> Option<(Vec<u8>, Vec<u8>)> {
        let head = self.scratch.inbound.unread();
        let fields = &self.scratch.story.request.fields;
        let value = fields.find(head, hash(b"authorization"), b"authorization")?.value.of(head);
        passwords::credentials(value)
    }

    fn challenge(&mut self, realm: &[u8]) -> Checked {
        let value = [b"Basic realm=\"", realm, b"\""].concat();
        let challenges = &mut self.scratch.story.answer.challenges;
        challenges.clear();
        write::field(challenges, b"WWW-Authenticate", &value);
        Checked::Refused(401)
    }

    /// `auth_request`: runs the request, without its body, at another location; its status is the word.
    async fn ask_location(&mut self, terms: &'a AuthRequest) -> Checked {
        let uri = terms.uri.to_bytes(&self.facts());
        let (path, args) = split_args(&uri);
        let place = (path.to_vec(), args.to_vec());
        let scratch = self.run_inside(place, Inside::Status, &terms.set).await;
        let status = scratch.story.status;
        let checked = match status {
            200..=299 => Checked::Passed,
            401 => {
                let challenges = &mut self.scratch.story.answer.challenges;
                challenges.clear();
                let head = scratch.from_upstream.unread();
                let name = (fields::hash(b"www-authenticate"), &b"www-authenticate"[..]);
                for field in scratch.story.response.fields.all(head, name.0, name.1) {
                    write::field(challenges, b"WWW-Authenticate", field.value.of(head));
                }
                challenges.extend_from_slice(&scratch.story.answer.challenges);
                Checked::Refused(401)
            }
            403 => Checked::Refused(403),
            _ => {
                self.say(ErrorLevel::Error, format_args!("auth request unexpected status: {status}"));
                Checked::Failed(Step::Answer(Answer::page(500)))
            }
        };
        self.worker.spare.give_back(scratch);
        checked
    }

    /// `set` and its kin.
    pub(super) fn assign(&mut self, to: Assigned, value: Vec<u8>) {
        let story = &mut self.scratch.story;
        match to {
            Assigned::Args => {
                story.args = Some(value);
                story.change_path();
            }
            Assigned::LimitRate => {
                let rate = std::str::from_utf8(&value).ok().and_then(crate::conf::value::size);
                story.limit_rate = rate.or(story.limit_rate);
            }
            Assigned::User(variable) => story.give(variable, value),
        }
    }
}

/// Delays are told one level below refusals.
fn milder(level: ErrorLevel) -> ErrorLevel {
    match level {
        ErrorLevel::Error => ErrorLevel::Warn,
        ErrorLevel::Warn => ErrorLevel::Notice,
        _ => ErrorLevel::Info,
    }
}
