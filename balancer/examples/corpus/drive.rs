//! Sends cases, each with a canary behind it in the same write, and judges what came back and what the origin saw.

use std::collections::{BTreeMap, HashMap};
use std::sync::Mutex;

use crate::client::{Answer, Conn, NoAnswer, id_in};
use crate::random::Random;
use crate::requests::{Case, Expect, canary, case};
use crate::world::Door;

/// Canaries have numbers that no case has.
pub const CANARY: u64 = 2_000_000_000;
/// So many faults are told in full.
const FAULTS_TOLD: usize = 30;

/// What a run has seen.
#[derive(Debug, Default)]
pub struct Tally {
    /// By kind of case and what became of it.
    pub outcomes: BTreeMap<(&'static str, String), u64>,
    pub faults: Vec<String>,
    pub faults_len: usize,
    /// Cases that an origin answered, and must have seen exactly once.
    pub answered: Vec<u64>,
    /// By kind and port: cases of a valid form that asks for no end, and those of them with whose canary they were two answers.
    going_on: BTreeMap<(&'static str, &'static str), GoingOn>,
}

#[derive(Debug, Default, Clone, Copy)]
struct GoingOn {
    cases: u64,
    pairs: u64,
}

impl Tally {
    pub fn fault(&mut self, text: String) {
        self.faults_len += 1;
        if self.faults.len() < FAULTS_TOLD {
            self.faults.push(text);
        }
    }

    pub fn add(&mut self, kind: &'static str, outcome: String) {
        *self.outcomes.entry((kind, outcome)).or_default() += 1;
    }

    pub fn merge(&mut self, other: Tally) {
        for (key, count) in other.outcomes {
            *self.outcomes.entry(key).or_default() += count;
        }
        for (key, count) in other.going_on {
            let sum = self.going_on.entry(key).or_default();
            sum.cases += count.cases;
            sum.pairs += count.pairs;
        }
        self.answered.extend(other.answered);
        self.faults_len += other.faults_len;
        self.faults.extend(other.faults);
        self.faults.truncate(FAULTS_TOLD);
    }

    /// Where an origin may answer before a body's end, single connections may end; not all of a kind.
    fn blame_ends(&mut self) {
        let never = self.going_on.iter().filter(|(_, seen)| seen.pairs == 0);
        let never: Vec<String> = never
            .map(|((kind, port), seen)| format!("{kind}, {port}: none of {} had two answers", seen.cases))
            .collect();
        never.into_iter().for_each(|fault| self.fault(fault));
    }
}

/// Which cases one run sends.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    pub seed: u64,
    pub first: u64,
    pub count: u64,
    pub threads: u64,
    /// More directives for the balancer, to see that what they spoil is found.
    pub directives: &'static str,
}

/// Sends the cases of the plan to both ports of the balancer, in turn.
pub fn run(door: Door, plan: Plan) -> Tally {
    let whole = Mutex::new(Tally::default());
    std::thread::scope(|scope| {
        for thread in 0..plan.threads {
            let whole = &whole;
            scope.spawn(move || {
                let mut tally = Tally::default();
                let mut conns = [None, None];
                for number in (plan.first + thread..plan.first + plan.count).step_by(plan.threads as usize) {
                    let which = (number / plan.threads % 2) as usize;
                    let port = [door.buffered, door.streaming][which];
                    let way = Way { port, is_streaming: which == 1 };
                    one(&mut conns[which], way, (plan.seed, number), &mut tally);
                }
                whole.lock().expect("nobody panics with the lock").merge(tally);
            });
        }
    });
    let mut tally = whole.into_inner().expect("nobody panics with the lock");
    tally.blame_ends();
    tally
}

/// Which of the balancer's ports.
#[derive(Clone, Copy)]
struct Way {
    port: u16,
    is_streaming: bool,
}

impl Way {
    fn name(self) -> &'static str {
        if self.is_streaming { "streaming" } else { "buffered" }
    }
}

fn one(conn: &mut Option<Conn>, way: Way, (seed, number): (u64, u64), tally: &mut Tally) {
    let case = case(seed, number);
    let mut bytes = case.bytes.clone();
    bytes.extend(canary(number + CANARY));
    let mut random = Random::of_case(!seed, number);
    let cut = if random.once_in(4) { random.below(bytes.len()) } else { bytes.len() };
    let mut open = match conn.take().map_or_else(|| Conn::open(way.port), Ok) {
        Ok(open) => open,
        Err(cause) => return tally.fault(format!("case {number}: no connection: {cause}")),
    };
    open.send(&bytes, cut);
    match judge(&case, number, way, &mut open, tally) {
        Ok(Seen { outcome, keeps }) => {
            if case.expect == Expect::Accepted {
                let seen = tally.going_on.entry((case.kind, way.name())).or_default();
                seen.cases += 1;
                seen.pairs += u64::from(keeps);
            }
            tally.add(case.kind, outcome);
            *conn = keeps.then_some(open);
        }
        Err(fault) => {
            let text = bytes[..bytes.len().min(600)].escape_ascii();
            tally.fault(format!(
                "case {number} ({}), expected {:?}: {fault}\n    {text}",
                case.kind, case.expect
            ));
        }
    }
}

struct Seen {
    outcome: String,
    keeps: bool,
}

