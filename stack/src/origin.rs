//! Where settings come from: `config.env`, the environment, the command line. What is wrong with them is told at once,
//! the web service's part of it too: that knows its own settings, and is asked by its `check` verb.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use chassis::settings::{EnvFile, Errors};
use tokio::process::Command;

use crate::identity::RunAs;
use crate::logic::addresses::Place;
use crate::logic::names::nearest;
use crate::logic::ports::{clashes, impossible, listening};
use crate::postgres;
use crate::settings::{
    Overrides, Reader, Settings, Told, has_secret, is_known, known_names, unknown_to_the_pooler,
};

/// The web service reads its settings and nothing else.
const WEB_PATIENCE: Duration = Duration::from_secs(10);
/// Stands in for a key that the first start makes, so that its absence is no error.
const KEY_TO_COME: &str = "0000000000000000000000000000000000000000000000000000000000000000";

pub type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Where settings come from, so that they can be read again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    pub dir: PathBuf,
    pub config: Option<PathBuf>,
    pub overrides: Overrides,
    /// `PATH`, in which programs are looked for.
    pub search_path: String,
}

/// Whose ports the settings name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ports {
    /// One machine's: no two parts can have the same.
    Shared,
    /// Each part's own, in a container of its own.
    Apart,
}

/// Settings that every part will take.
#[derive(Debug)]
pub struct Checked {
    pub settings: Settings,
    /// What is allowed but probably not meant, a line each.
    pub warnings: Vec<String>,
}

impl Origin {
    /// The stack's own settings, for verbs that start nothing.
    ///
    /// # Errors
    /// Everything that is wrong with them.
    pub fn read(&self, outer: Environment<'_>) -> Result<Settings> {
        let file = self.file()?;
        let read = Settings::read(&file.values, outer, self.overrides);
        let problems = problems_of(&file, read.as_ref().err());
        match read {
            Ok(settings) if problems.is_empty() => Ok(settings),
            _ => bail!("{}{}", self.headline(), list(&placed(problems, &file, outer))),
        }
    }

    /// The settings of the stack and of the web service, whose program is in `programs`.
    ///
    /// # Errors
    /// Everything that is wrong, in one text; the web service cannot be asked.
    pub async fn check(&self, outer: Environment<'_>, programs: &Path, ports: Ports) -> Result<Checked> {
        let file = self.file()?;
        let read = Settings::read(&file.values, outer, self.overrides);
        let mut problems = problems_of(&file, read.as_ref().err());
        if let Ok(settings) = &read {
            problems.extend(settings.lacking());
            problems.extend(impossible(settings.ports, settings.replicas));
            if ports == Ports::Shared {
                problems.extend(clashes(&listening(settings, settings.replicas)));
                problems.extend(self.lacking_here(settings));
            } else {
                problems.extend(unknown_to_the_pooler(&file.values, outer));
            }
        }
        for problem in web_problems(&programs.join("web"), &file, outer).await? {
            if !problems.contains(&problem) {
                problems.push(problem);
            }
        }
        let warnings = unknown_names(&file);
        match read {
            Ok(settings) if problems.is_empty() => Ok(Checked { settings, warnings }),
            _ => {
                let mut lines = placed(problems, &file, outer);
                lines.extend(warnings.into_iter().map(|text| format!("{text} (a warning)")));
                bail!("{}{}", self.headline(), list(&lines))
            }
        }
    }

    /// What the parts need of this machine and do not find.
    fn lacking_here(&self, settings: &Settings) -> Vec<String> {
        let user = RunAs::find(settings.user.as_deref()).map(drop);
        let programs = match settings.topology.primary {
            Place::Ours => {
                postgres::find_programs(settings.postgres_bin.as_deref(), &self.search_path).map(drop)
            }
            Place::Theirs(_) => Ok(()),
        };
        [user, programs].into_iter().filter_map(Result::err).map(|problem| problem.to_string()).collect()
    }

    fn file(&self) -> Result<EnvFile> {
        Ok(self.config.as_deref().map(EnvFile::read).transpose()?.unwrap_or_default())
    }

    fn headline(&self) -> String {
        match &self.config {
            Some(path) => format!("settings of {} and the environment:", path.display()),
            None => "settings of the environment:".to_owned(),
        }
    }
}

