//! The startup message's parameters: which are kept, which are refused.

use std::sync::Arc;

use pgwire::options;
use pgwire::startup::Startup;

use crate::error::End;
use crate::logic::parameters::{self, Parameters};
use crate::settings::Settings;

use super::refuse;

/// Settings that the client asks for, over those that a server has by itself.
#[derive(Default)]
pub struct Wanted(Vec<(String, String, bool)>);

impl Wanted {
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().rev().find(|(n, ..)| n == name).map(|(_, value, _)| value.as_str())
    }

    pub fn over(&self, base: &Arc<Parameters>) -> Arc<Parameters> {
        let mut all = base.clone();
        for (name, value, is_reported) in &self.0 {
            // Nobody has reported it: a server that does not know it cannot be made to report it.
            let reported = *is_reported && base.get(name).is_some();
            if let Some(more) = all.with(name, value, reported) {
                all = Arc::new(more);
            }
        }
        all
    }
}

/// Sorts the parameters out. A parameter that would be lost is an error, not silence.
pub fn wanted(startup: &Startup, settings: &Settings, extra: &[String]) -> Result<Wanted, End> {
    let mut wanted = Wanted::default();
    for (name, value) in &startup.parameters {
        match name.as_str() {
            "user" | "database" => {}
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
        wanted.0.push((name.to_string(), value.to_string(), true));
        return true;
    }
    if settings.ignore_startup_parameters.contains_ignoring_case(name) {
        return true;
    }
    let Some(name) = parameters::kept(name) else { return false };
    wanted.0.push((name.to_string(), value.to_string(), false));
    true
}
