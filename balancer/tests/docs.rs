//! The tables of docs/balancer.md are made from the program: `UPDATE_DOCS=1` writes them, without it they must be equal.

#![allow(clippy::unwrap_used, reason = "a document that cannot be read fails its test loudly")]

mod common;

use std::fmt::Write as _;
use std::path::Path;

use balancer::conf::table::{self, Directive};
use common::{Balancer, Client};

fn document() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/balancer.md")
}

/// What stands between `<!-- NAME -->` and `<!-- /NAME -->`.
fn section<'d>(document: &'d str, name: &str) -> &'d str {
    let (_, rest) = document.split_once(&format!("<!-- {name} -->\n")).unwrap();
    rest.split_once(&format!("<!-- /{name} -->")).unwrap().0
}

fn check(name: &str, wanted: &str) {
    let text = std::fs::read_to_string(document()).unwrap();
    let found = section(&text, name);
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
        "docs/balancer.md differs from the program in its {name} (UPDATE_DOCS=1 writes it), first: {differs:?}"
    );
}

fn arguments(directive: &Directive) -> String {
    let (least, most) = (*directive.args.start(), *directive.args.end());
    let count = match (least, most) {
        (0, usize::MAX) => "any".into(),
        (least, usize::MAX) => format!("{least} or more"),
        (least, most) if least == most => least.to_string(),
        (least, most) => format!("{least} to {most}"),
    };
    if directive.is_block() { format!("{count}, block") } else { count }
}

fn row(directive: &Directive) -> String {
    let default = match directive.default {
        "" => "–".into(),
        default => format!("`{default}`"),
    };
    let doc = directive.doc.replace('|', "\\|");
    format!(
        "| `{}` | {} | {} | {default} | {doc} |\n",
        directive.name,
        directive.contexts.names(),
        arguments(directive)
    )
}

#[test]
fn the_tables_are_those_of_the_program() {
    check_directives();
    check_metrics();
}

fn check_directives() {
    let mut rows: Vec<&Directive> = table::all().collect();
    rows.sort_by_key(|directive| directive.name);
    let mut wanted =
        String::from("| directive | where | arguments | default | what it does |\n|---|---|---|---|---|\n");
    rows.iter().for_each(|directive| wanted.push_str(&row(directive)));
    check("directives", &wanted);
}

fn check_metrics() {
    let mut wanted = String::from("| metric | kind | meaning |\n|---|---|---|\n");
    for (name, kind, help) in described(&scraped()) {
        let _ = writeln!(wanted, "| `{name}` | {kind} | {help} |");
    }
    check("metrics", &wanted);
}

/// What a scraper gets from a balancer that has just started.
fn scraped() -> String {
    let ops = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let balancer = Balancer::start_with(&format!("ops_listen {ops};"), "server { listen 127.0.0.1:PORT; }");
    let text = Client::connect(ops.port()).get("/metrics").body;
    drop(balancer);
    text
}

/// Name, kind and meaning of each metric.
fn described(text: &str) -> Vec<(String, &str, &str)> {
    let mut found: Vec<(String, &str, &str)> = Vec::new();
    for line in text.lines() {
        let mut words = line.splitn(4, ' ').skip(1);
        match (words.next(), words.next(), words.next()) {
            (Some("HELP"), Some(name), Some(help)) => {
                found.push((name.into(), "", help.trim_end_matches('.')));
            }
            (Some("TYPE"), Some(name), Some(kind)) => {
                found.iter_mut().filter(|known| known.0 == name).for_each(|known| known.1 = kind);
            }
            _ => {}
        }
    }
    for (name, kind, _) in &mut found {
        if *kind == "counter" {
            name.push_str("_total");
        }
    }
    found
}