fn problems_of(file: &EnvFile, read: Option<&Errors>) -> Vec<String> {
    file.problems.iter().chain(read.into_iter().flat_map(|errors| &errors.problems)).cloned().collect()
}

fn list(lines: &[String]) -> String {
    lines.iter().map(|line| format!("\n  {line}")).collect()
}

/// A problem of a setting that stands in the file begins with the line's place.
fn placed(problems: Vec<String>, file: &EnvFile, outer: Environment<'_>) -> Vec<String> {
    let place_of = |problem: &str| {
        let name = problem.split_once(':')?.0;
        let is_files = outer(name).is_none_or(|text| text.is_empty());
        file.places.get(name).filter(|_| is_files)
    };
    let place = |problem: String| match place_of(&problem) {
        Some(place) => format!("{place}: {problem}"),
        None => problem,
    };
    problems.into_iter().map(place).collect()
}

/// A name that no part knows may be for a program beside the stack that reads the same file: so it is no error.
fn unknown_names(file: &EnvFile) -> Vec<String> {
    let unknown = file.places.iter().filter(|(name, _)| !is_known(name));
    let say = |(name, place): (&String, &String)| match nearest(name, known_names()) {
        Some(meant) => format!("{place}: no part knows {name}; is {meant} meant?"),
        None => format!("{place}: no part knows {name}"),
    };
    unknown.map(say).collect()
}

/// What the web service says to its part of the settings.
async fn web_problems(web: &Path, file: &EnvFile, outer: Environment<'_>) -> Result<Vec<String>> {
    let mut command = Command::new(web);
    let told = Told::read(&file.values, outer);
    command.arg("check").stdin(Stdio::null()).kill_on_drop(true);
    command.env_clear().envs(told.basics()).envs(told.of(Reader::Web));
    if !has_secret("SECRET_KEY", &file.values, outer) {
        command.env("SECRET_KEY", KEY_TO_COME);
    }
    let say = || format!("{} check", web.display());
    let ended = tokio::time::timeout(WEB_PATIENCE, command.output()).await.with_context(say)?;
    let output = ended.with_context(say)?;
    let said = String::from_utf8_lossy(&output.stdout);
    let problems: Vec<String> = said.lines().map(str::to_owned).collect();
    if output.status.success() || !problems.is_empty() {
        return Ok(if output.status.success() { Vec::new() } else { problems });
    }
    bail!("{}: {}: {}", say(), output.status, String::from_utf8_lossy(&output.stderr).trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file_of(pairs: &[(&str, &str)]) -> EnvFile {
        let mut file = EnvFile::default();
        for (number, (name, value)) in pairs.iter().enumerate() {
            file.values.insert((*name).to_owned(), (*value).to_owned());
            file.places.insert((*name).to_owned(), format!("config.env:{}", number + 1));
        }
        file
    }

    #[test]
    fn a_name_that_no_part_knows_is_told_with_its_place_and_the_one_that_is_meant() {
        let pairs =
            [("HTTP_PORT", "1"), ("HTPP_PORT", "2"), ("SSL_CERTS", "x"), ("SECRET_KEY_FILE", "/run/key")];
        let expected = [
            "config.env:2: no part knows HTPP_PORT; is HTTP_PORT meant?",
            "config.env:3: no part knows SSL_CERTS",
        ];
        assert_eq!(unknown_names(&file_of(&pairs)), expected);
        assert_eq!(unknown_names(&file_of(&[("RESPONDER_URL", "x"), ("STACK_USER", "y")])), [""; 0]);
    }

    #[test]
    fn a_problem_has_the_place_of_its_line_unless_the_environment_wins() {
        let file = file_of(&[("HTTP_PORT", "x")]);
        let problems = || vec!["HTTP_PORT: no".to_owned(), "DB_PORT: no".to_owned()];
        let here = placed(problems(), &file, &|_| None);
        assert_eq!(here, ["config.env:1: HTTP_PORT: no", "DB_PORT: no"]);
        let outer = placed(problems(), &file, &|name| (name == "HTTP_PORT").then(|| "y".to_owned()));
        assert_eq!(outer, ["HTTP_PORT: no", "DB_PORT: no"]);
    }
}
