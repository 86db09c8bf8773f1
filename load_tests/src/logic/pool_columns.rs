//! The columns that PgBouncer's console gives for SHOW POOLS, and the comparison with what a pooler gave.

/// In PgBouncer's order (1.24 and later).
pub const SHOW_POOLS: [&str; 17] = [
    "database",
    "user",
    "cl_active",
    "cl_waiting",
    "cl_active_cancel_req",
    "cl_waiting_cancel_req",
    "sv_active",
    "sv_active_cancel",
    "sv_being_canceled",
    "sv_idle",
    "sv_used",
    "sv_tested",
    "sv_login",
    "maxwait",
    "maxwait_us",
    "pool_mode",
    "load_balance_hosts",
];

/// The first difference, in words; `None` where all columns are there, in order, and no others.
pub fn difference(columns: &[String]) -> Option<String> {
    let differing = SHOW_POOLS.iter().zip(columns).enumerate().find(|(_, (wanted, got))| *wanted != got);
    if let Some((index, (wanted, got))) = differing {
        return Some(format!("column {} is `{got}`, PgBouncer's is `{wanted}`", index + 1));
    }
    (columns.len() != SHOW_POOLS.len())
        .then(|| format!("{} columns, PgBouncer has {}", columns.len(), SHOW_POOLS.len()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn names(columns: &[&str]) -> Vec<String> {
        columns.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn pgbouncers_columns_pass_and_a_missing_one_is_counted() {
        assert_eq!(difference(&names(&SHOW_POOLS)), None);
        assert_eq!(difference(&names(&SHOW_POOLS[..16])), Some("16 columns, PgBouncer has 17".into()));
        assert!(difference(&[]).is_some());
    }

    proptest! {
        #[test]
        fn any_two_columns_swapped_are_found(a in 0usize..17, b in 0usize..17) {
            let mut columns = names(&SHOW_POOLS);
            columns.swap(a, b);
            prop_assert_eq!(difference(&columns).is_none(), a == b);
        }
    }
}
