//! What the PROXY protocol said: `$proxy_protocol_*`.

use super::{put, put_number};
use crate::conf::variables::Variable;
use crate::logic::proxy_protocol::Header;

/// `None`: the variable is not one of these.
pub fn value(header: Option<&Header>, variable: &Variable, out: &mut Vec<u8>) -> Option<bool> {
    let route = header.and_then(|header| header.route.as_ref());
    Some(match variable {
        Variable::ProxyProtocolAddr => route.is_some_and(|route| put(out, &route.source_text)),
        Variable::ProxyProtocolServerAddr => route.is_some_and(|route| put(out, &route.destination_text)),
        Variable::ProxyProtocolPort => route.is_some_and(|route| put_number(out, route.source.port().into())),
        Variable::ProxyProtocolServerPort => {
            route.is_some_and(|route| put_number(out, route.destination.port().into()))
        }
        Variable::ProxyProtocolTlv(name) => {
            header.and_then(|header| header.tlv(name)).is_some_and(|value| put(out, &value))
        }
        _ => return None,
    })
}
