//! `proxy_ssl_*` and `grpc_ssl_*` of a location → [`UpstreamTls`].

use std::sync::Arc;

use super::World;
use super::names::Names;
use super::scope::Scope;
use super::ssl::full;
use crate::conf::error::{Error, Result};
use crate::conf::ssl::UpstreamSsl;
use crate::conf::template::{Part, Template};
use crate::conf::variables::Variable;
use crate::tls::ciphers;
use crate::tls::client::UpstreamTls;

/// `family`: `proxy` or `grpc`.
pub(super) fn upstream_tls(
    scope: &Scope<'_>,
    family: &str,
    names: &Names<'_>,
    world: &dyn World,
) -> Result<Arc<UpstreamTls>> {
    let named = |rest: &str| format!("{family}_ssl_{rest}");
    let name = match scope.given(&named("name")) {
        Some(node) => names.template(node.arg(0), node)?,
        None => Template::new([Part::Variable(Variable::ProxyHost)]),
    };
    let ssl = settings(scope, &named, world)?;
    UpstreamTls::new(&ssl, name).map(Arc::new).map_err(Error::whole)
}

fn settings(scope: &Scope<'_>, named: &dyn Fn(&str) -> String, world: &dyn World) -> Result<UpstreamSsl> {
    let file = |rest: &str| {
        scope.given(&named(rest)).map(|node| full(world, node.arg(0))).filter(|path| !path.is_empty())
    };
    let certificate = file("certificate");
    let verifies = scope.flag(&named("verify"));
    for rest in ["certificate", "certificate_key"] {
        if let Some(node) = scope.given(&named(rest)).filter(|node| node.arg(0).contains('$')) {
            return Err(node.error(format!("variables in \"{}\" are not supported", node.name)));
        }
    }
    if certificate.is_some() && file("certificate_key").is_none() {
        let text = scope.text(&named("certificate"));
        let what = format!("no \"{}\" is defined for certificate \"{text}\"", named("certificate_key"));
        return Err(Error::whole(what));
    }
    let trusted = file("trusted_certificate");
    if verifies && trusted.is_none() {
        let (what, why) = (named("trusted_certificate"), named("verify"));
        return Err(Error::whole(format!("no {what} for {why}")));
    }
    Ok(UpstreamSsl {
        certificate: certificate.zip(file("certificate_key")),
        password_file: file("password_file"),
        protocols: protocols(scope, &named("protocols"))?,
        ciphers: scope.text(&named("ciphers")).to_owned(),
        sends_name: scope.flag(&named("server_name")),
        verifies,
        verify_depth: usize::try_from(scope.count(&named("verify_depth"))).unwrap_or(usize::MAX),
        trusted_certificate: trusted,
        crl: file("crl"),
        reuses_sessions: scope.flag(&named("session_reuse")),
    })
}

/// The words of the innermost line, or the default of the table.
pub(super) fn protocols(scope: &Scope<'_>, name: &str) -> Result<Vec<String>> {
    let Some(node) = scope.given(name) else {
        return Ok(scope.text(name).split(' ').map(str::to_owned).collect());
    };
    for word in &node.args {
        if ciphers::versions([&word.text[..]].into_iter()).is_none() {
            return Err(node.error(format!("invalid value \"{}\"", word.text)));
        }
    }
    Ok(node.args.iter().map(|word| word.text.clone()).collect())
}
