//! Names of TLS versions, cipher suites and curves, as OpenSSL and PgBouncer write them.

use rustls::crypto::{CryptoProvider, ring};
use rustls::{NamedGroup, SupportedCipherSuite, SupportedProtocolVersion, version};

/// OpenSSL's names of the suites of TLS 1.2 that are spoken here.
const TLS12_NAMES: &[(&str, &str)] = &[
    ("ECDHE-ECDSA-AES256-GCM-SHA384", "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"),
    ("ECDHE-ECDSA-AES128-GCM-SHA256", "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"),
    ("ECDHE-ECDSA-CHACHA20-POLY1305", "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256"),
    ("ECDHE-RSA-AES256-GCM-SHA384", "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384"),
    ("ECDHE-RSA-AES128-GCM-SHA256", "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"),
    ("ECDHE-RSA-CHACHA20-POLY1305", "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256"),
];

/// The versions that a list such as `secure`, `all` or `tlsv1.2,tlsv1.3` allows. TLS 1.0 and 1.1 are read and dropped:
/// nothing speaks them here.
pub fn versions(list: &str) -> Result<Vec<&'static SupportedProtocolVersion>, String> {
    let (mut has_12, mut has_13) = (false, false);
    for word in list.split([',', ':', ' ']).filter(|word| !word.is_empty()) {
        let (allow, word) = word.strip_prefix('!').map_or((true, word), |word| (false, word));
        match word.to_ascii_lowercase().as_str() {
            "all" | "legacy" | "default" | "secure" | "tlsv1" => (has_12, has_13) = (allow, allow),
            "tlsv1.0" | "tlsv1.1" => {}
            "tlsv1.2" => has_12 = allow,
            "tlsv1.3" => has_13 = allow,
            _ => return Err(format!("unknown version \"{word}\"")),
        }
    }
    let mut versions = Vec::new();
    versions.extend(has_13.then_some(&version::TLS13));
    versions.extend(has_12.then_some(&version::TLS12));
    Ok(versions)
}

/// ring's algorithms, narrowed to what the settings name.
pub fn provider(ciphers: &str, tls13_ciphers: Option<&str>, curve: &str) -> Result<CryptoProvider, String> {
    let mut provider = ring::default_provider();
    let tls12 = tls12_suites(ciphers);
    let tls13 = tls13_suites(tls13_ciphers)?;
    provider.cipher_suites.retain(|suite| {
        let name = suite_name(suite);
        let chosen = if suite.tls13().is_some() { &tls13 } else { &tls12 };
        chosen.as_ref().is_none_or(|names| names.contains(&name))
    });
    if let Some(group) = group(curve)? {
        provider.kx_groups.retain(|kx| kx.name() == group);
    }
    Ok(provider)
}

/// `TLS_AES_256_GCM_SHA384`, without the `TLS13_` that rustls puts before it.
fn suite_name(suite: &SupportedCipherSuite) -> String {
    suite.suite().as_str().unwrap_or("").replacen("TLS13_", "TLS_", 1)
}

/// The suites of TLS 1.2 that the list names; None is all. Words such as HIGH or !aNULL change nothing: what they
/// would forbid is not spoken here.
fn tls12_suites(list: &str) -> Option<Vec<String>> {
    let named: Vec<String> = list
        .split([':', ',', ' '])
        .filter_map(|word| TLS12_NAMES.iter().find(|(openssl, _)| openssl.eq_ignore_ascii_case(word)))
        .map(|(_, rustls)| (*rustls).to_string())
        .collect();
    (!named.is_empty()).then_some(named)
}

fn tls13_suites(list: Option<&str>) -> Result<Option<Vec<String>>, String> {
    let Some(list) = list.filter(|list| !list.is_empty()) else { return Ok(None) };
    let known: Vec<String> = ring::ALL_CIPHER_SUITES.iter().map(suite_name).collect();
    let named: Vec<String> = list.split(':').map(str::trim).map(String::from).collect();
    match named.iter().find(|name| !known.contains(name)) {
        Some(unknown) => Err(format!("failed to set the TLSv1.3 cipher suites: unknown suite \"{unknown}\"")),
        None => Ok(Some(named)),
    }
}

fn group(curve: &str) -> Result<Option<NamedGroup>, String> {
    match curve.to_ascii_lowercase().as_str() {
        "" | "auto" | "none" => Ok(None),
        "prime256v1" | "secp256r1" | "p-256" => Ok(Some(NamedGroup::secp256r1)),
        "secp384r1" | "p-384" => Ok(Some(NamedGroup::secp384r1)),
        "x25519" => Ok(Some(NamedGroup::X25519)),
        _ => Err(format!("unknown curve \"{curve}\": use auto, X25519, prime256v1 or secp384r1")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_versions_are_read() {
        let count = |list: &str| versions(list).unwrap().len();
        assert_eq!((count("secure"), count("all"), count("tlsv1.3"), count("tlsv1.0")), (2, 2, 1, 0));
        assert_eq!(count("all,!tlsv1.2"), 1);
        assert!(versions("sslv2").is_err());
    }

    #[test]
    fn suites_are_narrowed_to_those_named() {
        let names = |ciphers: &str, tls13: Option<&str>| {
            let provider = provider(ciphers, tls13, "auto").unwrap();
            provider.cipher_suites.iter().map(suite_name).collect::<Vec<_>>()
        };
        let all = names("default", None).len();
        assert_eq!(all, 9);
        assert_eq!(names("HIGH:!aNULL", None).len(), all);
        let few = names("ECDHE-RSA-AES128-GCM-SHA256:junk", Some("TLS_CHACHA20_POLY1305_SHA256"));
        assert_eq!(few, ["TLS_CHACHA20_POLY1305_SHA256", "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"]);
        let unknown = provider("", Some("unknown"), "auto").unwrap_err();
        assert!(unknown.starts_with("failed to set the TLSv1.3 cipher suites"), "{unknown}");
        assert_eq!(provider("", None, "prime256v1").unwrap().kx_groups.len(), 1);
        assert!(provider("", None, "brainpool").is_err());
    }
}
