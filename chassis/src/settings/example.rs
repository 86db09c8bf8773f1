//! A table of settings as text: the section of `config.env.example` that belongs to it.

use std::fmt::Write as _;

use super::{Kind, Setting};

/// The table as lines of `config.env.example`: meaning, allowed values and default of each setting.
///
/// A setting without a default is commented out, so that the example file can be used as it is.
pub fn example(table: &[Setting]) -> String {
    let mut out = String::new();
    for setting in table {
        let allowed = match setting.kind {
            Kind::Text | Kind::Secret => String::new(),
            kind => format!(" [{}]", kind.wanted()),
        };
        let live = if setting.live { " (live)" } else { "" };
        let hash = if setting.default.is_empty() { "#" } else { "" };
        let Setting { name, default, doc, .. } = setting;
        writeln!(out, "# {doc}{allowed}{live}\n{hash}{name}={default}")
            .expect("writing to a String cannot fail");
    }
    out
}
