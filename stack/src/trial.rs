//! What pooler and balancer say to the operator's own `pgbouncer.ini` and `nginx.conf`, before anything is started.
//! They are asked about filled copies in a folder that is gone afterwards; what they say names the operator's files.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tokio::process::Command;

use crate::conf::{CONSOLE_USERS, userlist};
use crate::logic::addresses::{Endpoint, Route};
use crate::logic::balancer_conf::{Changes, derive, replicas_named};
use crate::logic::plan::{Files, Plan, Secrets};
use crate::logic::template::fill;
use crate::settings::Settings;

/// They read files and resolve names, and nothing else.
const PATIENCE: Duration = Duration::from_secs(20);
/// Stands in for passwords that the first start makes.
const PASSWORD_TO_COME: &str = "not-known-yet";

/// Tries the texts in `texts` with the programs in `programs`.
///
/// # Errors
/// What the programs say to them, in one text.
pub async fn run(settings: &Settings, texts: &Path, programs: &Path) -> Result<()> {
    let folder = tempfile::tempdir().context("a folder for the trial")?;
    let trial = Trial { texts, programs, folder: folder.path() };
    let mut problems = Vec::new();
    if settings.topology.route == Route::Pooled {
        problems.extend(trial.pooler(settings).await?);
    }
    problems.extend(trial.balancer(settings).await?);
    if problems.is_empty() { Ok(()) } else { bail!("{}", problems.join("\n")) }
}

struct Trial<'a> {
    texts: &'a Path,
    programs: &'a Path,
    folder: &'a Path,
}

impl Trial<'_> {
    async fn pooler(&self, settings: &Settings) -> Result<Option<String>> {
        let mut secrets = settings.secrets.0.clone();
        for name in CONSOLE_USERS.map(|(_, secret)| secret).into_iter().chain(["DB_PASSWORD"]) {
            secrets.entry(name).or_insert_with(|| PASSWORD_TO_COME.to_owned());
        }
        let files = Files {
            programs: self.programs.to_owned(),
            current: self.programs.to_owned(),
            run: self.folder.to_owned(),
            conf: self.folder.to_owned(),
            data: self.folder.to_owned(),
            postgres_bin: PathBuf::new(),
            redis_server: PathBuf::new(),
        };
        let plan = Plan { settings: settings.clone(), secrets: Secrets(secrets), files };
        let template = self.texts.join("pgbouncer.ini");
        let ini = fill(&read(&template)?, &|name| plan.pooler_value(name))
            .with_context(|| format!("{}", template.display()))?;
        let copy = self.write("pgbouncer.ini", &ini)?;
        self.write("userlist.txt", &userlist(&plan.settings, &plan.secrets))?;
        let mut command = Command::new(self.programs.join("pooler"));
        command.arg("--check").arg(&copy).env_clear().envs(settings.told.basics());
        said(command, &copy, &template).await
    }

    async fn balancer(&self, settings: &Settings) -> Result<Option<String>> {
        let template = self.texts.join("nginx.conf");
        let text = read(&template)?;
        let server = Endpoint::local(settings.ports.web_base);
        let changes = Changes {
            servers: vec![server; replicas_named(&text)],
            http_port: Some(settings.ports.http),
            pid: Some(self.folder.join("balancer.pid").to_string_lossy().into_owned()),
        };
        let conf = derive(&text, &changes).with_context(|| format!("{}", template.display()))?;
        let copy = self.write("nginx.conf", &conf)?;
        let mut command = Command::new(self.programs.join("balancer"));
        command.arg("-t").arg("-c").arg(&copy).env_clear().envs(settings.told.basics());
        said(command, &copy, &template).await
    }

    fn write(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.folder.join(name);
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
        Ok(path)
    }
}

/// What the program says to the copy when it refuses it, told of the operator's own file.
async fn said(mut command: Command, copy: &Path, template: &Path) -> Result<Option<String>> {
    let program = command.as_std().get_program().to_string_lossy().into_owned();
    command.stdin(Stdio::null()).kill_on_drop(true);
    let ended = tokio::time::timeout(PATIENCE, command.output()).await;
    let output = ended.with_context(|| format!("{program} did not end"))?.with_context(|| program.clone())?;
    if output.status.success() {
        return Ok(None);
    }
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).replace(&*copy.to_string_lossy(), &template.to_string_lossy());
    Ok(Some(text.trim_end().to_owned()))
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))
}
