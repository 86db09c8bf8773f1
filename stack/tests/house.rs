//! The rules of the house that a compiler does not check: floors, pure thinkers, sizes, the map.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

const OURS: [&str; 7] = ["pgwire", "chassis", "pooler", "balancer", "web", "stack", "load_tests"];
const FILE_LINES_MAX: usize = 500;

/// What a thinker must not know: the crates that bring I/O, clocks and logs …
const IMPURE_CRATES: [&str; 9] =
    ["tokio", "hyper", "axum", "redis", "sqlx", "tracing", "chassis", "socket2", "nix"];

/// … and the parts of the standard library that do.
const IMPURE_PATHS: [&str; 8] = [
    "std::fs",
    "std::net::Tcp",
    "std::os",
    "std::thread",
    "std::env",
    "std::process",
    "Instant::now",
    "SystemTime::now",
];

/// What in the type of a static says that it may change.
const CHANGEABLE: [&str; 8] = ["mut ", "Atomic", "Cell", "Lazy", "Lock", "Mutex", "Once", "Semaphore"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the workspace").to_owned()
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|cause| panic!("{}: {cause}", path.display()))
}

/// Every file that git tracks or would track, relative to the root.
fn files() -> Vec<PathBuf> {
    let listed = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .current_dir(root())
        .output()
        .expect("git is installed: the checkout came from it");
    assert!(listed.status.success(), "git ls-files: {}", String::from_utf8_lossy(&listed.stderr));
    let mut files: Vec<PathBuf> = String::from_utf8(listed.stdout)
        .expect("our file names are UTF-8")
        .lines()
        .map(PathBuf::from)
        .collect();
    files.retain(|file| root().join(file).is_file());
    assert!(files.len() > OURS.len(), "git ls-files found almost nothing");
    files
}

fn rust_files() -> Vec<(PathBuf, String)> {
    let rust = files().into_iter().filter(|file| file.extension().is_some_and(|ext| ext == "rs"));
    rust.map(|file| (file.clone(), read(&root().join(&file)))).collect()
}

#[test]
fn no_crate_speaks_tls_but_rustls() {
    let locked = read(&root().join("Cargo.lock"));
    assert!(locked.contains("name = \"rustls\""), "this is the list of our crates");
    for other in ["openssl", "openssl-sys", "native-tls", "boring"] {
        assert!(!locked.contains(&format!("name = \"{other}\"")), "{other} came in by a dependency");
    }
}

/// `tests.rs` beside the code, or `foo_tests.rs`.
fn has_test_name(file: &Path) -> bool {
    file.file_name().is_some_and(|name| name.to_string_lossy().ends_with("tests.rs"))
}

fn is_test_file(file: &Path) -> bool {
    file.components().any(|part| part.as_os_str() == "tests" || part.as_os_str() == "fuzz")
        || has_test_name(file)
}

/// The lines before the file's own test module.
fn without_tests(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().take_while(|(_, line)| !line.trim_start().starts_with("#[cfg(test)]"))
}

fn code_of(line: &str) -> &str {
    line.split("//").next().unwrap_or(line)
}

/// The impure thing that a line of code names, if any.
fn impurity(code: &str) -> Option<&'static str> {
    let named = |crate_name: &str| {
        code.match_indices(crate_name).any(|(at, _)| {
            let starts = !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':');
            let rest = &code[at + crate_name.len()..];
            starts
                && (rest.starts_with("::")
                    || (code.trim_start().starts_with("use ") && rest.starts_with([';', ' '])))
        })
    };
    let by_crate = IMPURE_CRATES.into_iter().find(|name| named(name));
    by_crate.or_else(|| IMPURE_PATHS.into_iter().find(|path| code.contains(path)))
}

#[test]
fn thinkers_and_pgwire_know_no_io_no_clock_and_no_log() {
    let mut found = Vec::new();
    let mut thinkers = 0;
    for (file, text) in rust_files() {
        let pure = file.starts_with("pgwire/src")
            || file.components().any(|part| part.as_os_str() == "logic")
            || file.file_name().is_some_and(|name| name == "logic.rs");
        if !pure || is_test_file(&file) {
            continue;
        }
        thinkers += 1;
        for (number, line) in without_tests(&text) {
            if let Some(what) = impurity(code_of(line)) {
                found.push(format!("{}:{}: {what}", file.display(), number + 1));
            }
        }
    }
    assert!(thinkers > 5, "the check found only {thinkers} thinkers: it looks in the wrong place");
    assert!(found.is_empty(), "impure thinkers:\n{}", found.join("\n"));
}

#[test]
fn the_check_for_impurity_sees_what_it_should() {
    for code in [
        "use tokio::net::TcpStream;",
        "let t = Instant::now();",
        "redis::cmd(x)",
        "use nix;",
        "#[tokio::test]",
    ] {
        assert!(impurity(code).is_some(), "{code}");
    }
    for code in ["plan.redis.port", "use crate::redis::Link;", "fn nix() {}", "let tokio_like = 1;"] {
        assert_eq!(impurity(code), None, "{code}");
    }
}

/// Whether a line of code declares a static that may change, or one for each thread.
fn is_changeable_static(code: &str) -> bool {
    let Some((before, declared)) = code.split_once("static ") else {
        return code.contains("thread_local!");
    };
    let mut words = before.split_whitespace();
    let is_item = words.next().is_none_or(|word| word.starts_with("pub")) && words.next().is_none();
    let named = declared.split('=').next().unwrap_or(declared);
    is_item && CHANGEABLE.iter().any(|word| named.contains(word))
}

