//! `log_format` and `access_log`.

use std::cell::RefCell;
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::names::Names;
use super::scope::Scope;
use super::{World, full_path};
use crate::conf::blocks::Node;
use crate::conf::error::Result;
use crate::conf::settings::{AccessLog, Escape, LogFormat, LogTarget, OpenLogs};
use crate::conf::template::Template;
use crate::conf::value;

/// The formats by name and the files named so far.
pub(super) struct Logs<'a> {
    formats: HashMap<String, Arc<LogFormat>>,
    files: RefCell<Vec<Arc<Path>>>,
    /// How files that have a buffer want it.
    buffers: RefCell<HashMap<Arc<Path>, BufferTerms>>,
    names: &'a Names<'a>,
    world: &'a dyn World,
}

/// `buffer=`, `flush=` and `gzip`.
type BufferTerms = (usize, Option<Duration>, Option<u32>);

const COMBINED: &str = "$remote_addr - $remote_user [$time_local] \"$request\" $status $body_bytes_sent \
                        \"$http_referer\" \"$http_user_agent\"";

const FILE_DEFAULT: &str = "logs/access.log";

impl<'a> Logs<'a> {
    pub fn new(http: &Scope<'a>, names: &'a Names<'a>, world: &'a dyn World) -> Result<Logs<'a>> {
        let (files, buffers) = (RefCell::default(), RefCell::default());
        let mut logs = Logs { formats: HashMap::new(), files, buffers, names, world };
        for node in http.own("log_format") {
            let format = read_format(node, names)?;
            if let Some(known) = logs.formats.insert(node.arg(0).into(), Arc::new(format)) {
                return Err(node.error(format!("duplicate \"log_format\" name \"{}\"", known.name)));
            }
        }
        Ok(logs)
    }

    pub fn into_files(self) -> Vec<Arc<Path>> {
        self.files.into_inner()
    }

    /// The logs that hold for a block.
    pub fn of(&self, scope: &Scope<'_>, http: &Node) -> Result<Arc<[AccessLog]>> {
        let given = scope.nearest("access_log");
        if given.is_empty() {
            let (file, format) = (self.file(FILE_DEFAULT), self.format("combined", http)?);
            let target = LogTarget::File(file);
            let default =
                AccessLog { target, format, buffer_len: None, flush: None, gzip: None, condition: None };
            return Ok([default].into());
        }
        let mut logs = Vec::new();
        for node in given {
            if node.arg(0) == "off" {
                if node.args.len() > 1 {
                    return Err(node.invalid(node.arg(1)));
                }
                return Ok([].into());
            }
            logs.push(self.access_log(node, scope)?);
        }
        Ok(logs.into())
    }

    fn access_log(&self, node: &Node, scope: &Scope<'_>) -> Result<AccessLog> {
        let path = node.arg(0);
        if path.starts_with("syslog:") {
            return Err(node.error(format!("access_log to \"{path}\" is not supported yet: name a file")));
        }
        let named = node.args.get(1).filter(|word| !word.text.contains('='));
        let options = &node.args[if named.is_some() { 2 } else { 1 }..];
        let mut log = AccessLog {
            target: self.target(path, node, scope)?,
            format: self.format(named.map_or("combined", |word| &word.text), node)?,
            buffer_len: None,
            flush: None,
            gzip: None,
            condition: None,
        };
        for word in options {
            match word.text.split_once('=') {
                Some(("buffer", size)) => {
                    log.buffer_len = value::size(size).filter(|size| *size > 0).map(|size| size as usize);
                    log.buffer_len.ok_or_else(|| node.error(format!("invalid buffer size \"{size}\"")))?;
                }
                Some(("flush", time)) => {
                    log.flush = value::millis(time).filter(|time| !time.is_zero());
                    log.flush.ok_or_else(|| node.error(format!("invalid flush time \"{time}\"")))?;
                }
                Some(("if", text)) => log.condition = Some(self.names.template(text, node)?),
                Some(("gzip", level)) => {
                    let level = level.parse().ok().filter(|level| (1..=9).contains(level));
                    log.gzip = Some(level.ok_or_else(|| node.error("invalid compression level"))?);
                }
                None if word.text == "gzip" => log.gzip = Some(1),
                _ => return Err(node.invalid(&word.text)),
            }
        }
        if log.gzip.is_some() && log.buffer_len.is_none() {
            log.buffer_len = Some(GZIP_BUFFER_LEN);
        }
        if log.buffer_len.is_some() && matches!(log.target, LogTarget::Named { .. }) {
            return Err(node.error("buffered logs cannot have variables in name"));
        }
        if log.flush.is_some() && log.buffer_len.is_none() {
            return Err(node.error(format!("no buffer is defined for access_log \"{path}\"")));
        }
        self.agree_on_buffer(&log, node)?;
        Ok(log)
    }

    /// All logs in a file have one buffer.
    fn agree_on_buffer(&self, log: &AccessLog, node: &Node) -> Result<()> {
        let (LogTarget::File(path), Some(len)) = (&log.target, log.buffer_len) else { return Ok(()) };
        let terms = (len, log.flush, log.gzip);
        match *self.buffers.borrow_mut().entry(path.clone()).or_insert(terms) == terms {
            true => Ok(()),
            false => Err(node.error(format!(
                "access_log \"{}\" already defined with conflicting parameters",
                node.arg(0)
            ))),
        }
    }

    fn target(&self, path: &str, node: &Node, scope: &Scope<'_>) -> Result<LogTarget> {
        if !path.contains('$') {
            return Ok(LogTarget::File(self.file(path)));
        }
        Ok(LogTarget::Named {
            name: self.names.template(path, node)?,
            folder: self.world.prefix().into(),
            open: open_logs(scope)?,
        })
    }

    fn file(&self, path: &str) -> Arc<Path> {
        let path = full_path(self.world, path);
        let mut files = self.files.borrow_mut();
        if let Some(known) = files.iter().find(|known| ***known == *path) {
            return known.clone();
        }
        let file: Arc<Path> = path.into();
        files.push(file.clone());
        file
    }

    fn format(&self, name: &str, node: &Node) -> Result<Arc<LogFormat>> {
        if let Some(format) = self.formats.get(name) {
            return Ok(format.clone());
        }
        if name != "combined" {
            return Err(node.error(format!("unknown log format \"{name}\"")));
        }
        let line = self.names.template(COMBINED, node)?;
        Ok(Arc::new(LogFormat { name: name.into(), escape: Escape::Default, line }))
    }
}

