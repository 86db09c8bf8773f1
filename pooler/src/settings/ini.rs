//! The form of the configuration file: sections, `key = value` lines, comments, `%include`. It knows no keys.

use std::path::{Path, PathBuf};

use super::problem::Problem;

/// Deep enough for any tree of files; a file that includes itself ends here.
const MAX_INCLUDE_DEPTH: usize = 10;

/// One `key = value` line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub section: String,
    pub key: String,
    pub value: String,
    pub file: PathBuf,
    pub line: usize,
}

impl Entry {
    pub fn problem(&self, what: impl Into<String>) -> Problem {
        Problem { file: self.file.clone(), line: self.line, what: what.into() }
    }
}

/// All entries in order, or what stopped the reading of each file.
#[derive(Clone, Debug, Default)]
pub struct Ini {
    pub entries: Vec<Entry>,
    pub problems: Vec<Problem>,
    /// Sections that were opened, with or without entries.
    pub sections: Vec<String>,
}

/// Reads a file and what it includes. `load` gives the text of a file; tests give it from memory.
pub fn read(path: &Path, load: &dyn Fn(&Path) -> Result<String, String>) -> Ini {
    let mut reader = IniReader { ini: Ini::default(), section: None, load };
    reader.file(path, 0);
    reader.ini
}

struct IniReader<'a> {
    ini: Ini,
    section: Option<String>,
    load: &'a dyn Fn(&Path) -> Result<String, String>,
}

impl IniReader<'_> {
    fn file(&mut self, path: &Path, depth: usize) {
        let text = match (self.load)(path) {
            Ok(text) => text,
            Err(what) => return self.problem(path, 0, what),
        };
        for (index, line) in text.lines().enumerate() {
            self.line(path, index + 1, line.trim(), depth);
        }
    }

    fn problem(&mut self, path: &Path, line: usize, what: impl Into<String>) {
        self.ini.problems.push(Problem { file: path.to_path_buf(), line, what: what.into() });
    }

    fn line(&mut self, path: &Path, number: usize, line: &str, depth: usize) {
        if line.is_empty() || line.starts_with([';', '#']) {
            return;
        }
        if let Some(included) = included(line) {
            if depth >= MAX_INCLUDE_DEPTH {
                let what = format!("%include nested deeper than {MAX_INCLUDE_DEPTH} files");
                return self.problem(path, number, what);
            }
            // Relative to the working directory, as PgBouncer has it.
            return self.file(Path::new(included), depth + 1);
        }
        if let Some(rest) = line.strip_prefix('[') {
            return self.open_section(path, number, rest);
        }
        match (split_entry(line), &self.section) {
            (Some((key, value)), Some(section)) => self.ini.entries.push(Entry {
                section: section.clone(),
                key: key.to_string(),
                value: value.to_string(),
                file: path.to_path_buf(),
                line: number,
            }),
            (Some((key, _)), None) => {
                let what =
                    format!("\"{key}\" stands before any section; put a line such as [pgbouncer] above it");
                self.problem(path, number, what);
            }
            (None, _) => {
                let what = "syntax error: expected key = value, [section], %include FILE, or a comment";
                self.problem(path, number, what);
            }
        }
    }

    fn open_section(&mut self, path: &Path, number: usize, rest: &str) {
        let Some((name, after)) = rest.split_once(']') else {
            return self.problem(path, number, "a section's name has no ] at its end");
        };
        let after = after.trim();
        if !after.is_empty() && !after.starts_with([';', '#']) {
            return self.line(path, number, after, MAX_INCLUDE_DEPTH);
        }
        self.section = Some(name.to_string());
        self.ini.sections.push(name.to_string());
    }
}

fn included(line: &str) -> Option<&str> {
    let rest = line.strip_prefix("%include")?;
    rest.starts_with([' ', '\t']).then(|| rest.trim())
}

/// A key of letters, digits and `_.-*`, or anything in single quotes; then `=`.
fn split_entry(line: &str) -> Option<(&str, &str)> {
    let (key, rest) = match line.strip_prefix('\'') {
        Some(quoted) => quoted.split_once('\'')?,
        None => {
            let is_key = |char: char| char.is_ascii_alphanumeric() || "_.-*".contains(char);
            line.split_at(line.find(|char| !is_key(char)).unwrap_or(line.len()))
        }
    };
    let value = rest.trim_start_matches([' ', '\t']).strip_prefix('=')?;
    (!key.is_empty()).then(|| (key, value.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read_text(text: &str) -> Ini {
        let load = |path: &Path| match path.to_str() {
            Some("main.ini") => Ok(text.to_string()),
            Some("more.ini") => Ok("a = from more\n[databases]\nx = y".to_string()),
            Some("self.ini") => Ok("%include self.ini".to_string()),
            _ => Err("no such file".to_string()),
        };
        read(Path::new("main.ini"), &load)
    }

    fn pairs(ini: &Ini) -> Vec<(&str, &str, &str)> {
        ini.entries.iter().map(|e| (e.section.as_str(), e.key.as_str(), e.value.as_str())).collect()
    }

    #[test]
    fn sections_keys_and_comments_are_read() {
        let text = "\n ; comment\n# comment\n[databases]\n  p0 = host=a  port=1 \n* =\n'odd name' = dbname=x\n\
                    [pgbouncer]\r\nlisten_addr=*\r\nadmin_users = a, b ; c\n";
        let ini = read_text(text);
        assert_eq!(ini.problems, []);
        let expected = [
            ("databases", "p0", "host=a  port=1"),
            ("databases", "*", ""),
            ("databases", "odd name", "dbname=x"),
            ("pgbouncer", "listen_addr", "*"),
            ("pgbouncer", "admin_users", "a, b ; c"),
        ];
        assert_eq!(pairs(&ini), expected);
        assert_eq!(ini.entries[4].line, 10);
    }

    #[test]
    fn an_include_goes_on_in_the_section_it_left() {
        let ini = read_text("[pgbouncer]\n%include more.ini\nz = 1\n");
        let expected = [("pgbouncer", "a", "from more"), ("databases", "x", "y"), ("databases", "z", "1")];
        assert_eq!(pairs(&ini), expected);
        assert_eq!(ini.entries[0].file, Path::new("more.ini"));
    }

    #[test]
    fn what_cannot_be_read_is_named_with_its_line() {
        let problems = |text: &str| {
            let problems = read_text(text).problems;
            problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
        };
        assert!(problems("a = b").starts_with("main.ini:1: \"a\" stands before any section"));
        assert!(problems("[pgbouncer]\nnonsense\n").starts_with("main.ini:2: syntax error"));
        assert!(problems("[pgbouncer\n").contains("no ]"));
        assert!(problems("%include gone.ini").starts_with("gone.ini: no such file"));
        assert!(problems("%include self.ini").contains("nested deeper"));
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_panic(text in "[\\[\\]a='\n;#% \u{e4}]{0,60}") {
            let _ = read_text(&text);
        }
    }
}
