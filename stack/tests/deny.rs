//! Each dependency is one that deny.toml allows: its licence, its source, its name. Advisories and yanked versions need a
//! database from elsewhere: those are for cargo-deny, see deploy/lib/tests.sh.
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

use std::path::{Path, PathBuf};

use cargo_metadata::semver::VersionReq;
use cargo_metadata::{CargoOpt, Metadata, MetadataCommand, Package};
use serde::Deserialize;
use serde_json::json;
use spdx::{Expression, Licensee, ParseMode};

/// What is read of deny.toml. A key that is not known here is an error, so that none is taken for checked that is not.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Rules {
    graph: Graph,
    #[serde(rename = "advisories")]
    _advisories: toml::Table,
    licenses: Licenses,
    bans: Bans,
    sources: Sources,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Graph {
    all_features: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Licenses {
    allow: Vec<String>,
    #[serde(default)]
    exceptions: Vec<Exception>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Exception {
    name: String,
    version: Option<VersionReq>,
    allow: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Bans {
    multiple_versions: Level,
    wildcards: Level,
    allow_wildcard_paths: bool,
    deny: Vec<Ban>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Ban {
    name: String,
    version: Option<VersionReq>,
    reason: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Sources {
    unknown_registry: Level,
    unknown_git: Level,
    #[serde(default = "crates_io")]
    allow_registry: Vec<String>,
    #[serde(default)]
    allow_git: Vec<String>,
}

/// What cargo-deny makes of a breach; all but `deny` let it pass.
#[derive(Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Level {
    Deny,
    Warn,
    Allow,
}

fn crates_io() -> Vec<String> {
    vec!["https://github.com/rust-lang/crates.io-index".to_owned()]
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the workspace").to_owned()
}

fn rules() -> Rules {
    let text = std::fs::read_to_string(root().join("deny.toml")).unwrap();
    toml::from_str(&text).unwrap_or_else(|cause| panic!("deny.toml: {cause}"))
}

/// Everything that Cargo.lock has for any system.
fn packages(rules: &Rules) -> Vec<Package> {
    let ask = |options: &[&str]| -> Result<Metadata, cargo_metadata::Error> {
        let mut command = MetadataCommand::new();
        command
            .current_dir(root())
            .other_options(options.iter().map(ToString::to_string).collect::<Vec<_>>());
        if rules.graph.all_features {
            command.features(CargoOpt::AllFeatures);
        }
        command.exec()
    };
    // What other systems need is not built here, and so may have to be fetched once.
    let metadata = ask(&["--locked", "--offline"]).or_else(|_| ask(&["--locked"]));
    metadata.unwrap_or_else(|cause| panic!("cargo metadata: {cause}")).packages
}

fn is_meant(package: &Package, name: &str, version: Option<&VersionReq>) -> bool {
    package.name.as_str() == name && version.is_none_or(|version| version.matches(&package.version))
}

impl Rules {
    /// A line for each breach: the crate, its version, and what is wrong with it.
    fn breaches(&self, packages: &[Package]) -> Vec<String> {
        let faults = |package| {
            let faults = [self.licence_fault(package), self.source_fault(package), self.ban(package)];
            faults.into_iter().flatten().chain(self.wildcards(package)).chain(self.twin(package, packages))
        };
        let of_each = packages.iter().flat_map(|package| {
            faults(package).map(move |fault| format!("{} {}: {fault}", package.name, package.version))
        });
        of_each.collect()
    }

    fn licence_fault(&self, package: &Package) -> Option<String> {
        let Some(text) = &package.license else { return Some("names no licence".to_owned()) };
        let expression = match Expression::parse_mode(text, ParseMode::LAX) {
            Ok(expression) => expression,
            Err(cause) => return Some(format!("its licence is not understood: {cause}")),
        };
        let exceptions = self.licenses.exceptions.iter();
        let exceptions = exceptions.filter(|one| is_meant(package, &one.name, one.version.as_ref()));
        let allowed = self.licenses.allow.iter().chain(exceptions.flat_map(|one| &one.allow));
        let allowed: Vec<Licensee> = allowed.map(|text| Licensee::parse(text).unwrap()).collect();
        let is_met = expression.evaluate(|asked| allowed.iter().any(|allowed| allowed.satisfies(asked)));
        (!is_met).then(|| format!("licence {text}: [licenses] does not allow it"))
    }

    fn source_fault(&self, package: &Package) -> Option<String> {
        // Without one it lies in a folder of ours.
        let source = &package.source.as_ref()?.repr;
        let (kind, place) = source.split_once('+').unwrap_or(("", source));
        let (level, allowed) = match kind {
            "git" => (&self.sources.unknown_git, &self.sources.allow_git),
            _ => (&self.sources.unknown_registry, &self.sources.allow_registry),
        };
        let repository = place.split(['?', '#']).next().unwrap_or(place);
        let is_known = allowed.iter().any(|known| known == repository);
        (*level == Level::Deny && !is_known).then(|| format!("source {source}: [sources] does not allow it"))
    }

    fn ban(&self, package: &Package) -> Option<String> {
        let ban = self.bans.deny.iter().find(|ban| is_meant(package, &ban.name, ban.version.as_ref()));
        ban.map(|ban| format!("banned: {}", ban.reason))
    }

    fn wildcards(&self, package: &Package) -> Vec<String> {
        if self.bans.wildcards != Level::Deny {
            return Vec::new();
        }
        let wild = package.dependencies.iter().filter(|dependency| dependency.req == VersionReq::STAR);
        let wild = wild.filter(|wild| wild.path.is_none() || !self.bans.allow_wildcard_paths);
        wild.map(|wild| format!("takes any version of {}", wild.name)).collect()
    }

    fn twin(&self, package: &Package, packages: &[Package]) -> Option<String> {
        if self.bans.multiple_versions != Level::Deny {
            return None;
        }
        let newer =
            packages.iter().find(|other| other.name == package.name && other.version > package.version)?;
        Some(format!("{} is there too", newer.version))
    }
}

#[test]
fn every_dependency_is_one_that_deny_toml_allows() {
    let rules = rules();
    let packages = packages(&rules);
    assert!(
        packages.iter().any(|package| package.name.as_str() == "rustls"),
        "these are not our dependencies"
    );
    let breaches = rules.breaches(&packages);
    assert!(breaches.is_empty(), "see deny.toml:\n{}", breaches.join("\n"));
}

/// A package of crates.io, with these fields beside or in place of the usual ones.
fn package(fields: &serde_json::Value) -> Package {
    let mut package = json!({
        "name": "thing", "version": "1.2.3", "id": "thing 1.2.3", "license": "MIT", "manifest_path": "/thing/Cargo.toml",
        "source": format!("registry+{}", crates_io()[0]), "dependencies": [], "targets": [], "features": {},
    });
    for (name, value) in fields.as_object().unwrap() {
        package[name] = value.clone();
    }
    serde_json::from_value(package).unwrap()
}

fn depends_on(path: &serde_json::Value) -> serde_json::Value {
    let dependency = json!({
        "name": "other", "req": "*", "kind": null, "optional": false, "uses_default_features": true, "features": [],
        "source": null, "target": null, "path": path,
    });
    json!({"dependencies": [dependency]})
}

#[test]
fn a_breach_is_told_with_crate_and_version() {
    let mut rules = rules();
    for (fields, fault) in [
        (json!({"license": "GPL-3.0-only"}), "licence GPL-3.0-only: [licenses] does not allow it"),
        (
            json!({"license": "MIT AND GPL-3.0-only"}),
            "licence MIT AND GPL-3.0-only: [licenses] does not allow it",
        ),
        (json!({"license": null}), "names no licence"),
        (
            json!({"source": "git+https://example.com/x?rev=1#1"}),
            "source git+https://example.com/x?rev=1#1: [sources]",
        ),
        (
            json!({"source": "registry+https://example.com/index"}),
            "source registry+https://example.com/index: [sou",
        ),
        (
            json!({"source": "sparse+https://example.com/index/"}),
            "source sparse+https://example.com/index/: [sour",
        ),
        (json!({"name": "openssl-sys"}), "banned: TLS is rustls everywhere"),
        (depends_on(&json!(null)), "takes any version of other"),
    ] {
        let package = package(&fields);
        let breaches = rules.breaches(&[package]);
        assert!(breaches.len() == 1 && breaches[0].contains(&format!(" 1.2.3: {fault}")), "{breaches:?}");
    }
    assert!(rules.breaches(&[package(&json!({"license": "what?"}))])[0].contains("not understood"));
    rules.bans.multiple_versions = Level::Deny;
    let twins = [package(&json!({})), package(&json!({"version": "2.0.0"}))];
    assert_eq!(rules.breaches(&twins), ["thing 1.2.3: 2.0.0 is there too"]);
}

#[test]
fn what_the_rules_allow_is_no_breach() {
    let mut rules = rules();
    for fields in [
        json!({"license": "MIT/Apache-2.0"}),
        json!({"license": "GPL-3.0-only OR MIT"}),
        json!({"license": "Apache-2.0 WITH LLVM-exception"}),
        json!({"source": null}),
        depends_on(&json!("/other")),
    ] {
        assert_eq!(rules.breaches(&[package(&fields)]), [""; 0], "{fields}");
    }
    rules.licenses.exceptions = toml::from_str::<Exceptions>(
        "of = [{ name = \"thing\", version = \"1\", allow = [\"GPL-3.0-only\"] }]",
    )
    .unwrap()
    .of;
    assert_eq!(rules.breaches(&[package(&json!({"license": "GPL-3.0-only"}))]), [""; 0]);
    assert_eq!(rules.breaches(&[package(&json!({"license": "GPL-3.0-only", "version": "2.0.0"}))]).len(), 1);
}

#[derive(Deserialize)]
struct Exceptions {
    of: Vec<Exception>,
}
