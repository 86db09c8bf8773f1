//! The tables of docs/pooler.md are made from the program: `UPDATE_DOCS=1` writes them, without it they must be equal.

#![allow(clippy::unwrap_used, reason = "a document that cannot be read fails its test loudly")]

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pooler::admin::facts::Facts;
use pooler::logic::parameters::UNREPORTED;
use pooler::metrics;
use pooler::settings::{Changes, DATABASE_KEYS, EntryKey, PEER_KEYS, Settings, TABLE, USER_KEYS};

fn document() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/pooler.md")
}

/// Compares what stands between `<!-- NAME -->` and `<!-- /NAME -->`.
fn check(name: &str, wanted: &str) {
    let text = std::fs::read_to_string(document()).unwrap();
    let (_, rest) = text.split_once(&format!("<!-- {name} -->\n")).unwrap();
    let found = rest.split_once(&format!("<!-- /{name} -->")).unwrap().0;
    if found == wanted {
        return;
    }
    if chassis::settings::environment()("UPDATE_DOCS").is_some() {
        let (before, after) = (format!("<!-- {name} -->\n{found}"), format!("<!-- {name} -->\n{wanted}"));
        std::fs::write(document(), text.replacen(&before, &after, 1)).unwrap();
        return;
    }
    let differs = found.lines().zip(wanted.lines()).find(|(found, wanted)| found != wanted);
    panic!(
        "docs/pooler.md differs from the program in its {name} (UPDATE_DOCS=1 writes it), first: {differs:?}"
    );
}

#[test]
fn the_document_tells_every_key_and_metric_and_option() {
    let mut keys = String::from("| Key | Default | Changes | Meaning |\n|---|---|---|---|\n");
    for key in TABLE {
        let default = match key.default {
            None | Some("") => "–".to_string(),
            Some(default) => format!("`{default}`"),
        };
        let changes = if key.changes == Changes::Live { "at once" } else { "at a start" };
        let doc = key.doc.trim().replace('|', "\\|");
        writeln!(keys, "| `{}` | {default} | {changes} | {doc} |", key.name).unwrap();
    }
    check("keys", &keys);
    check("databases", &entry_rows(DATABASE_KEYS));
    check("users", &entry_rows(USER_KEYS));
    check("peers", &entry_rows(PEER_KEYS));
    check("metrics", &metric_rows());
    let options: Vec<String> = UNREPORTED.iter().map(|name| format!("`{name}`")).collect();
    check("options", &format!("{}\n", options.join(", ")));
}

fn entry_rows<T>(keys: &[EntryKey<T>]) -> String {
    let mut rows = String::from("| Key | Default | Meaning |\n|---|---|---|\n");
    for key in keys {
        writeln!(rows, "| `{}` | {} | {} |", key.name, key.default, key.doc).unwrap();
    }
    rows
}

fn metric_rows() -> String {
    let facts = Facts { settings: Some(Arc::new(Settings::default())), ..Facts::default() };
    let page = metrics::render(&facts);
    let mut rows = String::from("| Metric | Kind | Meaning |\n|---|---|---|\n");
    let mut help = "";
    for line in page.lines() {
        if let Some(text) = line.strip_prefix("# HELP ") {
            help = text.split_once(' ').unwrap().1;
        } else if let Some(text) = line.strip_prefix("# TYPE ") {
            let (name, kind) = text.split_once(' ').unwrap();
            writeln!(rows, "| `{name}` | {kind} | {help} |").unwrap();
        }
    }
    rows
}
