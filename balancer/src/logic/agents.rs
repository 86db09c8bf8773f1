//! Old browsers that mishandle kept connections (`keepalive_disable`), told by what they call themselves.

use memchr::memmem::find;

/// Internet Explorer up to 6, by its name; Opera, which borrowed that name, is not it.
pub fn is_msie6(agent: &[u8]) -> bool {
    let Some(at) = find(agent, b"MSIE ") else { return false };
    let rest = &agent[at..];
    if rest.len() <= 7 || rest[6] != b'.' || find(agent, b"Opera").is_some() {
        return false;
    }
    match rest[5] {
        b'4' | b'5' => true,
        b'6' => rest.get(8..).is_none_or(|rest| find(rest, b"SV1").is_none()),
        _ => false,
    }
}

/// Safari on Mac OS X, and none of those that name it beside themselves.
pub fn is_safari(agent: &[u8]) -> bool {
    let has = |name: &[u8]| find(agent, name).is_some();
    let is_other = has(b"MSIE ") || has(b"Opera") || has(b"Gecko/") || has(b"Chrome/");
    has(b"Safari/") && has(b"Mac OS X") && !is_other
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agents_are_told_apart() {
        assert!(is_msie6(b"MSIE 5.0") && is_msie6(b"Mozilla/4.0 (compatible; MSIE 6.0; Windows NT 5.1)"));
        assert!(!is_msie6(b"Mozilla/4.0 (compatible; MSIE 6.0; Windows NT 5.1; SV1)"));
        assert!(!is_msie6(b"MSIE 7.0") && !is_msie6(b"MSIE 6") && !is_msie6(b"MSIE 5.0 Opera 8"));
        assert!(is_safari(b"Mac OS X Safari/7534.48.3"));
        assert!(!is_safari(b"Mac OS X Chrome/1 Safari/7534.48.3") && !is_safari(b"Safari/1"));
    }

    proptest::proptest! {
        #[test]
        fn no_name_panics(agent in "(MSIE |Opera|[0-9.]|SV1|.){0,12}") {
            let _ = (is_msie6(agent.as_bytes()), is_safari(agent.as_bytes()));
        }
    }
}
