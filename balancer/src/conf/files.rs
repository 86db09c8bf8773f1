//! `root`, `alias`, `index`, `try_files`, `types`: how a location's paths become files.

use std::collections::HashMap;
use std::sync::Arc;

use super::template::Template;

/// What a location says about files.
#[derive(Debug, Clone)]
pub struct Files {
    pub base: Base,
    /// Tried in order for a path that ends with `/`.
    pub index: Arc<[Template]>,
    pub try_files: Option<Arc<TryFiles>>,
    pub types: Arc<Types>,
    pub has_etag: bool,
    pub dates: Dates,
    /// `max_ranges`: who asks for more gets the whole; `None`: no bound.
    pub ranges_max: Option<usize>,
}

/// `if_modified_since`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Dates {
    Off,
    /// The file's own date.
    #[default]
    Exact,
    /// That date or a later one.
    Before,
}

#[derive(Debug, Clone)]
pub enum Base {
    /// The whole path is looked for below it.
    Root(Template),
    /// Takes the place of so many bytes of the path: of the location that has the `alias`; of the whole path where that
    /// location is given by a pattern.
    Alias { to: Template, prefix_len: Option<usize> },
}

/// `try_files FILE … URI|=CODE`.
#[derive(Debug, Clone)]
pub struct TryFiles {
    /// A folder is meant where it ends with `/`.
    pub files: Vec<Template>,
    pub last: TryLast,
}

#[derive(Debug, Clone)]
pub enum TryLast {
    Status(u16),
    /// A path, with a query string or not, or `@name`.
    Inside(Template),
}

/// Content types by the lower-case ending of a file's name.
#[derive(Debug, Default)]
pub struct Types {
    pub by_ending: HashMap<Box<[u8]>, Box<[u8]>>,
}

impl Types {
    /// The type of a path, by what follows its last dot.
    pub fn of(&self, path: &[u8]) -> Option<&[u8]> {
        let name = path.rsplit(|byte| *byte == b'/').next()?;
        let dot = name.iter().rposition(|byte| *byte == b'.')?;
        self.by_ending.get(&name[dot + 1..].to_ascii_lowercase()[..]).map(|kind| &kind[..])
    }
}
