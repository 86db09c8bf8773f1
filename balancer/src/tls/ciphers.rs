//! What OpenSSL's names of versions, suites and curves mean in rustls, which speaks forward-secret AEAD suites only: a
//! list narrows and orders these, and whatever else it names is not there to be chosen.

use rustls::crypto::{CryptoProvider, ring};
use rustls::{CipherSuite, NamedGroup, SupportedCipherSuite, SupportedProtocolVersion, version};

/// Suites of TLS 1.2 by OpenSSL's name, in OpenSSL's order of preference.
const TLS12: &[(&str, CipherSuite)] = &[
    ("ECDHE-ECDSA-AES256-GCM-SHA384", CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384),
    ("ECDHE-RSA-AES256-GCM-SHA384", CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384),
    ("ECDHE-ECDSA-CHACHA20-POLY1305", CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256),
    ("ECDHE-RSA-CHACHA20-POLY1305", CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256),
    ("ECDHE-ECDSA-AES128-GCM-SHA256", CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256),
    ("ECDHE-RSA-AES128-GCM-SHA256", CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256),
];

/// OpenSSL's name of a suite, as `$ssl_cipher` says it.
pub fn name(suite: CipherSuite) -> String {
    match TLS12.iter().find(|(_, known)| *known == suite) {
        Some((name, _)) => (*name).to_owned(),
        None => suite.as_str().unwrap_or_default().replacen("TLS13_", "TLS_", 1),
    }
}

/// `ssl_protocols`; older ones than TLS 1.2 are read and dropped. `None`: a word that is no version.
pub fn versions<'a>(words: impl Iterator<Item = &'a str>) -> Option<Vec<&'static SupportedProtocolVersion>> {
    let mut versions = Vec::new();
    for word in words {
        match word {
            "TLSv1.3" => versions.push(&version::TLS13),
            "TLSv1.2" => versions.push(&version::TLS12),
            "SSLv2" | "SSLv3" | "TLSv1" | "TLSv1.1" => {}
            _ => return None,
        }
    }
    Some(versions)
}

/// ring's algorithms with the suites of TLS 1.2 that the list allows. `None`: it allows none of them.
pub fn provider(list: &str, curves: &str) -> Option<CryptoProvider> {
    let mut provider = ring::default_provider();
    let allowed = allowed(list);
    if allowed.is_empty() {
        return None;
    }
    let known = std::mem::take(&mut provider.cipher_suites);
    let (tls13, tls12): (Vec<SupportedCipherSuite>, Vec<_>) =
        known.into_iter().partition(|suite| suite.tls13().is_some());
    provider.cipher_suites = tls13;
    for (_, wanted) in allowed {
        provider.cipher_suites.extend(tls12.iter().filter(|suite| suite.suite() == wanted));
    }
    let groups: Vec<NamedGroup> = curves.split(':').filter_map(group).collect();
    if !groups.is_empty() {
        provider.kx_groups.retain(|kx| groups.contains(&kx.name()));
        provider.kx_groups.sort_by_key(|kx| groups.iter().position(|group| *group == kx.name()));
    }
    Some(provider)
}

/// OpenSSL's list, read from left to right: a word adds, `!` takes away for good, `-` takes away, `+` moves to the end.
fn allowed(list: &str) -> Vec<(&'static str, CipherSuite)> {
    let mut chosen: Vec<(&str, CipherSuite)> = Vec::new();
    let mut banned: Vec<&str> = Vec::new();
    for word in list.split([':', ',', ' ', ';']).filter(|word| !word.is_empty() && !word.starts_with('@')) {
        let (mark, word) = match word.as_bytes()[0] {
            mark @ (b'!' | b'-' | b'+') => (mark, &word[1..]),
            _ => (b' ', word),
        };
        let meant = TLS12.iter().filter(|(name, _)| word.split('+').all(|part| is_meant(part, name)));
        for &(name, suite) in meant {
            let had = chosen.iter().position(|(known, _)| *known == name);
            match (mark, had) {
                (b'!', _) => {
                    banned.push(name);
                    chosen.retain(|(known, _)| *known != name);
                }
                (b'-', _) => chosen.retain(|(known, _)| *known != name),
                (b'+', Some(at)) => {
                    let moved = chosen.remove(at);
                    chosen.push(moved);
                }
                (b' ', None) if !banned.contains(&name) => chosen.push((name, suite)),
                _ => {}
            }
        }
    }
    chosen
}

