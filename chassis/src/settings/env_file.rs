//! `config.env`: lines of `KEY=VALUE` as Docker and shells read them. It does not expand `$NAME`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::Errors;

/// Why a file of settings could not be read at all.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {}: {cause}", .path.display())]
pub struct Unreadable {
    path: PathBuf,
    cause: std::io::Error,
}

/// What a file of settings holds, and what is wrong with it.
#[derive(Default)]
pub struct EnvFile {
    pub values: BTreeMap<String, String>,
    /// Where each key stands, as `FILE:LINE`.
    pub places: BTreeMap<String, String>,
    /// Lines that are no assignments, each as `FILE:LINE: what is wrong`. Their text is left out: it may hold a secret.
    pub problems: Vec<String>,
}

impl EnvFile {
    /// Reads `KEY=VALUE` lines. Blank lines and lines that begin with `#` are skipped, `export ` before a
    /// key is allowed, a value may stand in single or double quotes. The last of two equal keys wins.
    ///
    /// # Errors
    /// The file cannot be read. Bad lines are no error here: they are told together with what else is wrong.
    pub fn read(path: &Path) -> Result<Self, Unreadable> {
        let text =
            std::fs::read_to_string(path).map_err(|cause| Unreadable { path: path.to_owned(), cause })?;
        Ok(Self::parse(&text, path))
    }

    /// As `read`, where the text is at hand already; `path` names it in places.
    pub fn parse(text: &str, path: &Path) -> Self {
        let mut file = Self::default();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let place = format!("{}:{}", path.display(), index + 1);
            match assignment(line) {
                Ok((key, value)) => {
                    file.values.insert(key.to_owned(), value.to_owned());
                    file.places.insert(key.to_owned(), place);
                }
                Err(what) => file.problems.push(format!("{place}: {what}")),
            }
        }
        file
    }

    /// The values, for readers that have nothing else to complain about.
    ///
    /// # Errors
    /// All lines that are no assignments.
    pub fn into_values(self) -> Result<BTreeMap<String, String>, Errors> {
        if self.problems.is_empty() { Ok(self.values) } else { Err(Errors { problems: self.problems }) }
    }
}

fn assignment(line: &str) -> Result<(&str, &str), &'static str> {
    let line = line.strip_prefix("export ").unwrap_or(line);
    let (key, value) = line.split_once('=').ok_or("expected KEY=VALUE; comments begin with #")?;
    let key = key.trim_end();
    let name_like = key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if key.is_empty() || !name_like || key.as_bytes()[0].is_ascii_digit() {
        return Err("a key holds letters, digits and _ only and does not begin with a digit");
    }
    Ok((key, unquoted(value.trim())?))
}

fn unquoted(value: &str) -> Result<&str, &'static str> {
    let Some(quote) = value.chars().next().filter(|c| matches!(c, '"' | '\'')) else { return Ok(value) };
    value[1..]
        .strip_suffix(quote)
        .filter(|_| value.len() >= 2)
        .ok_or("the quote that opens the value is not closed at its end")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_assignment_takes_quotes_and_export() {
        assert_eq!(assignment("A=b c"), Ok(("A", "b c")));
        assert_eq!(assignment("export A_1='x # y'"), Ok(("A_1", "x # y")));
        assert_eq!(assignment("A=\"\""), Ok(("A", "")));
        assert_eq!(assignment("URL=postgres://u:p=q@h/d?x=1"), Ok(("URL", "postgres://u:p=q@h/d?x=1")));
    }

    #[test]
    fn a_line_that_is_no_assignment_is_refused() {
        assert!(assignment("novalue").is_err());
        assert!(assignment("1A=x").is_err());
        assert!(assignment("A B=x").is_err());
        assert!(assignment("A='open").is_err());
        assert!(assignment("A='").is_err());
    }

    #[test]
    fn every_bad_line_is_named_by_its_place_and_hides_no_good_one() {
        let path = std::env::temp_dir().join(format!("chassis-env-{}", std::process::id()));
        std::fs::write(&path, "A=1\n# fine\nhunter2\nB='x\nA=2\n").unwrap();
        let file = EnvFile::read(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let at = |line: usize| format!("{}:{line}", path.display());
        assert_eq!(file.values, [("A".to_owned(), "2".to_owned())].into());
        assert_eq!(file.places, [("A".to_owned(), at(5))].into());
        let [first, second] = &file.problems[..] else { panic!("{:?}", file.problems) };
        assert!(first.starts_with(&format!("{}: expected KEY=VALUE", at(3))), "{first}");
        assert!(second.starts_with(&format!("{}: the quote", at(4))), "{second}");
        assert!(!first.contains("hunter2"), "{first}");
        assert_eq!(file.into_values().unwrap_err().problems.len(), 2);
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let error = EnvFile::read(Path::new("/nowhere/config.env")).err().map(|e| e.to_string());
        assert!(error.is_some_and(|text| text.contains("/nowhere/config.env")));
    }
}
