//! `set`, `if`, `rewrite`, `return`, `break`: steps that run in their order before a location is final.

use std::sync::Arc;

use super::guard::Assigned;
use super::location::{Location, Pattern, Return};
use super::template::Template;

#[derive(Debug)]
pub enum Step {
    Set(Assigned, Template),
    Rewrite(Rewrite),
    Return(Return),
    Break,
    If(If),
}

/// The place of a variable that `set` and named groups give values, numbered over the whole configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct UserVariable(pub usize);

#[derive(Debug)]
pub struct Rewrite {
    pub pattern: Pattern,
    pub path: Template,
    /// What follows `?` in the replacement.
    pub args: Option<Template>,
    /// The request's own query string goes on behind it; a `?` at the end of the replacement says no.
    pub keeps_args: bool,
    pub then: Then,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    GoOn,
    /// End here and find the location anew.
    Last,
    /// End here and stay in this location.
    Break,
    Redirect(u16),
}

#[derive(Debug)]
pub struct If {
    pub condition: Condition,
    pub steps: Arc<[Step]>,
    /// In a location: what holds for the request from here on.
    pub location: Option<Arc<Location>>,
}

#[derive(Debug)]
pub struct Condition {
    pub negated: bool,
    pub test: Test,
}

#[derive(Debug)]
pub enum Test {
    /// Neither empty nor `0`.
    True(Template),
    Equal(Template, Template),
    Matches(Template, Pattern),
    File(Template),
    Folder(Template),
    Exists(Template),
    Executable(Template),
}
