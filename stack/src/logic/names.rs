//! Which known name is probably meant by one that nobody knows.

/// The nearest of the known names, where it is near enough to be a slip of the hand.
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let name = name.to_ascii_uppercase();
    let tolerated = name.len() / 3;
    let measured = known.into_iter().map(|known| (distance(&name, known), known));
    let (far, known) = measured.min_by_key(|(far, _)| *far)?;
    (far <= tolerated).then_some(known)
}

/// Levenshtein's distance: how many letters must be put in, taken out or changed.
fn distance(one: &str, other: &str) -> usize {
    let other = other.as_bytes();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (line, a) in one.bytes().enumerate() {
        let mut diagonal = line;
        row[0] = line + 1;
        for (column, b) in other.iter().enumerate() {
            let changed = diagonal + usize::from(a != *b);
            diagonal = row[column + 1];
            row[column + 1] = changed.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[other.len()]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KNOWN: [&str; 4] = ["HTTP_PORT", "DB_PORT", "POOLER_DEFAULT_POOL_SIZE", "DEBUG"];

    #[test]
    fn a_slip_of_the_hand_is_recognised_and_another_name_is_not() {
        assert_eq!(nearest("HTPP_PORT", KNOWN), Some("HTTP_PORT"));
        assert_eq!(nearest("POOLER_DEFAULT_POOLSIZE", KNOWN), Some("POOLER_DEFAULT_POOL_SIZE"));
        assert_eq!(nearest("http_port", KNOWN), Some("HTTP_PORT"));
        assert_eq!(nearest("SSL_CERT_FILE", KNOWN), None);
        assert_eq!(nearest("X", KNOWN), None);
        assert_eq!(nearest("DEBUG", []), None);
    }

    /// The definition itself, slow: what the row of figures must agree with.
    fn by_definition(a: &[u8], b: &[u8]) -> usize {
        match (a, b) {
            ([], rest) | (rest, []) => rest.len(),
            ([x, a_rest @ ..], [y, b_rest @ ..]) => {
                let changed = by_definition(a_rest, b_rest) + usize::from(x != y);
                changed.min(by_definition(a_rest, b) + 1).min(by_definition(a, b_rest) + 1)
            }
        }
    }

    proptest! {
        #[test]
        fn the_distance_is_as_defined(a in "[A-C]{0,5}", b in "[A-C]{0,5}") {
            prop_assert_eq!(distance(&a, &b), by_definition(a.as_bytes(), b.as_bytes()));
        }

        #[test]
        fn one_letter_lost_from_a_known_name_is_found_again(at in 0usize..8) {
            let mut name = KNOWN[0].to_owned();
            name.remove(at);
            prop_assert_eq!(nearest(&name, KNOWN), Some(KNOWN[0]));
        }
    }
}
