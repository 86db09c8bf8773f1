//! Texts with `$variables` → templates. Knows the names that the configuration itself makes: maps, named groups.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::sync::Arc;

use regex::bytes::{Regex, RegexBuilder};

use super::made;
use crate::conf::blocks::Node;
use crate::conf::error::Result;
use crate::conf::location::Pattern;
use crate::conf::made::Made;
use crate::conf::pattern::has_possessive;
use crate::conf::rewrite::UserVariable;
use crate::conf::template::{Part, Template};
use crate::conf::variables::Variable;

/// All names that templates may use.
pub struct Names<'a> {
    makers: HashMap<&'a str, &'a Node>,
    made: RefCell<HashMap<&'a str, State>>,
    /// Variables that are given values, wherever that stands: one place for each name, whoever fills it.
    users: RefCell<Vec<User>>,
    /// What `charset` names anywhere: nginx knows no others.
    charsets: Arc<[Box<[u8]>]>,
    /// Some template asks why a server was chosen.
    explains: Cell<bool>,
}

struct User {
    name: Box<str>,
    giver: Giver,
}

/// What gives a variable its values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Giver {
    /// `set` and `auth_request_set`: until then it is empty.
    Directive,
    /// A named group, and maybe directives too: until then there is no value.
    Group,
}

enum State {
    /// Being made: meeting it again means that variables refer to one another in a circle.
    Open,
    Done(Arc<Made>),
}

impl<'a> Names<'a> {
    pub fn new(http: &'a [Node]) -> Result<Names<'a>> {
        let mut makers = HashMap::new();
        for node in http.iter().filter(|node| made::MAKERS.contains(&&node.name[..])) {
            makers.insert(made::name_of(node)?, node);
        }
        let names = Names {
            makers,
            made: RefCell::default(),
            users: RefCell::default(),
            charsets: charsets(http).into(),
            explains: Cell::default(),
        };
        names.collect_groups(http);
        names.collect_users(http);
        Ok(names)
    }

    /// Makes every variable, so that mistakes in those that nobody uses are found too.
    pub fn check_made(&self) -> Result<()> {
        let mut nodes: Vec<(&&str, &&Node)> = self.makers.iter().collect();
        nodes.sort_by_key(|(_, node)| node.place.line);
        nodes.into_iter().try_for_each(|(name, node)| self.made(name, node).map(drop))
    }

    /// Named groups may be used before the pattern that has them.
    fn collect_groups(&self, nodes: &[Node]) {
        for node in nodes {
            let words = node.args.iter().map(|word| &word.text[..]).chain([&node.name[..]]);
            for text in words {
                for rest in text.split("(?").skip(1) {
                    let name = rest.trim_start_matches('P').strip_prefix('<');
                    let name = name.and_then(|name| name.split_once('>')).map(|(name, _)| name);
                    if let Some(name) = name.filter(|name| name.bytes().all(is_name_byte)) {
                        self.give_place(name, Giver::Group);
                    }
                }
            }
            self.collect_groups(&node.block);
        }
    }

    fn collect_users(&self, nodes: &[Node]) {
        for node in nodes {
            let is_set = matches!(&node.name[..], "set" | "auth_request_set");
            let name = Some(node.arg(0)).filter(|_| is_set).and_then(|name| name.strip_prefix('$'));
            if let Some(name) = name.filter(|name| !name.starts_with(|first: char| first.is_ascii_digit())) {
                self.give_place(name, Giver::Directive);
            }
            self.collect_users(&node.block);
        }
    }

    /// The variable that is given values under this name.
    pub fn user(&self, name: &str) -> Option<UserVariable> {
        self.users.borrow().iter().position(|known| *known.name == *name).map(UserVariable)
    }

    /// What has a value by itself has no place here.
    fn give_place(&self, name: &str, giver: Giver) {
        if Variable::PLAIN_NAMES.contains(&name) || self.makers.contains_key(name) {
            return;
        }
        let known = self.user(name);
        let mut users = self.users.borrow_mut();
        match (known, giver) {
            (None, _) => users.push(User { name: name.into(), giver }),
            (Some(user), Giver::Group) => users[user.0].giver = Giver::Group,
            (Some(_), Giver::Directive) => {}
        }
    }

    pub fn charsets(&self) -> &Arc<[Box<[u8]>]> {
        &self.charsets
    }

    /// Whether any template that was made so far says `$balancer_why`.
    pub fn explains(&self) -> bool {
        self.explains.get()
    }

    pub fn variable(&self, name: &str, node: &Node) -> Result<Variable> {
        if let Some((name, maker)) = self.makers.get_key_value(name) {
            return Ok(Variable::Made(self.made(name, maker)?));
        }
        if let Some(user) = self.user(name) {
            return Ok(self.users.borrow()[user.0].variable(user));
        }
        if let Some(variable) = Variable::builtin(name) {
            self.explains.set(self.explains.get() || matches!(variable, Variable::BalancerWhy));
            return Ok(variable);
        }
        Err(node.error(format!("unknown \"{name}\" variable")))
    }

    /// All variables that the configuration itself makes.
    pub fn known(&self) -> HashMap<Box<str>, Variable> {
        let made = self.made.borrow();
        let made = made.iter().filter_map(|(name, state)| match state {
            State::Done(made) => Some((Box::from(*name), Variable::Made(made.clone()))),
            State::Open => None,
        });
        let users = self.users.borrow();
        let users = users
            .iter()
            .zip(0..)
            .map(|(user, index)| (user.name.clone(), user.variable(UserVariable(index))));
        users.chain(made).collect()
    }

    /// `text $name ${name}text`.
    pub fn template(&self, text: &str, node: &Node) -> Result<Template> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(dollar) = rest.find('$') {
            parts.push(Part::Text(rest.as_bytes()[..dollar].into()));
            let (name, after) = variable_name(&rest[dollar + 1..])
                .ok_or_else(|| node.error(format!("invalid variable name in \"{text}\"")))?;
            parts.push(Part::Variable(self.variable(name, node)?));
            rest = after;
        }
        parts.push(Part::Text(rest.as_bytes().into()));
        Ok(Template::new(parts))
    }

