//! Tokens → a tree of directives, with `include` put in. Checked against the table of directives: unknown names,
//! wrong places and wrong numbers of arguments end here. No values: see build.rs.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::error::{COMMAND_LINE, Error, Place, Result, system};
use super::table::{self, Body, Context, Directive, Times};
use super::tokens::{Token, TokenKind, Word, tokens};

/// One directive as written.
#[derive(Debug, Clone)]
pub struct Node {
    pub name: String,
    pub args: Vec<Word>,
    pub place: Place,
    /// The directives of its block.
    pub block: Vec<Node>,
}

impl Node {
    /// The argument's text; `""` past the end, which the check of the numbers rules out.
    pub fn arg(&self, index: usize) -> &str {
        self.args.get(index).map_or("", |word| &word.text)
    }

    pub fn error(&self, what: impl Into<String>) -> Error {
        Error::at(&self.place, what)
    }

    /// `"NAME" directive …`.
    pub fn directive_error(&self, what: &str) -> Error {
        self.error(format!("\"{}\" directive {what}", self.name))
    }

    pub fn invalid(&self, value: &str) -> Error {
        self.error(format!("invalid parameter \"{value}\""))
    }
}

/// Reads files for the parser; tests give texts.
pub trait Files {
    fn read(&self, path: &Path) -> std::io::Result<Vec<u8>>;
    /// Files that match a pattern with `*`, `?` or `[…]`, sorted.
    fn glob(&self, pattern: &str) -> std::io::Result<Vec<PathBuf>>;
}

/// The file system.
pub struct Disk;

impl Files for Disk {
    fn read(&self, path: &Path) -> std::io::Result<Vec<u8>> {
        std::fs::read(path)
    }

    fn glob(&self, pattern: &str) -> std::io::Result<Vec<PathBuf>> {
        let invalid =
            |error: glob::PatternError| std::io::Error::new(std::io::ErrorKind::InvalidInput, error);
        glob::glob(pattern).map_err(invalid)?.map(|entry| entry.map_err(Into::into)).collect()
    }
}

/// A file that was read, for `-T`.
#[derive(Debug, Clone)]
pub struct Source {
    pub path: PathBuf,
    pub text: Vec<u8>,
}

/// The tree of a whole configuration.
#[derive(Debug, Default)]
pub struct Tree {
    pub nodes: Vec<Node>,
    pub sources: Vec<Source>,
}

impl Tree {
    /// What the configuration says without effect, with the reason: for the log.
    pub fn moot(&self) -> Vec<String> {
        let mut found = Vec::new();
        collect_moot(&self.nodes, &mut found);
        found
    }
}

fn collect_moot(nodes: &[Node], found: &mut Vec<String>) {
    for node in nodes {
        match table::find(&node.name) {
            Some(known) if table::is_moot(known) => {
                found.push(format!("\"{}\" in {}: {}", node.name, node.place, known.doc));
            }
            Some(known) if known.is_block() && !known.opens().is_free() => collect_moot(&node.block, found),
            _ => {}
        }
    }
}

/// Includes may not nest without end: a file that includes itself is caught here.
const INCLUDE_DEPTH_MAX: usize = 32;

/// Reads the file and all that it includes; `extra` is what `-g` gives.
pub fn read(files: &dyn Files, path: &Path, extra: &str) -> Result<Tree> {
    let mut parser =
        Parser { files, root: path.parent().unwrap_or(Path::new("/")).into(), sources: Vec::new() };
    let place = Place { file: COMMAND_LINE.into(), line: 0 };
    let mut extra_tokens = Cursor::new(tokens(extra.as_bytes(), &place.file)?, place.file);
    let mut nodes = parser.directives(&mut extra_tokens, &Level { context: Context::MAIN, depth: 0 })?;
    if let Some(node) = nodes.iter().find(|node| table::find(&node.name).is_some_and(Directive::is_block)) {
        return Err(node.error("block directives are not supported in -g option"));
    }
    let opened = parser.open(path).map_err(|what| Error::Whole { what })?;
    nodes.extend(parser.file(path, opened, &Level { context: Context::MAIN, depth: 0 })?);
    check_duplicates(&nodes, Context::MAIN)?;
    Ok(Tree { nodes, sources: parser.sources })
}