#[test]
fn no_static_changes() {
    let mut found = Vec::new();
    for (file, text) in rust_files().into_iter().filter(|(file, _)| !is_test_file(file)) {
        for (number, line) in without_tests(&text).filter(|(_, line)| is_changeable_static(code_of(line))) {
            found.push(format!("{}:{}: {}", file.display(), number + 1, line.trim()));
        }
    }
    assert!(found.is_empty(), "what changes has an owner:\n{}", found.join("\n"));
}

#[test]
fn the_check_for_statics_sees_what_it_should() {
    for code in [
        "static ONE_AT_A_TIME: Semaphore = Semaphore::const_new(1);",
        "    pub(crate) static COUNT: AtomicU64 = AtomicU64::new(0);",
        "static mut X: u8 = 0;",
        "pub static A: OnceLock<Vec<u8>> = OnceLock::new();",
        "thread_local! {",
    ] {
        assert!(is_changeable_static(code), "{code}");
    }
    for code in [
        "static GLOBAL: mimalloc::MiMalloc = mimalloc::MiMalloc;",
        "pub static SETTINGS: &[Setting] = &[",
        "fn lock(word: &'static str) -> Mutex<u8> {",
        "one: &'static Lock,",
        "pub fn give(one: &'static Mutex<u8>) {",
    ] {
        assert!(!is_changeable_static(code), "{code}");
    }
}

#[test]
fn crates_import_downward_only() {
    let allowed: [(&str, &[&str]); 7] = [
        ("pgwire", &[]),
        ("chassis", &[]),
        ("pooler", &["pgwire", "chassis"]),
        ("balancer", &["chassis"]),
        ("web", &["chassis"]),
        ("stack", &["chassis"]),
        ("load_tests", &["chassis", "pgwire"]),
    ];
    for (name, below) in allowed {
        let manifest = read(&root().join(name).join("Cargo.toml"));
        let imported: Vec<&str> = manifest
            .lines()
            .filter_map(|line| line.split(['.', ' ', '=']).next())
            .filter(|word| OURS.contains(word))
            .collect();
        for other in imported {
            assert!(below.contains(&other), "{name} imports {other}: services meet only on the wire");
        }
    }
}

#[test]
fn no_file_is_longer_than_its_reader_can_hold() {
    let rust = rust_files().into_iter().filter(|(file, _)| !is_test_file(file));
    let rust = rust.map(|(file, text)| (file, without_tests(&text).count()));
    let scripts = files().into_iter().filter(|file| file.extension().is_some_and(|ext| ext == "sh"));
    let scripts = scripts.map(|file| (file.clone(), read(&root().join(&file)).lines().count()));
    let long: Vec<String> = rust
        .chain(scripts)
        .filter(|(_, lines)| *lines > FILE_LINES_MAX)
        .map(|(file, lines)| format!("{}: {lines} lines", file.display()))
        .collect();
    assert!(long.is_empty(), "look for the missing noun:\n{}", long.join("\n"));
}

#[test]
fn every_source_file_opens_with_what_it_holds() {
    let bare: Vec<String> = rust_files()
        .into_iter()
        .filter(|(file, text)| !has_test_name(file) && !text.trim_start().starts_with("//!"))
        .map(|(file, _)| file.display().to_string())
        .collect();
    assert!(bare.is_empty(), "no module sentence in:\n{}", bare.join("\n"));
}

#[test]
fn nothing_is_left_for_later_or_switched_off() {
    // Put together here, so that this file does not find itself.
    let words = [["#[ig", "nore"].concat(), ["TO", "DO"].concat(), ["FIX", "ME"].concat()];
    let mut found = Vec::new();
    for (file, text) in rust_files() {
        for (number, line) in text.lines().enumerate() {
            if words.iter().any(|word| line.contains(word.as_str())) {
                found.push(format!("{}:{}: {}", file.display(), number + 1, line.trim()));
            }
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

/// The map in the README: the first word of each line of the block that follows "The map".
fn map() -> BTreeSet<String> {
    let readme = read(&root().join("README.md"));
    let after = readme.split("## The map").nth(1).expect("README.md has a part \"The map\"");
    let block = after.split("```").nth(1).expect("the map is a fenced block");
    block.lines().skip(1).filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
}

#[test]
fn the_map_in_the_readme_is_the_tree_on_disk() {
    let map = map();
    for entry in &map {
        assert!(
            root().join(entry.trim_end_matches('/')).exists(),
            "README.md's map names {entry}, which is not there"
        );
    }
    for file in files() {
        let mut parts = file.components().map(|part| part.as_os_str().to_string_lossy().into_owned());
        let top = parts.next().expect("a file has a name");
        let folder = parts.next().is_some();
        let entry = if folder { format!("{top}/") } else { top };
        assert!(map.contains(&entry), "README.md's map lacks {entry}");
    }
}

#[test]
fn the_example_of_settings_names_what_exists_and_nothing_else() {
    let tables: String = rust_files()
        .into_iter()
        .filter(|(file, _)| file.to_string_lossy().contains("settings") && !is_test_file(file))
        .map(|(_, text)| text)
        .collect();
    let example = read(&root().join("config.env.example"));
    let keys: BTreeSet<&str> = example
        .lines()
        .filter_map(|line| line.trim_start_matches('#').split_once('='))
        .map(|(key, _)| key)
        .filter(|key| {
            !key.is_empty() && key.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_')
        })
        .collect();
    assert!(keys.len() > 20, "config.env.example lists only {} settings", keys.len());
    for key in keys {
        assert!(
            tables.contains(&format!("\"{key}\"")),
            "config.env.example names {key}, which no table of settings has"
        );
    }
}
