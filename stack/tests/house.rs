//! The rules of the house that a compiler does not check: floors, pure thinkers, sizes, the map.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

const OURS: [&str; 7] = ["pgwire", "chassis", "pooler", "balancer", "web", "stack", "load_tests"];
const FILE_LINES_MAX: usize = 500;

/// The dependencies that a thinker may name: formats, arithmetic, and protocols over bytes in memory. A new dependency
/// is not among them until somebody has looked.
const PURE_CRATES: [&str; 28] = [
    "base64",
    "bytes",
    "crc32fast",
    "hdrhistogram",
    "hmac",
    "http",
    "httpdate",
    "ipnet",
    "md5",
    "memchr",
    "pbkdf2",
    "percent_encoding",
    "pgwire",
    "proptest",
    "pwhash",
    "regex",
    "ring",
    "serde",
    "serde_json",
    "sha2",
    "smallvec",
    "stringprep",
    "subtle",
    "thiserror",
    "time",
    "tungstenite",
    "utoipa",
    "uuid",
];

/// What a thinker must not name of the standard library …
const IMPURE_PATHS: [&str; 13] = [
    "std::fs",
    "std::io",
    "std::os",
    "std::thread",
    "std::env",
    "std::process",
    ".elapsed()",
    "print!(",
    "println!(",
    "dbg!(",
    // All of it: what is used of it is not named then.
    "use std;",
    "use std as ",
    "use std::*",
];

/// What in the type of a static says that it may change.
const CHANGEABLE: [&str; 8] = ["mut ", "Atomic", "Cell", "Lazy", "Lock", "Mutex", "Once", "Semaphore"];

/// … and, of whatever crate, the doors to the network, to clocks and to chance.
const IMPURE_NAMES: [&str; 14] = [
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "UnixStream",
    "UnixListener",
    "ToSocketAddrs",
    "now_utc",
    "now_local",
    "now_v1",
    "now_v6",
    "now_v7",
    "new_v4",
    "SystemRandom",
    "current_local_offset",
];

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

/// `tests.rs` beside the code, or `foo_tests.rs`.
fn has_test_name(file: &Path) -> bool {
    file.file_name().is_some_and(|name| name.to_string_lossy().ends_with("tests.rs"))
}

fn is_test_file(file: &Path) -> bool {
    file.components().any(|part| part.as_os_str() == "tests" || part.as_os_str() == "fuzz")
        || has_test_name(file)
}

/// The lines but those of items under `#[cfg(test)]`, laid out as rustfmt does: an item ends where its line does, or
/// with a bracket as far in as it began.
fn without_tests(text: &str) -> impl Iterator<Item = (usize, &str)> {
    const MARK: &str = "#[cfg(test)]";
    let indent = |line: &str| line.len() - line.trim_start().len();
    let mut lines = text.lines().enumerate();
    std::iter::from_fn(move || {
        loop {
            let (number, line) = lines.next()?;
            if !line.trim_start().starts_with(MARK) {
                return Some((number, line));
            }
            let depth = indent(line);
            let own = line.trim_start().trim_start_matches(MARK).trim_start();
            let mut is_first = true;
            let items = std::iter::once(own).chain(lines.by_ref().map(|(_, line)| line));
            for line in items {
                let code = code_of(line).trim_end();
                let is_prelude = code.trim_start().starts_with("#[") || code.is_empty();
                if is_first && !is_prelude && code.ends_with([';', '}', ',']) {
                    break;
                }
                is_first &= is_prelude;
                if !is_first && indent(line) == depth && code.trim_start().starts_with('}') {
                    break;
                }
            }
        }
    })
}

fn code_of(line: &str) -> &str {
    line.split("//").next().unwrap_or(line)
}

fn is_word_at(code: &str, at: usize, word: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    !code[..at].ends_with(is_part) && !code[at + word.len()..].starts_with(is_part)
}

