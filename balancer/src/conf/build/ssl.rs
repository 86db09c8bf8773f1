//! `ssl_*` of a server block → [`ServerTls`], ready for handshakes.

use std::sync::Arc;

use super::World;
use super::scope::Scope;
use super::upstream_ssl::protocols;
use crate::conf::error::{Error, Result};
use crate::conf::ssl::{Ssl, Verify};
use crate::conf::value;
use crate::tls::server::ServerTls;
use crate::tls::sessions::SessionZone;

pub(super) fn server_tls(
    scope: &Scope<'_>,
    zones: &mut Vec<Arc<SessionZone>>,
    world: &dyn World,
) -> Result<Arc<ServerTls>> {
    let ssl = settings(scope, world)?;
    if matches!(ssl.verify, Verify::On | Verify::Optional)
        && !ssl.certificates.is_empty()
        && ssl.client_certificate.is_none()
        && ssl.trusted_certificate.is_none()
    {
        return Err(Error::whole("no ssl_client_certificate for ssl_verify_client"));
    }
    let zone = session_zone(scope, zones)?;
    ServerTls::new(&ssl, zone).map(Arc::new).map_err(Error::whole)
}

fn settings(scope: &Scope<'_>, world: &dyn World) -> Result<Ssl> {
    let file = |name: &str| scope.given(name).map(|node| full(world, node.arg(0)));
    Ok(Ssl {
        certificates: certificates(scope, world)?,
        password_file: file("ssl_password_file"),
        protocols: protocols(scope, "ssl_protocols")?,
        ciphers: scope.text("ssl_ciphers").to_owned(),
        prefer_server_ciphers: scope.flag("ssl_prefer_server_ciphers"),
        curves: scope.text("ssl_ecdh_curve").to_owned(),
        session_tickets: scope.flag("ssl_session_tickets"),
        session_ticket_keys: scope
            .nearest("ssl_session_ticket_key")
            .iter()
            .map(|node| full(world, node.arg(0)))
            .collect(),
        session_timeout: std::time::Duration::from_secs(
            value::seconds(scope.text("ssl_session_timeout")).map_or(300, |time| time.as_secs()),
        ),
        verify: match scope.text("ssl_verify_client") {
            "on" => Verify::On,
            "optional" => Verify::Optional,
            "optional_no_ca" => Verify::OptionalNoCa,
            _ => Verify::Off,
        },
        verify_depth: usize::try_from(scope.count("ssl_verify_depth")).unwrap_or(usize::MAX),
        client_certificate: file("ssl_client_certificate").filter(|path| !path.is_empty()),
        trusted_certificate: file("ssl_trusted_certificate").filter(|path| !path.is_empty()),
        crl: file("ssl_crl").filter(|path| !path.is_empty()),
        stapling_file: file("ssl_stapling_file").filter(|_| scope.flag("ssl_stapling")),
        reject_handshake: scope.flag("ssl_reject_handshake"),
    })
}

/// Relative to the folder of nginx.conf; text of its own stays.
pub(super) fn full(world: &dyn World, text: &str) -> String {
    match text.starts_with("data:") || text.is_empty() {
        true => text.to_owned(),
        false => world.conf_folder().join(text).display().to_string(),
    }
}

/// Each `ssl_certificate` with the `ssl_certificate_key` of its place.
fn certificates(scope: &Scope<'_>, world: &dyn World) -> Result<Vec<(String, String)>> {
    let keys = scope.nearest("ssl_certificate_key");
    let mut pairs = Vec::new();
    for (i, node) in scope.nearest("ssl_certificate").into_iter().enumerate() {
        let Some(key) = keys.get(i) else {
            let certificate = node.arg(0);
            return Err(Error::whole(format!(
                "no \"ssl_certificate_key\" is defined for certificate \"{certificate}\""
            )));
        };
        for node in [node, *key] {
            if node.arg(0).contains('$') {
                return Err(node.error(format!("variables in \"{}\" are not supported", node.name)));
            }
        }
        pairs.push((full(world, node.arg(0)), full(world, key.arg(0))));
    }
    Ok(pairs)
}

/// The zone that `ssl_session_cache` means; none where sessions are not kept here.
fn session_zone(scope: &Scope<'_>, zones: &mut Vec<Arc<SessionZone>>) -> Result<Option<Arc<SessionZone>>> {
    let Some(node) = scope.given("ssl_session_cache") else { return Ok(None) };
    let (mut builtin_size, mut shared) = (None, None);
    for word in &node.args {
        let invalid = || node.error(format!("invalid session cache \"{}\"", word.text));
        match word.text.split_once(':').unwrap_or((&word.text, "")) {
            ("off" | "none", "") => {}
            // OpenSSL's own default is 20,480 sessions.
            ("builtin", "") => builtin_size = Some(5 << 20),
            ("builtin", count) => {
                let count = value::count(count).ok_or_else(invalid)?;
                builtin_size = Some((count as usize) << 8);
            }
            ("shared", rest) => {
                let (name, size) = rest.split_once(':').ok_or_else(invalid)?;
                let size = value::size(size).filter(|_| !name.is_empty()).ok_or_else(invalid)?;
                shared = Some((name, size as usize));
            }
            _ => return Err(invalid()),
        }
    }
    let new = |name: &str, size: usize| SessionZone::new(name, size).map(Arc::new).map_err(Error::whole);
    let Some((name, size)) = shared else { return builtin_size.map(|size| new("", size)).transpose() };
    let zone = match zones.iter().find(|zone| *zone.name == *name) {
        Some(zone) if zone.size == size => zone.clone(),
        Some(zone) => {
            return Err(node.error(format!(
                "the size {size} of shared memory zone \"{name}\" conflicts with already declared size {}",
                zone.size
            )));
        }
        None => {
            zones.push(new(name, size)?);
            zones[zones.len() - 1].clone()
        }
    };
    Ok(Some(zone))
}