/// nginx's, for lines that are packed.
const GZIP_BUFFER_LEN: usize = 64 << 10;

fn open_logs(scope: &Scope<'_>) -> Result<Option<OpenLogs>> {
    let Some(node) = scope.given("open_log_file_cache").filter(|node| node.arg(0) != "off") else {
        return Ok(None);
    };
    let minute = Duration::from_secs(60);
    let mut terms = OpenLogs { files_max: 0, inactive: Duration::from_secs(10), uses_min: 1, valid: minute };
    for word in &node.args {
        let invalid = || node.error(format!("invalid \"open_log_file_cache\" parameter \"{}\"", word.text));
        let number = |text: &str| value::count(text).filter(|count| *count > 0).ok_or_else(invalid);
        match word.text.split_once('=') {
            Some(("max", count)) => terms.files_max = number(count)? as usize,
            Some(("min_uses", count)) => terms.uses_min = u32::try_from(number(count)?).unwrap_or(u32::MAX),
            Some(("inactive", time)) => terms.inactive = value::seconds(time).ok_or_else(invalid)?,
            Some(("valid", time)) => terms.valid = value::seconds(time).ok_or_else(invalid)?,
            _ => return Err(invalid()),
        }
    }
    if terms.files_max == 0 {
        return Err(node.error("\"open_log_file_cache\" must have \"max\" parameter"));
    }
    Ok(Some(terms))
}

fn read_format(node: &Node, names: &Names<'_>) -> Result<LogFormat> {
    let mut texts = &node.args[1..];
    let mut escape = Escape::Default;
    if let Some(kind) = texts[0].text.strip_prefix("escape=") {
        escape = match kind {
            "default" => Escape::Default,
            "json" => Escape::Json,
            "none" => Escape::None,
            other => return Err(node.error(format!("unknown log format escaping \"{other}\""))),
        };
        texts = &texts[1..];
    }
    let text: String = texts.iter().map(|word| &word.text[..]).collect();
    let line: Template = names.template(&text, node)?;
    Ok(LogFormat { name: node.arg(0).into(), escape, line })
}