/// The directives of a text that stands by itself, as if it were inside a block of that context. No `include`.
pub fn fragment(text: &[u8], path: &Path, context: Context) -> Result<Vec<Node>> {
    let file: Arc<str> = path.to_string_lossy().into();
    let mut cursor = Cursor::new(tokens(text, &file)?, file);
    let mut parser = Parser { files: &Disk, root: path.into(), sources: Vec::new() };
    let nodes = parser.directives(&mut cursor, &Level { context, depth: INCLUDE_DEPTH_MAX })?;
    match cursor.next() {
        None => Ok(nodes),
        Some(_) => Err(cursor.error("unexpected \"}\"")),
    }
}

struct Parser<'a> {
    files: &'a dyn Files,
    /// Relative includes start at the folder of the main file.
    root: PathBuf,
    sources: Vec<Source>,
}

struct Level {
    context: Context,
    depth: usize,
}

struct Cursor {
    tokens: std::iter::Peekable<std::vec::IntoIter<Token>>,
    file: Arc<str>,
    line: u32,
}

impl Cursor {
    fn new(tokens: Vec<Token>, file: Arc<str>) -> Cursor {
        Cursor { tokens: tokens.into_iter().peekable(), file, line: 1 }
    }

    fn next(&mut self) -> Option<TokenKind> {
        let token = self.tokens.next()?;
        self.line = token.line;
        Some(token.kind)
    }

    fn error(&self, what: impl Into<String>) -> Error {
        Error::at(&Place { file: self.file.clone(), line: self.line }, what)
    }
}

/// How a directive's words end.
enum Ending {
    Semicolon,
    Block,
}

