//! `config.env`: lines of `KEY=VALUE` as Docker and shells read them. It does not expand `$NAME`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Why a file of settings could not be read.
#[derive(Debug, thiserror::Error)]
pub enum EnvFileError {
    #[error("cannot read {}: {cause}", .path.display())]
    Unreadable { path: PathBuf, cause: std::io::Error },
    /// The line's text is left out: it may hold a secret.
    #[error("{}:{line}: {what}", .path.display())]
    BadLine { path: PathBuf, line: usize, what: &'static str },
}

/// Reads `KEY=VALUE` lines. Blank lines and lines that begin with `#` are skipped, `export ` before a
/// key is allowed, a value may stand in single or double quotes. The last of two equal keys wins.
///
/// # Errors
/// The file cannot be read, or a line is no assignment; the error names file and line.
pub fn read_env_file(path: &Path) -> Result<BTreeMap<String, String>, EnvFileError> {
    let text = std::fs::read_to_string(path)
        .map_err(|cause| EnvFileError::Unreadable { path: path.to_owned(), cause })?;
    let mut found = BTreeMap::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let bad = |what| EnvFileError::BadLine { path: path.to_owned(), line: index + 1, what };
        let (key, value) = assignment(line).map_err(bad)?;
        found.insert(key.to_owned(), value.to_owned());
    }
    Ok(found)
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
    fn an_error_names_file_and_line_but_not_the_text() {
        let path = std::env::temp_dir().join(format!("chassis-env-{}", std::process::id()));
        std::fs::write(&path, "A=1\n# fine\nhunter2\n").unwrap();
        let error = read_env_file(&path).unwrap_err().to_string();
        std::fs::remove_file(&path).unwrap();
        assert!(error.contains(":3: expected KEY=VALUE"), "{error}");
        assert!(!error.contains("hunter2"), "{error}");
    }
}
