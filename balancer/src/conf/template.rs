//! A string with variables, compiled at load: constants stay constants, each variable is already resolved.

use super::variables::{Facts, Variable};

/// A value of the configuration that may contain `$variables`.
#[derive(Debug, Clone, Default)]
pub struct Template {
    parts: Box<[Part]>,
}

#[derive(Debug, Clone)]
pub enum Part {
    Text(Box<[u8]>),
    Variable(Variable),
}

impl Template {
    /// Neighbouring texts are joined and empty ones dropped, so that a constant is exactly one part or none.
    pub fn new(parts: impl IntoIterator<Item = Part>) -> Template {
        let mut joined: Vec<Part> = Vec::new();
        for part in parts {
            match (joined.last_mut(), part) {
                (_, Part::Text(text)) if text.is_empty() => {}
                (Some(Part::Text(before)), Part::Text(text)) => {
                    *before = [&before[..], &text[..]].concat().into_boxed_slice();
                }
                (_, part) => joined.push(part),
            }
        }
        Template { parts: joined.into_boxed_slice() }
    }

    pub fn text(text: &[u8]) -> Template {
        Template::new([Part::Text(text.into())])
    }

    /// The whole value when it has no variables; the empty template is the constant `""`.
    pub fn constant(&self) -> Option<&[u8]> {
        match &self.parts[..] {
            [] => Some(b""),
            [Part::Text(text)] => Some(text),
            _ => None,
        }
    }

    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    pub fn has_request_body(&self) -> bool {
        self.parts.iter().any(|part| matches!(part, Part::Variable(Variable::RequestBody)))
    }

    /// Appends the value; a variable without a value counts as empty, as in nginx.
    pub fn render(&self, facts: &dyn Facts, out: &mut Vec<u8>) {
        for part in &self.parts {
            match part {
                Part::Text(text) => out.extend_from_slice(text),
                Part::Variable(variable) => {
                    variable.write(facts, out);
                }
            }
        }
    }

    pub fn to_bytes(&self, facts: &dyn Facts) -> Vec<u8> {
        let mut out = Vec::new();
        self.render(facts, &mut out);
        out
    }

    /// What `if=` and friends ask: empty and `0` are false.
    pub fn is_true(&self, facts: &dyn Facts) -> bool {
        !matches!(&self.to_bytes(facts)[..], b"" | b"0")
    }
}
