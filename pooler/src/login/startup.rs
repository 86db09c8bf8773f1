//! The startup message's parameters: which are kept, which are refused.

use std::sync::Arc;

use pgwire::options;
use pgwire::startup::{Replication, Startup};

use crate::clients::Endpoint;
use crate::error::End;
use crate::logic::parameters::{self, Parameters};
use crate::settings::Settings;

use super::refuse;

/// Settings that the client asks for, over those that a server has by itself.
#[derive(Default)]
pub struct Wanted {
    /// Name, value, and whether Postgres reports it.
    settings: Vec<(String, String, bool)>,
    /// Of a replication client, as they came: Postgres judges them itself.
    options: Option<String>,
}

impl Wanted {
    pub fn get(&self, name: &str) -> Option<&str> {
        self.settings.iter().rev().find(|(n, ..)| n == name).map(|(_, value, _)| value.as_str())
    }

    pub fn over(&self, base: &Arc<Parameters>) -> Arc<Parameters> {
        let mut all = base.clone();
        for (name, value, is_reported) in &self.settings {
            // Nobody has reported it: a server that does not know it cannot be made to report it.
            let reported = *is_reported && base.get(name).is_some();
            if let Some(more) = all.with(name, value, reported) {
                all = Arc::new(more);
            }
        }
        all
    }

    /// What goes into the startup message of a connection that serves this client alone.
    pub fn for_startup(&self) -> Vec<(String, String)> {
        let settings = self.settings.iter().map(|(name, value, _)| (name.clone(), value.clone()));
        settings.chain(self.options.iter().map(|text| ("options".to_string(), text.clone()))).collect()
    }

    /// application_name_add_host: servers show where the client sits.
    pub fn add_host(&mut self, peer: Endpoint) {
        let name = self.get("application_name").unwrap_or("app");
        let name = format!("{name} - {peer}");
        self.settings.push(("application_name".to_string(), name, true));
    }
}

/// Sorts the parameters out. A parameter that would be lost is an error, not silence.
pub fn wanted(startup: &Startup, settings: &Settings, extra: &[String]) -> Result<Wanted, End> {
    let mut wanted = Wanted::default();
    let replicates = startup.get("replication").and_then(Replication::parse).unwrap_or_default();
    for (name, value) in &startup.parameters {
        match name.as_str() {
            "user" | "database" | "replication" => {}
            "options" if replicates != Replication::None => wanted.options = Some(value.clone()),
            "options" => take_options(&mut wanted, value, settings, extra)?,
            name => {
                if !take(&mut wanted, name, value, settings, extra) {
                    return Err(refuse(&format!("unsupported startup parameter: {name}")));
                }
            }
        }
    }
    Ok(wanted)
}

fn take_options(wanted: &mut Wanted, text: &str, settings: &Settings, extra: &[String]) -> Result<(), End> {
    let parsed = options::parse(text).map_err(|_| {
        refuse("unsupported options startup parameter: only '-c config=val' and '--config=val' are allowed")
    })?;
    // Even then what is known counts.
    let ignores_unknown = settings.ignore_startup_parameters.contains("options");
    for (name, value) in parsed {
        if !take(wanted, &name, &value, settings, extra) && !ignores_unknown {
            return Err(refuse(&format!("unsupported startup parameter in options: {name}")));
        }
    }
    Ok(())
}

fn take(wanted: &mut Wanted, name: &str, value: &str, settings: &Settings, extra: &[String]) -> bool {
    if let Some((name, _)) = parameters::tracked(name, extra) {
        wanted.settings.push((name.to_string(), value.to_string(), true));
        return true;
    }
    if settings.ignore_startup_parameters.contains_ignoring_case(name) {
        return true;
    }
    let Some(name) = parameters::kept(name) else { return false };
    wanted.settings.push((name.to_string(), value.to_string(), false));
    true
}
