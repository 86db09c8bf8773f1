//! Variables that the configuration itself makes: `map`, `geo`, `split_clients`.

use std::cell::RefCell;

use super::geo::Geo;
use super::map::Map;
use super::split::Split;
use super::variables::Facts;

/// One such variable; shared by every template that names it.
#[derive(Debug)]
pub struct Made {
    /// Counts over the whole configuration.
    pub index: usize,
    /// `volatile`: worked out anew each time. Else a request sees the value that it saw first.
    pub volatile: bool,
    pub rule: Rule,
}

#[derive(Debug)]
pub enum Rule {
    Map(Map),
    Geo(Geo),
    Split(Split),
}

impl Made {
    /// Appends the value; false when it is empty.
    pub fn write(&self, facts: &dyn Facts, out: &mut Vec<u8>) -> bool {
        let memory = facts.memory().filter(|_| !self.volatile);
        if let Some(known) = memory.and_then(|memory| memory.recall(self.index, out)) {
            return known;
        }
        let from = out.len();
        match &self.rule {
            Rule::Map(map) => map.write(facts, out),
            Rule::Geo(geo) => geo.write(facts, out),
            Rule::Split(split) => split.write(facts, out),
        }
        if let Some(memory) = memory {
            memory.keep(self.index, &out[from..]);
        }
        out.len() > from
    }
}

/// The values that a request has seen.
#[derive(Debug, Default)]
pub struct Memory {
    /// By [`Made::index`]; few of them are used by one request.
    seen: RefCell<Vec<(usize, Box<[u8]>)>>,
}

impl Memory {
    fn recall(&self, index: usize, out: &mut Vec<u8>) -> Option<bool> {
        let seen = self.seen.borrow();
        let (_, value) = seen.iter().find(|(known, _)| *known == index)?;
        out.extend_from_slice(value);
        Some(!value.is_empty())
    }

    fn keep(&self, index: usize, value: &[u8]) {
        self.seen.borrow_mut().push((index, value.into()));
    }
}
