//! From files to `Settings`: the configuration file, then the files it names. All problems are found in one go.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::entries;
use super::hba_file;
use super::ini::{self, Entry, Ini};
use super::problem::{Errors, Problem, SetError};
use super::table::{Changes, Key, Keys};
use super::userlist;
use super::values::AuthType;
use super::{Settings, check};
use crate::logic::hba;

/// How files are read; tests read from memory.
pub type LoadFile<'a> = &'a dyn Fn(&Path) -> Result<String, String>;

fn from_disk(path: &Path) -> Result<String, String> {
    let bytes = std::fs::read(path).map_err(|error| format!("could not open: {error}"))?;
    String::from_utf8(bytes)
        .map_err(|error| format!("is not UTF-8 at byte {}", error.utf8_error().valid_up_to()))
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            version: 0,
            keys: Keys::default(),
            databases: BTreeMap::new(),
            autodb: None,
            users: BTreeMap::new(),
            credentials: BTreeMap::new(),
            peers: BTreeMap::new(),
            hba: Arc::default(),
            warnings: Vec::new(),
            path: PathBuf::new(),
        }
    }
}

impl Settings {
    /// Reads the configuration file and all files it names.
    pub fn load(path: &Path) -> Result<Settings, Errors> {
        Settings::load_with(path, &from_disk)
    }

    pub fn load_with(path: &Path, load: LoadFile<'_>) -> Result<Settings, Errors> {
        let ini = ini::read(path, load);
        let mut loader =
            Loader { settings: Settings::default(), problems: Vec::new(), keys: BTreeMap::new() };
        loader.settings.path = path.to_path_buf();
        loader.settings.keys.conffile = Some(path.display().to_string());
        loader.take(ini, path);
        loader.read_auth_files(load);
        if loader.problems.is_empty() { Ok(loader.settings) } else { Err(Errors(loader.problems)) }
    }

    /// RELOAD: reads `conffile` again. What takes effect only at the start keeps its value; a warning tells.
    pub fn reload(&self) -> Result<Settings, Errors> {
        let path = self.keys.conffile.as_ref().map_or(self.path.clone(), PathBuf::from);
        let mut fresh = Settings::load(&path)?;
        fresh.version = self.version + 1;
        for key in super::TABLE.iter().filter(|key| key.changes == Changes::AtStart) {
            let (old, new) = (key.show(&self.keys), key.show(&fresh.keys));
            if old == new {
                continue;
            }
            fresh.warnings.push(format!("{} takes a new value only at a restart", key.name));
            let keep = key.set(&mut fresh.keys, old.as_deref().unwrap_or(""));
            debug_assert!(keep.is_ok(), "{} does not read its own form", key.name);
        }
        Ok(fresh)
    }

    /// SET: the same settings with one key changed, and the files read that it names.
    pub fn with_set(&self, name: &str, value: &str) -> Result<Settings, SetError> {
        let key = Key::find(name).ok_or_else(|| SetError::Unknown(name.to_string()))?;
        if key.changes == Changes::AtStart {
            return Err(SetError::AtStart(name.to_string()));
        }
        let wrong = |what: String| SetError::Value { name: name.to_string(), what };
        let mut settings = Settings { version: self.version + 1, warnings: Vec::new(), ..self.clone() };
        key.set(&mut settings.keys, value).map_err(wrong)?;
        check::value(key.name, value, &settings.keys).map_err(wrong)?;
        let mut loader = Loader { settings, problems: Vec::new(), keys: BTreeMap::new() };
        if matches!(name, "auth_type" | "auth_file" | "auth_hba_file" | "auth_ident_file") {
            loader.read_auth_files(&from_disk);
        }
        match loader.problems.first() {
            None => Ok(loader.settings),
            Some(problem) => Err(wrong(problem.to_string())),
        }
    }

    /// The users of auth_file, read again; RELOAD does it with the rest.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

struct Loader {
    settings: Settings,
    problems: Vec<Problem>,
    /// Where each key of `[pgbouncer]` was given, for problems found later.
    keys: BTreeMap<String, Entry>,
}

impl Loader {
    fn take(&mut self, ini: Ini, path: &Path) {
        self.problems.extend(ini.problems);
        if self.problems.is_empty() && !ini.sections.iter().any(|name| name == "pgbouncer") {
            let what = "the section [pgbouncer] is missing".to_string();
            self.problems.push(Problem { file: path.to_path_buf(), line: 0, what });
        }
        for entry in ini.entries {
            if let Err(what) = self.take_entry(&entry) {
                self.problems.push(entry.problem(what));
            }
            if entry.section == "pgbouncer" {
                self.keys.insert(entry.key.clone(), entry);
            }
        }
    }