    pub fn pattern(&self, text: &str, case: Case, node: &Node) -> Result<Pattern> {
        let regex = regex(text, case, node)?;
        let mut names = Vec::new();
        for (group, name) in regex.capture_names().enumerate() {
            let Some(name) = name else { continue };
            if Variable::PLAIN_NAMES.contains(&name) && !matches!(name, "args" | "limit_rate") {
                return Err(node.error(format!("the duplicate \"{name}\" variable")));
            }
            names.extend(self.user(name).map(|user| (user, group)));
        }
        Ok(Pattern::new(regex, names))
    }

    fn made(&self, name: &'a str, node: &'a Node) -> Result<Arc<Made>> {
        match self.made.borrow().get(name) {
            Some(State::Done(made)) => return Ok(made.clone()),
            Some(State::Open) => {
                return Err(node.error(format!("cycle while evaluating variable \"{name}\"")));
            }
            None => {}
        }
        self.made.borrow_mut().insert(name, State::Open);
        let index = self.made.borrow().len();
        let rule = made::rule(name, node, self)?;
        let made = Arc::new(Made { index, volatile: made::is_volatile(node), rule });
        self.made.borrow_mut().insert(name, State::Done(made.clone()));
        Ok(made)
    }
}

fn charsets(nodes: &[Node]) -> Vec<Box<[u8]>> {
    let mut found = Vec::new();
    for node in nodes {
        let name = node.arg(0);
        if node.name == "charset" && node.block.is_empty() && name != "off" && !name.starts_with('$') {
            found.push(name.as_bytes().into());
        }
        found.extend(charsets(&node.block));
    }
    found
}

impl User {
    /// `set` may take over one of a family, which else has its usual value.
    fn variable(&self, place: UserVariable) -> Variable {
        match (self.giver, Variable::builtin(&self.name)) {
            (Giver::Group, _) => Variable::Named(place),
            (Giver::Directive, Some(usual)) => Variable::TakenOver(place, Box::new(usual)),
            (Giver::Directive, None) => Variable::User(place),
        }
    }
}

/// Whether a pattern tells upper from lower case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Case {
    Matters,
    Ignored,
}

impl Case {
    /// What follows `~`: `*` means that case is ignored.
    pub fn of(text: &str) -> (Case, &str) {
        match text.strip_prefix('*') {
            Some(rest) => (Case::Ignored, rest),
            None => (Case::Matters, text),
        }
    }
}

pub fn regex(text: &str, case: Case, node: &Node) -> Result<Regex> {
    let text = &unquoted(text);
    if has_possessive(text) {
        let what = "possessive quantifiers are not supported";
        return Err(node.error(format!("pattern \"{text}\" cannot be used: {what}")));
    }
    let built = RegexBuilder::new(text).case_insensitive(case == Case::Ignored).unicode(false).build();
    let built = built.or_else(|_| RegexBuilder::new(text).case_insensitive(case == Case::Ignored).build());
    built.map_err(|error| {
        let reason = error.to_string();
        let reason = reason.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
        node.error(format!("pattern \"{text}\" cannot be used: {reason}"))
    })
}

/// PCRE's `\\Q…\\E`, which quotes everything between, spelt out.
fn unquoted(pattern: &str) -> String {
    let mut out = String::new();
    let mut rest = pattern;
    while let Some((before, after)) = rest.split_once("\\Q") {
        let (quoted, after) = after.split_once("\\E").unwrap_or((after, ""));
        out.push_str(before);
        out.push_str(&regex::escape(quoted));
        rest = after;
    }
    out.push_str(rest);
    out
}

/// Splits what follows `$` into the name and the rest.
fn variable_name(text: &str) -> Option<(&str, &str)> {
    if let Some(inner) = text.strip_prefix('{') {
        let (name, rest) = inner.split_once('}')?;
        return (!name.is_empty() && name.bytes().all(is_name_byte)).then_some((name, rest));
    }
    if text.starts_with(|first: char| first.is_ascii_digit()) {
        return Some(text.split_at(1));
    }
    let len = text.bytes().take_while(|byte| is_name_byte(*byte)).count();
    (len > 0).then(|| text.split_at(len))
}

fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}