/// One word of the list: a whole name, or a class of suites.
fn is_meant(word: &str, name: &str) -> bool {
    match word {
        "ALL"
        | "DEFAULT"
        | "COMPLEMENTOFDEFAULT"
        | "HIGH"
        | "TLSv1.2"
        | "kECDHE"
        | "kEECDH"
        | "EECDH"
        | "ECDHE"
        | "FIPS" => word != "COMPLEMENTOFDEFAULT",
        "aECDSA" | "ECDSA" => name.contains("-ECDSA-"),
        "aRSA" => name.contains("-RSA-"),
        "AESGCM" | "AES" => name.contains("-AES"),
        "AES128" => name.contains("-AES128-"),
        "AES256" => name.contains("-AES256-"),
        "CHACHA20" => name.contains("-CHACHA20-"),
        "SHA256" => name.ends_with("-SHA256"),
        "SHA384" => name.ends_with("-SHA384"),
        _ => word.eq_ignore_ascii_case(name),
    }
}

fn group(curve: &str) -> Option<NamedGroup> {
    match curve {
        "prime256v1" | "secp256r1" | "P-256" => Some(NamedGroup::secp256r1),
        "secp384r1" | "P-384" => Some(NamedGroup::secp384r1),
        "X25519" | "x25519" => Some(NamedGroup::X25519),
        _ => None,
    }
}

/// OpenSSL's name of a curve, as `$ssl_curve` says it.
pub fn curve_name(group: NamedGroup) -> &'static str {
    match group {
        NamedGroup::secp256r1 => "prime256v1",
        NamedGroup::secp384r1 => "secp384r1",
        NamedGroup::X25519 => "X25519",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(list: &str) -> Vec<&'static str> {
        allowed(list).into_iter().map(|(name, _)| name).collect()
    }

    #[test]
    fn lists_mean_what_openssl_makes_of_them() {
        assert_eq!(names("HIGH:!aNULL:!MD5").len(), TLS12.len());
        assert_eq!(names("ECDHE-RSA-AES128-GCM-SHA256:junk"), ["ECDHE-RSA-AES128-GCM-SHA256"]);
        assert_eq!(
            names("EECDH+aRSA+AESGCM"),
            ["ECDHE-RSA-AES256-GCM-SHA384", "ECDHE-RSA-AES128-GCM-SHA256"]
        );
        assert_eq!(names("ALL:!CHACHA20:+AES256").last(), Some(&"ECDHE-RSA-AES256-GCM-SHA384"));
        assert!(names("!ALL:HIGH").is_empty());
        assert!(names("RC4:DES-CBC3-SHA").is_empty());
    }

    #[test]
    fn a_list_orders_the_suites_and_curves_offered() {
        let provider = provider("ECDHE-RSA-AES128-GCM-SHA256:ALL", "secp384r1:X25519").unwrap();
        let tls12: Vec<String> = provider
            .cipher_suites
            .iter()
            .filter(|suite| suite.tls13().is_none())
            .map(|suite| name(suite.suite()))
            .collect();
        assert_eq!((tls12[0].as_str(), tls12.len()), ("ECDHE-RSA-AES128-GCM-SHA256", 6));
        let groups: Vec<NamedGroup> = provider.kx_groups.iter().map(|kx| kx.name()).collect();
        assert_eq!(groups, [NamedGroup::secp384r1, NamedGroup::X25519]);
        assert!(super::provider("RC4", "auto").is_none());
    }
}