/// The crates that the manifests name and a thinker may not.
fn impure_crates() -> BTreeSet<String> {
    let manifests = OURS.iter().map(|name| read(&root().join(name).join("Cargo.toml")));
    let mut named: BTreeSet<String> = OURS.iter().map(|name| (*name).to_owned()).collect();
    for manifest in manifests {
        let sections = manifest.split("\n[").filter(|section| section.contains("dependencies]\n"));
        let lines = sections.flat_map(|section| section.lines().skip(1));
        let names = lines.filter_map(|line| line.split(['.', ' ', '=']).next());
        // The one crate whose library has another name.
        let names = names.map(|name| if name == "md-5" { "md5".to_owned() } else { name.replace('-', "_") });
        named.extend(names.filter(|name| !name.is_empty() && !name.starts_with('#')));
    }
    assert!(named.contains("tokio") && named.contains("sqlx") && named.len() > 40, "{named:?}");
    named.retain(|name| !PURE_CRATES.contains(&name.as_str()));
    named
}

/// The impure thing that a line of code names, if any.
fn impurity<'a>(code: &str, crates: &'a BTreeSet<String>) -> Option<&'a str> {
    let named = |crate_name: &str| {
        code.match_indices(crate_name).any(|(at, _)| {
            // `::tokio` is the crate, `crate::tokio` is not.
            let before = code[..at].strip_suffix("::").unwrap_or(&code[..at]);
            let is_root =
                before.len() == at || !before.ends_with(|c: char| c.is_alphanumeric() || "_>".contains(c));
            let rest = &code[at + crate_name.len()..];
            is_root
                && is_word_at(code, at, crate_name)
                && (rest.starts_with("::")
                    || (code.trim_start().starts_with("use ") && rest.starts_with([';', ' '])))
        })
    };
    let has_name = |name: &str| code.match_indices(name).any(|(at, _)| is_word_at(code, at, name));
    let asks_a_clock = || code.match_indices("::now").any(|(at, _)| is_word_at(code, at + 2, "now"));
    let by_crate = crates.iter().map(String::as_str).find(|name| named(name));
    let by_path = || IMPURE_PATHS.into_iter().find(|path| code.contains(path));
    let by_name = || IMPURE_NAMES.into_iter().find(|name| has_name(name));
    by_crate.or_else(by_path).or_else(by_name).or_else(|| asks_a_clock().then_some("::now"))
}

/// The paths of a `use`, its brackets resolved.
fn paths_of(tree: &str) -> Vec<String> {
    let Some((prefix, inner)) = tree.split_once('{') else {
        return vec![tree.trim().trim_end_matches("::self").to_owned()];
    };
    let inner = inner.trim_end().strip_suffix('}').unwrap_or(inner);
    let mut depth = 0;
    let parts = inner.split(|c: char| {
        depth += i32::from(c == '{') - i32::from(c == '}');
        c == ',' && depth == 0
    });
    let parts = parts.map(str::trim).filter(|part| !part.is_empty());
    parts.flat_map(|part| paths_of(&format!("{}{part}", prefix.trim()))).collect()
}

/// Every impure thing in a thinker's text outside its tests, with the number of its line.
fn impurities<'a>(text: &str, crates: &'a BTreeSet<String>) -> Vec<(usize, &'a str)> {
    let mut found = Vec::new();
    let mut tree: Option<(usize, String)> = None;
    for (number, line) in without_tests(text) {
        let code = code_of(line);
        found.extend(impurity(code, crates).map(|what| (number + 1, what)));
        let words = code.trim_start();
        let words =
            if words.starts_with("pub") { words.split_once(' ').map_or("", |(_, rest)| rest) } else { words };
        if let Some((_, so_far)) = &mut tree {
            so_far.push_str(code.trim());
        } else if let Some(rest) = words.strip_prefix("use ") {
            tree = Some((number + 1, rest.trim().to_owned()));
        }
        if let Some((number, whole)) = tree.take_if(|(_, so_far)| so_far.ends_with(';')) {
            let paths = paths_of(whole.trim_end_matches(';'));
            let impure = |path: &String| Some((number, impurity(&format!("use {path};"), crates)?));
            found.extend(paths.iter().filter_map(impure));
        }
    }
    found.dedup();
    found
}

