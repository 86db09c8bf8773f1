//! `root`, `alias`, `index`, `try_files`, `types`.

use std::collections::HashMap;
use std::sync::Arc;

use super::World;
use super::locations::Site;
use super::names::Names;
use super::scope::Scope;
use crate::conf::blocks::Node;
use crate::conf::error::Result;
use crate::conf::files::{Base, Dates, Files, TryFiles, TryLast, Types};
use crate::conf::location::LocationKind;
use crate::conf::template::Template;
use crate::conf::value;

/// Where no `types` says otherwise, as in nginx.
const TYPES_DEFAULT: [(&str, &str); 3] = [("html", "text/html"), ("gif", "image/gif"), ("jpg", "image/jpeg")];

pub(super) fn files(
    scope: &Scope<'_>,
    site: &Site<'_>,
    names: &Names<'_>,
    world: &dyn World,
) -> Result<Arc<Files>> {
    Ok(Arc::new(Files {
        base: base(scope, site, names, world)?,
        index: index(scope, names)?,
        try_files: scope.own("try_files").next().map(|node| try_files(node, names)).transpose()?,
        types: Arc::new(types(scope)?),
        has_etag: scope.flag("etag"),
        dates: match scope.text("if_modified_since") {
            "off" => Dates::Off,
            "before" => Dates::Before,
            _ => Dates::Exact,
        },
        ranges_max: scope
            .given("max_ranges")
            .and_then(|node| value::count(node.arg(0)))
            .and_then(|count| usize::try_from(count).ok()),
    }))
}

fn base(scope: &Scope<'_>, site: &Site<'_>, names: &Names<'_>, world: &dyn World) -> Result<Base> {
    let Some(node) = scope.nearest_of(&["root", "alias"]).first().copied() else {
        return Ok(Base::Root(Template::text(world.prefix().join("html").as_os_str().as_encoded_bytes())));
    };
    let text = node.arg(0);
    let full =
        if text.starts_with('$') { text.to_owned() } else { world.prefix().join(text).display().to_string() };
    if node.name == "root" {
        let full = full.strip_suffix('/').unwrap_or(&full);
        return Ok(Base::Root(names.template(full, node)?));
    }
    if site.kind == LocationKind::Named {
        return Err(node.error("the \"alias\" directive cannot be used inside the named location"));
    }
    Ok(Base::Alias { to: names.template(&full, node)?, prefix_len: site.alias_len })
}

fn index(scope: &Scope<'_>, names: &Names<'_>) -> Result<Arc<[Template]>> {
    let given = scope.nearest("index");
    if given.is_empty() {
        return Ok([Template::text(b"index.html")].into());
    }
    let words = given.iter().flat_map(|node| node.args.iter().map(move |word| (node, word)));
    words.map(|(node, word)| names.template(&word.text, node)).collect()
}

fn try_files(node: &Node, names: &Names<'_>) -> Result<Arc<TryFiles>> {
    let Some((last, files)) = node.args.split_last() else {
        return Err(node.directive_error("invalid value"));
    };
    let files =
        files.iter().map(|word| names.template(&word.text, node)).collect::<Result<Vec<Template>>>()?;
    let last = match last.text.strip_prefix('=') {
        None => TryLast::Inside(names.template(&last.text, node)?),
        Some(code) => {
            let code = code.parse().ok().filter(|code| *code <= 999);
            TryLast::Status(code.ok_or_else(|| node.error(format!("invalid code \"{}\"", last.text)))?)
        }
    };
    Ok(Arc::new(TryFiles { files, last }))
}

fn types(scope: &Scope<'_>) -> Result<Types> {
    let given = scope.nearest("types");
    let mut by_ending = HashMap::new();
    let mut insert = |ending: &str, kind: &str| {
        by_ending.insert(ending.to_ascii_lowercase().into_bytes().into(), kind.as_bytes().into());
    };
    if given.is_empty() {
        TYPES_DEFAULT.iter().for_each(|(ending, kind)| insert(ending, kind));
    }
    for entry in given.iter().flat_map(|node| &node.block) {
        if entry.args.is_empty() {
            return Err(entry.error(format!("invalid number of arguments in \"{}\" directive", entry.name)));
        }
        entry.args.iter().for_each(|ending| insert(&ending.text, &entry.name));
    }
    Ok(Types { by_ending })
}
