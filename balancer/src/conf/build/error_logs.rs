//! `error_log`, of the main context and of blocks that have their own.

use std::hash::{DefaultHasher, Hash, Hasher};

use super::scope::Scope;
use super::{World, full_path};
use crate::conf::blocks::Node;
use crate::conf::error::Result;
use crate::conf::settings::{ErrorLevel, ErrorLog, ErrorTarget, LogId};

/// The sets of lines met so far.
pub(super) struct ErrorLogs<'a> {
    main: &'a [ErrorLog],
    sets: Vec<(LogId, Vec<ErrorLog>)>,
    world: &'a dyn World,
}

impl<'a> ErrorLogs<'a> {
    pub fn new(main: &'a [ErrorLog], world: &'a dyn World) -> ErrorLogs<'a> {
        ErrorLogs { main, sets: Vec::new(), world }
    }

    /// The set that holds for a block.
    pub fn of(&mut self, scope: &Scope<'_>) -> Result<LogId> {
        let logs = read(&scope.nearest("error_log"), self.world)?;
        if logs.is_empty() || logs == self.main {
            return Ok(LogId::MAIN);
        }
        let mut hasher = DefaultHasher::new();
        logs.hash(&mut hasher);
        let id = LogId(hasher.finish().max(1));
        if !self.sets.iter().any(|(known, _)| *known == id) {
            self.sets.push((id, logs));
        }
        Ok(id)
    }

    pub fn into_sets(self) -> Vec<(LogId, Vec<ErrorLog>)> {
        self.sets
    }
}

/// Those of the main context; never none.
pub(super) fn error_logs(scope: &Scope<'_>, world: &dyn World) -> Result<Vec<ErrorLog>> {
    let given: Vec<&Node> = scope.own("error_log").collect();
    let mut logs = read(&given, world)?;
    if logs.is_empty() {
        let target = match world.error_log() {
            Some(path) => ErrorTarget::File(full_path(world, &path.to_string_lossy())),
            None => ErrorTarget::Stderr,
        };
        logs.push(ErrorLog { target, level: ErrorLevel::Error });
    }
    Ok(logs)
}

fn read(given: &[&Node], world: &dyn World) -> Result<Vec<ErrorLog>> {
    given
        .iter()
        .map(|node| Ok(ErrorLog { target: error_target(node, world)?, level: error_level(node)? }))
        .collect()
}

fn error_target(node: &Node, world: &dyn World) -> Result<ErrorTarget> {
    match node.arg(0) {
        "stderr" => Ok(ErrorTarget::Stderr),
        text if text.starts_with("syslog:") || text.starts_with("memory:") => {
            Err(node.error(format!("error_log to \"{text}\" is not supported: name a file or stderr")))
        }
        path => Ok(ErrorTarget::File(full_path(world, path))),
    }
}

fn error_level(node: &Node) -> Result<ErrorLevel> {
    Ok(match node.args.get(1).map_or("error", |word| &word.text) {
        "debug" => ErrorLevel::Debug,
        "info" => ErrorLevel::Info,
        "notice" => ErrorLevel::Notice,
        "warn" => ErrorLevel::Warn,
        "error" => ErrorLevel::Error,
        "crit" => ErrorLevel::Crit,
        "alert" => ErrorLevel::Alert,
        "emerg" => ErrorLevel::Emerg,
        other => return Err(node.error(format!("invalid log level \"{other}\""))),
    })
}
