//! `$ssl_*`: what the handshake of the client's connection has established.

use x509_parser::prelude::X509Certificate;

use super::{put, put_hex, put_number};
use crate::conf::variables::Variable;
use crate::logic::escape::escape_component;
use crate::tls::session::{self, Session};

/// `None` for variables that are not about TLS.
pub fn value(tls: Option<&Session>, variable: &Variable, out: &mut Vec<u8>) -> Option<bool> {
    let mut tell = |tell: &dyn Fn(&Session, &mut Vec<u8>) -> bool| tls.is_some_and(|tls| tell(tls, out));
    Some(match variable {
        Variable::SslProtocol => tell(&|tls, out| put(out, tls.protocol.as_bytes())),
        Variable::SslCipher => tell(&|tls, out| put(out, tls.cipher.as_bytes())),
        Variable::SslCiphers => tell(&|tls, out| put(out, tls.offered_ciphers.as_bytes())),
        Variable::SslCurve => tell(&|tls, out| put(out, tls.curve.as_bytes())),
        Variable::SslCurves => tell(&|tls, out| put(out, tls.offered_curves.as_bytes())),
        Variable::SslEarlyData | Variable::SslSessionId => false,
        Variable::SslServerName => tell(&|tls, out| match &tls.server_name {
            Some(name) => put(out, name.as_bytes()),
            None => false,
        }),
        Variable::SslAlpnProtocol => tell(&|tls, out| match &tls.alpn {
            Some(protocol) => put(out, protocol),
            None => false,
        }),
        Variable::SslSessionReused => tell(&|tls, out| put(out, if tls.is_reused { b"r" } else { b"." })),
        Variable::SslClientVerify => tell(&|tls, out| put(out, tls.verified().as_bytes())),
        _ => {
            let is_of_client = of_client(tls, variable, out)?;
            return Some(is_of_client);
        }
    })
}

fn of_client(tls: Option<&Session>, variable: &Variable, out: &mut Vec<u8>) -> Option<bool> {
    let text = |out: &mut Vec<u8>, tell: fn(&X509Certificate<'_>) -> String| {
        tls.and_then(|tls| tls.of_client(tell)).is_some_and(|text| put(out, text.as_bytes()))
    };
    let pem = || tls.and_then(Session::client_pem);
    Some(match variable {
        Variable::SslClientSDn => text(out, session::subject),
        Variable::SslClientIDn => text(out, session::issuer),
        Variable::SslClientSDnLegacy => text(out, session::subject_legacy),
        Variable::SslClientIDnLegacy => text(out, session::issuer_legacy),
        Variable::SslClientSerial => text(out, session::serial),
        Variable::SslClientVStart => text(out, session::valid_from),
        Variable::SslClientVEnd => text(out, session::valid_to),
        Variable::SslClientVRemain => {
            let days = tls.and_then(|tls| tls.of_client(session::days_left));
            days.is_some_and(|days| put_number(out, days))
        }
        Variable::SslClientFingerprint => {
            let print = tls.and_then(Session::client_fingerprint);
            print.is_some_and(|print| put_hex(out, &print))
        }
        // As a header's value may not have line breaks, the lines were continued; the last break is left out.
        Variable::SslClientCert => {
            pem().is_some_and(|pem| put(out, pem.trim_end().replace('\n', "\n\t").as_bytes()))
        }
        Variable::SslClientRawCert => pem().is_some_and(|pem| put(out, pem.as_bytes())),
        Variable::SslClientEscapedCert => pem().is_some_and(|pem| {
            escape_component(pem.as_bytes(), out);
            true
        }),
        _ => return None,
    })
}