/// `Err` tells how the case broke the rules.
fn judge(case: &Case, number: u64, way: Way, conn: &mut Conn, tally: &mut Tally) -> Result<Seen, String> {
    // A mutation may have changed the id; its canary's is as it was.
    let has_own_id = case.kind != "mutated";
    let is_valid = matches!(case.expect, Expect::Accepted | Expect::AcceptedLast);
    let first = match conn.answer(case.is_head) {
        Ok(first) => first,
        Err(NoAnswer::Ended | NoAnswer::Cut) if !is_valid => {
            return Ok(Seen { outcome: "closed without an answer".into(), keeps: false });
        }
        Err(none) => return Err(format!("no answer: {none:?}")),
    };
    if !first.is_forwarded {
        return refused(case, &first, conn);
    }
    match case.expect {
        Expect::Refused => return Err(format!("an origin was asked: {}", first.status)),
        _ if has_own_id && first.echo.is_some_and(|echo| echo != number) => {
            return Err(format!("the answer to {:?}", first.echo));
        }
        _ => {}
    }
    let said = match first.status {
        status if status < 400 || matches!(status, 404 | 405) => String::new(),
        status => format!(", origin said {status}"),
    };
    if said.is_empty() && has_own_id && case.expect != Expect::BrokenBody {
        tally.answered.push(number);
    }
    match conn.answer(false) {
        // A byte that came or went may have made one head into two.
        Ok(second) if case.kind == "mutated" && !second.is_forwarded && second.closes => {
            Ok(Seen { outcome: format!("one answer, then refused with {}", second.status), keeps: false })
        }
        Ok(second) if !is_canarys(&second, number) => Err(format!("not the canary's answer: {second:?}")),
        Ok(_) if matches!(case.expect, Expect::BrokenBody | Expect::AcceptedLast) => {
            Err("a request came after it".into())
        }
        Ok(_) if !conn.is_quiet() => Err("more than two answers".into()),
        Ok(_) => {
            tally.answered.push(number + CANARY);
            Ok(Seen { outcome: format!("two answers{said}"), keeps: true })
        }
        Err(NoAnswer::Ended) if case.expect != Expect::Accepted => {
            Ok(Seen { outcome: format!("one answer, then closed{said}"), keeps: false })
        }
        // An origin may answer before it has the whole body; what is left of it is then not worth a connection.
        Err(NoAnswer::Ended) if way.is_streaming && has_body(case) => {
            Ok(Seen { outcome: format!("answered before its end, then closed{said}"), keeps: false })
        }
        Err(NoAnswer::Ended) => Err("the connection ended behind it, and nobody had asked for that".into()),
        Err(none) => Err(format!("{} and for the canary {none:?}", first.status)),
    }
}

/// The balancer itself answered.
fn refused(case: &Case, first: &Answer, conn: &mut Conn) -> Result<Seen, String> {
    if matches!(case.expect, Expect::Accepted | Expect::AcceptedLast) {
        return Err(format!("refused with {}", first.status));
    }
    match conn.answer(false) {
        // A method that is not served says nothing against the connection; anything else ends it.
        Ok(_) if first.status == 405 => {}
        Ok(second) => return Err(format!("{} and the connection went on: {second:?}", first.status)),
        Err(NoAnswer::Hangs) => return Err(format!("{} and the connection hangs", first.status)),
        Err(_) => {}
    }
    Ok(Seen { outcome: format!("refused with {}", first.status), keeps: false })
}

fn has_body(case: &Case) -> bool {
    !case.bytes.ends_with(b"\r\n\r\n") || memchr::memmem::find_iter(&case.bytes, b"\r\n\r\n").count() > 1
}

fn is_canarys(answer: &Answer, number: u64) -> bool {
    answer.is_forwarded && answer.echo == Some(number + CANARY)
}

/// Compares what the balancer says it sent with what the origin saw, request by request.
pub fn compare(tally: &mut Tally, ours: &str, origins: &str) {
    let asked = ours.lines().filter(|line| !line.starts_with("-|") && !line.starts_with('|'));
    let (asked, seen) = (count(asked), count(origins.lines()));
    // Some servers log nothing of a request that they refuse, but none may log more than was sent.
    let (sent_len, seen_len) = (asked.values().sum::<u32>(), seen.values().sum::<u32>());
    if seen_len > sent_len {
        tally.fault(format!("{sent_len} requests sent, {seen_len} seen"));
    }
    for (id, times) in &seen {
        let sent = asked.get(id).copied().unwrap_or(0);
        if *times > sent && *id > 0 {
            tally.fault(format!("id {id}: sent {sent} times, seen {times} times"));
        }
    }
    for id in std::mem::take(&mut tally.answered) {
        if !seen.contains_key(&id) {
            tally.fault(format!("id {id}: answered and never seen"));
        }
    }
    for line in origins.lines().filter(|line| line.starts_with("BAD") && !line.starts_with("BAD cut")) {
        tally.fault(format!("the strict origin: {line}"));
    }
}

/// How often each id stands in a log; 0 is for lines without one.
fn count<'a>(lines: impl Iterator<Item = &'a str>) -> HashMap<u64, u32> {
    let mut seen = HashMap::new();
    for line in lines {
        *seen.entry(id_in(line).unwrap_or(0)).or_default() += 1;
    }
    seen
}
