//! What nginx has no word for: `$balancer_*`.

use super::{Told, non_empty, put, put_some};
use crate::conf::variables::Variable;
use crate::logic::h1::fields;
use crate::logic::{ending, trace};

/// `None`: the variable is not one of these.
pub fn value(told: &Told<'_>, variable: &Variable, out: &mut Vec<u8>) -> Option<bool> {
    Some(match variable {
        Variable::BalancerWhy => put_some(out, non_empty(told.story().reasons.join(", ").as_bytes())),
        Variable::BalancerEnding => put(out, &ending::letters(told.story().ended())),
        Variable::BalancerTraceparent => traceparent(told, out),
        _ => return None,
    })
}

fn traceparent(told: &Told<'_>, out: &mut Vec<u8>) -> bool {
    let head = told.head();
    let mut sent = told.story().request.fields.all(head, fields::hash(b"traceparent"), b"traceparent");
    let only = sent.next().filter(|_| sent.next().is_none()).map(|field| field.value.of(head));
    match only.filter(|value| trace::is_traceparent(value)) {
        Some(value) => out.extend_from_slice(value),
        None => trace::begin(&told.request_id(), out),
    }
    true
}