    fn take_entry(&mut self, entry: &Entry) -> Result<(), String> {
        let Entry { key, value, .. } = entry;
        let settings = &mut self.settings;
        match entry.section.as_str() {
            "pgbouncer" => set_key(&mut settings.keys, key, value)?,
            "databases" if key == "*" => {
                settings.autodb =
                    Some(Arc::new(entries::database(key, value).map_err(check::with_comment_hint(value))?));
            }
            "databases" => {
                let database = entries::database(key, value).map_err(check::with_comment_hint(value))?;
                settings.databases.insert(key.clone(), Arc::new(database));
            }
            "users" => {
                let user = entries::user(value).map_err(check::with_comment_hint(value))?;
                settings.users.insert(key.clone(), user);
            }
            "peers" => {
                let peer = entries::peer(key, value).map_err(check::with_comment_hint(value))?;
                settings.peers.insert(peer.id, peer);
            }
            other => {
                return Err(format!(
                    "there is no section [{other}]: sections are pgbouncer, databases, users, peers"
                ));
            }
        }
        Ok(())
    }

    /// auth_file always; the HBA and ident files when auth_type is hba.
    fn read_auth_files(&mut self, load: LoadFile<'_>) {
        if let Some(path) = self.settings.auth_file.clone() {
            match load(Path::new(&path)) {
                Ok(text) => self.take_users(&path, &text),
                // PgBouncer starts without it; the users may all come from auth_query.
                Err(what) => self.settings.warnings.push(format!("auth_file {path}: {what}")),
            }
        }
        self.settings.hba = Arc::default();
        if self.settings.auth_type == AuthType::Hba {
            self.read_hba(load);
        }
    }

    fn take_users(&mut self, path: &str, text: &str) {
        let (users, wrong) = userlist::parse(text);
        self.settings.credentials = users;
        for (line, what) in wrong {
            self.settings.warnings.push(format!("{path}:{line}: {what}"));
        }
    }

    fn read_hba(&mut self, load: LoadFile<'_>) {
        let path = self.settings.auth_hba_file.clone();
        if path.is_empty() {
            return self.key_problem("auth_type", "auth_type hba needs auth_hba_file");
        }
        let mut warnings = Vec::new();
        let mut maps = Vec::new();
        if let Some(ident_path) = self.settings.auth_ident_file.clone() {
            match load(Path::new(&ident_path)) {
                Ok(text) => maps = hba_file::parse_maps(&ident_path, &text, &mut warnings),
                Err(what) => return self.key_problem("auth_ident_file", &format!("{ident_path}: {what}")),
            }
        }
        match load(Path::new(&path)) {
            Ok(text) => {
                let mut reader = hba_file::HbaReader { path: Path::new(&path), maps: &maps, load, warnings };
                let rules = reader.rules(&text);
                self.settings.warnings.append(&mut reader.warnings);
                self.settings.hba = Arc::new(hba::Rules { rules, maps });
            }
            Err(what) => self.key_problem("auth_hba_file", &format!("{path}: {what}")),
        }
    }

    fn key_problem(&mut self, key: &str, what: &str) {
        let problem = match self.keys.get(key) {
            Some(entry) => entry.problem(what),
            None => Problem { file: self.settings.path.clone(), line: 0, what: what.to_string() },
        };
        self.problems.push(problem);
    }
}

/// One key of `[pgbouncer]`.
fn set_key(keys: &mut Keys, name: &str, value: &str) -> Result<(), String> {
    let key = Key::find(name).ok_or_else(|| check::unknown_key(name))?;
    let hint = check::with_comment_hint(value);
    key.set(keys, value).map_err(|what| hint(format!("{name}: {what}")))?;
    check::value(name, value, keys).map_err(|what| hint(format!("{name}: {what}")))
}

#[cfg(test)]
mod tests;
