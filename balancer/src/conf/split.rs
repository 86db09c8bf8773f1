//! `split_clients KEY $NAME { … }`: a variable that takes each of its values for a share of the keys.

use super::template::Template;
use super::variables::Facts;
use crate::logic::murmur;

#[derive(Debug)]
pub struct Split {
    pub key: Template,
    /// In the order written.
    pub parts: Vec<Part>,
}

#[derive(Debug)]
pub struct Part {
    /// Keys whose hash is below; `None`: all that are left.
    pub below: Option<u32>,
    pub value: Box<[u8]>,
}

impl Split {
    pub fn write(&self, facts: &dyn Facts, out: &mut Vec<u8>) {
        let hash = murmur::hash(&self.key.to_bytes(facts));
        let part = self.parts.iter().find(|part| part.below.is_none_or(|below| hash < below));
        out.extend_from_slice(part.map_or(&b""[..], |part| &part.value));
    }
}
