//! Values that parse but cannot work, and messages that help.

use super::TABLE;
use super::table::Keys;

/// Checks a value of `[pgbouncer]` after it was set.
pub fn value(name: &str, text: &str, keys: &Keys) -> Result<(), String> {
    match name {
        "listen_addr" => keys.listen_addr.iter().try_for_each(listen_address),
        // Free text, too.
        "auth_ldap_options" if text.is_empty() => Ok(()),
        "auth_ldap_options" => super::ldap_options::parse(text).map(drop),
        "max_packet_size" if keys.max_packet_size < 8 => Err("no message fits".to_string()),
        "scram_iterations" if keys.scram_iterations == 0 => Err("must be at least 1".to_string()),
        "peer_id" if keys.peer_id > 16_383 => Err("must be at most 16383".to_string()),
        "stats_period" if keys.stats_period.is_zero() => Err("must be more than 0".to_string()),
        // Free text, in which # and ; may stand.
        "login_notify_message" => Ok(()),
        _ if name.ends_with("_query") => Ok(()),
        _ => no_trailing_comment(text),
    }
}

fn listen_address(address: &str) -> Result<(), String> {
    if let Some((host, bits)) = address.split_once('/') {
        return Err(format!(
            "\"{address}\" is a network, but a listener needs addresses: use {host} for one interface or * for \
             all, and let an HBA file (auth_type = hba) say from which networks (/{bits}) clients may come"
        ));
    }
    if address.contains([' ', '#', ';']) {
        return Err(format!("\"{address}\" is no address; separate addresses with commas"));
    }
    Ok(())
}

/// PgBouncer takes ` # …` behind a value as part of it, which nobody means.
fn no_trailing_comment(text: &str) -> Result<(), String> {
    if has_trailing_comment(text) { Err("the value has a comment behind it".to_string()) } else { Ok(()) }
}

fn has_trailing_comment(text: &str) -> bool {
    // Inside quotes, as in a query, it is the user's own text.
    let outside = text.split('\'').step_by(2);
    outside.into_iter().any(|part| {
        part.starts_with(['#', ';']) || [" #", "\t#", " ;", "\t;"].iter().any(|mark| part.contains(mark))
    })
}

/// Adds to an error what may have caused it.
pub fn with_comment_hint(value: &str) -> impl Fn(String) -> String {
    let hint = has_trailing_comment(value);
    move |what| {
        if hint {
            format!(
                "{what} (comments stand on a line of their own: move what follows # or ; to its own line)"
            )
        } else {
            what
        }
    }
}

/// Names the key that was probably meant.
pub fn unknown_key(name: &str) -> String {
    let lower = name.to_ascii_lowercase();
    let close = TABLE.iter().map(|key| (distance(&lower, key.name), key.name)).min();
    match close {
        Some((steps, meant)) if steps <= 3 => format!("unknown parameter \"{name}\"; did you mean {meant}?"),
        _ => format!("unknown parameter \"{name}\""),
    }
}

/// Letters to insert, drop or change from one word to the other.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, to) in b.iter().enumerate() {
            let changed = diagonal + usize::from(from != *to);
            let cheapest = changed.min(row[j] + 1).min(row[j + 1] + 1);
            diagonal = std::mem::replace(&mut row[j + 1], cheapest);
        }
    }
    row[b.len()]
}