impl Parser<'_> {
    fn open(&mut self, path: &Path) -> std::result::Result<Vec<u8>, String> {
        let text = self.files.read(path).map_err(|error| system("open", path, &error))?;
        self.sources.push(Source { path: path.into(), text: text.clone() });
        Ok(text)
    }

    fn file(&mut self, path: &Path, text: Vec<u8>, level: &Level) -> Result<Vec<Node>> {
        let file: Arc<str> = path.to_string_lossy().into();
        let mut cursor = Cursor::new(tokens(&text, &file)?, file);
        let nodes = self.directives(&mut cursor, level)?;
        match cursor.next() {
            None => Ok(nodes),
            Some(_) => Err(cursor.error("unexpected \"}\"")),
        }
    }

    /// Directives up to the end of the file or, left unread, a `}`.
    fn directives(&mut self, cursor: &mut Cursor, level: &Level) -> Result<Vec<Node>> {
        let mut nodes = Vec::new();
        while cursor.tokens.peek().is_some_and(|token| token.kind != TokenKind::Close) {
            let (words, ending, place) = Self::words(cursor)?;
            if words[0].text == "include" {
                nodes.extend(self.include(&words, &place, level)?);
                continue;
            }
            nodes.push(self.directive(cursor, words, ending, place, level)?);
        }
        Ok(nodes)
    }

    fn words(cursor: &mut Cursor) -> Result<(Vec<Word>, Ending, Place)> {
        let mut words = Vec::new();
        loop {
            match cursor.next() {
                Some(TokenKind::Word(word)) => words.push(word),
                Some(TokenKind::End) if words.is_empty() => return Err(cursor.error("unexpected \";\"")),
                Some(TokenKind::Open) if words.is_empty() => return Err(cursor.error("unexpected \"{\"")),
                Some(TokenKind::Close) => return Err(cursor.error("unexpected \"}\"")),
                Some(end) => {
                    let ending = if end == TokenKind::End { Ending::Semicolon } else { Ending::Block };
                    let place = Place { file: cursor.file.clone(), line: cursor.line };
                    return Ok((words, ending, place));
                }
                None if &*cursor.file == COMMAND_LINE => {
                    return Err(cursor.error("unexpected end of parameter, expecting \";\""));
                }
                None => return Err(cursor.error("unexpected end of file, expecting \";\" or \"}\"")),
            }
        }
    }

    #[allow(clippy::too_many_arguments, reason = "the parts of one directive, taken apart by words()")]
    fn directive(
        &mut self,
        cursor: &mut Cursor,
        mut words: Vec<Word>,
        ending: Ending,
        place: Place,
        level: &Level,
    ) -> Result<Node> {
        let name = words.remove(0).text;
        let mut node = Node { name, args: words, place, block: Vec::new() };
        let free = level.context.is_free();
        let inner = if free { Context::FREE } else { check(&node, level.context, &ending)?.opens() };
        if matches!(ending, Ending::Block) {
            if free {
                return Err(node.error("unexpected \"{\""));
            }
            node.block = self.directives(cursor, &Level { context: inner, depth: level.depth })?;
            if cursor.next().is_none() {
                return Err(cursor.error("unexpected end of file, expecting \"}\""));
            }
        }
        Ok(node)
    }

    fn include(&mut self, words: &[Word], place: &Place, level: &Level) -> Result<Vec<Node>> {
        let [_, pattern] = words else {
            return Err(Error::at(place, "invalid number of arguments in \"include\" directive"));
        };
        if level.depth >= INCLUDE_DEPTH_MAX {
            return Err(Error::at(place, format!("more than {INCLUDE_DEPTH_MAX} files include one another")));
        }
        let path = self.root.join(&pattern.text);
        let inner = Level { context: level.context, depth: level.depth + 1 };
        let is_pattern = pattern.text.contains(['*', '?', '[']);
        let paths = if is_pattern {
            let found = self.files.glob(&path.to_string_lossy());
            found.map_err(|error| Error::at(place, system("glob", &path, &error)))?
        } else {
            vec![path]
        };
        let mut nodes = Vec::new();
        for path in paths {
            let text = self.open(&path).map_err(|what| Error::at(place, what))?;
            nodes.extend(self.file(&path, text, &inner)?);
        }
        Ok(nodes)
    }
}

/// Name, place, ending and number of arguments, in nginx's order of complaints.
fn check(node: &Node, context: Context, ending: &Ending) -> Result<&'static Directive> {
    let mut known = table::all().filter(|directive| directive.name == node.name).peekable();
    if known.peek().is_none() {
        return Err(node.error(format!("unknown directive \"{}\"", node.name)));
    }
    let Some(directive) = known.find(|directive| directive.contexts.contains(context)) else {
        return Err(node.directive_error("is not allowed here"));
    };
    match (directive.body, ending) {
        (Body::Block(_), Ending::Semicolon) => {
            return Err(node.error(format!("directive \"{}\" has no opening \"{{\"", node.name)));
        }
        (Body::None, Ending::Block) => {
            return Err(node.error(format!("directive \"{}\" is not terminated by \";\"", node.name)));
        }
        _ => {}
    }
    if !directive.args.contains(&node.args.len()) {
        return Err(node.error(format!("invalid number of arguments in \"{}\" directive", node.name)));
    }
    table::check_value(directive, node)?;
    Ok(directive)
}

/// A directive that a block may have once, given twice; files that are included belong to the block.
fn check_duplicates(nodes: &[Node], context: Context) -> Result<()> {
    let mut seen = std::collections::HashSet::new();
    for node in nodes {
        let Some(directive) = table::find_in(&node.name, context) else { continue };
        if directive.times == Times::Once && !seen.insert(&node.name[..]) {
            return Err(node.directive_error("is duplicate"));
        }
        if directive.is_block() && !directive.opens().is_free() {
            check_duplicates(&node.block, directive.opens())?;
        }
    }
    Ok(())
}