#[test]
fn thinkers_and_pgwire_know_no_io_no_clock_and_no_log() {
    let mut found = Vec::new();
    let (crates, mut thinkers) = (impure_crates(), 0);
    for (file, text) in rust_files() {
        let pure = file.starts_with("pgwire/src")
            || file.components().any(|part| part.as_os_str() == "logic")
            || file.file_name().is_some_and(|name| name == "logic.rs");
        if !pure || is_test_file(&file) {
            continue;
        }
        thinkers += 1;
        let impure = impurities(&text, &crates).into_iter();
        found.extend(impure.map(|(number, what)| format!("{}:{number}: {what}", file.display())));
    }
    assert!(thinkers > 5, "the check found only {thinkers} thinkers: it looks in the wrong place");
    assert!(found.is_empty(), "impure thinkers:\n{}", found.join("\n"));
}

#[test]
fn the_check_for_impurity_sees_what_it_should() {
    let mut crates = impure_crates();
    // As if somebody had made it a dependency.
    crates.insert("rand".to_owned());
    for code in [
        "use tokio::net::TcpStream;",
        "let t = Instant::now();",
        "redis::cmd(x)",
        "use nix;",
        "#[tokio::test]",
        "::tokio::spawn(x)",
        "rustix::time::clock_gettime(x)",
        "std::io::stdout()",
        "net::UdpSocket::bind(x)",
        "eprintln!(\"x\")",
        "dbg!(x)",
        "since.elapsed()",
        "OffsetDateTime::now_utc()",
        "jiff::Zoned::now()",
        "Uuid::now_v7()",
        "Uuid::new_v4()",
        "getrandom::fill(x)",
        "rand::rng()",
        "glob::glob(x)",
        "rustls_native_certs::load_native_certs()",
        "h2::client::handshake(x)",
        "use h2::client;",
        "use {bytes::Bytes, glob::glob};",
        "Timestamp::now",
        "SystemRandom::new()",
    ] {
        assert!(impurity(code, &crates).is_some(), "{code}");
    }
    for code in [
        "plan.redis.port",
        "use crate::redis::Link;",
        "fn nix() {}",
        "let tokio_like = 1;",
        "time::nowhere()",
        "Uuid::from_u128(now)",
        "crate::h2::Frame",
    ] {
        assert_eq!(impurity(code, &crates), None, "{code}");
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
fn brackets_of_a_use_hide_nothing() {
    let crates = impure_crates();
    let text = "use std::{\n    fs, mem,\n    net::{IpAddr, UdpSocket},\n    thread::{self, sleep},\n};\n";
    assert_eq!(
        impurities(text, &crates),
        [(3, "UdpSocket"), (1, "std::fs"), (1, "UdpSocket"), (1, "std::thread")]
    );
    assert_eq!(impurities("pub(crate) use std::{self, mem};\n", &crates), [(1, "use std;")]);
    assert_eq!(impurities("use std::{mem, net::{IpAddr, Ipv4Addr}};\n", &crates), []);
}

/// Thinkers often name their tests' module at the top.
#[test]
fn what_follows_a_thinkers_tests_is_looked_at_too() {
    let (ledger, crates) = (read(&root().join("pooler/src/logic/ledger.rs")), impure_crates());
    let marked = ledger.lines().position(|line| line == "#[cfg(test)]").expect("its tests have a file");
    assert!(marked < 20, "this is about a module of tests at the top");
    let lines = without_tests(&ledger).count();
    assert_eq!(lines, ledger.lines().count() - 2, "the mark and the module's name are left out, no more");
    for bad in [
        "fn now() { tokio::runtime::Handle::current(); }",
        "fn now() { std::time::Instant::now(); }",
        "fn keep() { std::fs::write(a, b); }",
        "fn dial() { TcpStream::connect(a); }",
    ] {
        assert_eq!(impurities(&format!("{ledger}{bad}\n"), &crates).len(), 1, "{bad}");
    }
    assert!(without_tests(&format!("{ledger}{}", "\n".repeat(600))).count() > FILE_LINES_MAX);
}

#[test]
fn only_the_items_of_the_tests_are_left_out() {
    let text = "a\n#[cfg(test)]\n#[path = \"x.rs\"]\nmod x;\nb\n    #[cfg(test)]\n    fn c(\n    ) {\n        }\n    }\nd\n\
                #[cfg(test)] mod y;\n#[cfg(test)]\nmod z {\n    e\n}\nf\n";
    let left: Vec<(usize, &str)> = without_tests(text).collect();
    assert_eq!(left, [(0, "a"), (4, "b"), (10, "d"), (16, "f")]);
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

/// The modules that the code map of ARCHITECTURE.md names, as `crate/module`.
fn code_map() -> Vec<String> {
    let text = read(&root().join("ARCHITECTURE.md"));
    let after = text.split("## Code map").nth(1).expect("ARCHITECTURE.md has a part \"Code map\"");
    let mut in_crate = "";
    let mut named = Vec::new();
    for line in after.split("```").nth(1).expect("the map is a fenced block").lines().skip(1) {
        match line.strip_suffix("/src/") {
            Some(name) => in_crate = name,
            None => {
                const NAMES_LEN: usize = 44;
                let names = line.get(..NAMES_LEN).expect("names, then what they are").split_whitespace();
                named.extend(names.map(|name| format!("{in_crate}/{name}")));
            }
        }
    }
    named
}

#[test]
fn the_code_map_names_every_module_once() {
    let mut named = code_map();
    named.sort();
    let is_module = |name: &str| !["main", "lib"].contains(&name) && !name.ends_with("_tests");
    let mut there: Vec<String> = rust_files()
        .into_iter()
        .filter_map(|(file, _)| {
            let parts: Vec<String> = file
                .with_extension("")
                .components()
                .map(|p| p.as_os_str().to_string_lossy().into_owned())
                .collect();
            match &parts[..] {
                [krate, src, name] if src == "src" && is_module(name) => Some(format!("{krate}/{name}")),
                _ => None,
            }
        })
        .collect();
    there.sort();
    let lacking: Vec<&String> = there.iter().filter(|name| !named.contains(name)).collect();
    assert_eq!(named, there, "not in the code map: {lacking:?}");
}

/// So that every table is among those that the example and what parts are given are checked against.
#[test]
fn tables_of_settings_are_where_the_tests_look_for_them() {
    let has_table = |(file, text): &(PathBuf, String)| !is_test_file(file) && text.contains(": &[Setting] =");
    let found: Vec<String> =
        rust_files().into_iter().filter(has_table).map(|(file, _)| file.display().to_string()).collect();
    let known = [
        "balancer/src/settings.rs",
        "load_tests/src/settings.rs",
        "stack/src/settings/table.rs",
        "web/src/settings/table.rs",
    ];
    assert_eq!(
        found, known,
        "each needs a tests/example.rs of its crate and a place in stack/tests/settings.rs"
    );
}

#[test]
fn who_starts_the_stack_is_told_the_password_that_the_seed_gives() {
    let line = format!("DEMO_PASSWORD: &str = {:?};", stack::client::DEMO_PASSWORD);
    assert!(read(&root().join("web/src/seed.rs")).contains(&line), "web/src/seed.rs has no {line}");
    for page in ["README.md", "config.env.example"] {
        assert!(read(&root().join(page)).contains(stack::client::DEMO_PASSWORD), "{page} does not tell it");
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
