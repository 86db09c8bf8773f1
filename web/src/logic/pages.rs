//! Keyset pages: limits, the opaque mark of the next page, and the envelope of every list.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

const LIMIT_DEFAULT: i64 = 20;
const LIMIT_MAX: i64 = 100;

/// How many items a page may hold: 1 to 100.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit(i64);

impl Limit {
    /// # Errors
    /// What is allowed.
    pub fn new(asked: Option<i64>) -> Result<Self, &'static str> {
        match asked {
            None => Ok(Self(LIMIT_DEFAULT)),
            Some(limit) if (1..=LIMIT_MAX).contains(&limit) => Ok(Self(limit)),
            Some(_) => Err("must be from 1 to 100"),
        }
    }

    /// One row more than the page: whether it comes tells whether there is another page.
    pub fn with_one_more(self) -> i64 {
        self.0 + 1
    }

    fn len(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

/// One page of a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct List<T> {
    pub items: Vec<T>,
    pub has_more: bool,
    /// What to send to get the next page; null on the last one.
    pub next: Option<String>,
}

impl<T> List<T> {
    /// Makes a page of rows that were asked for with [`Limit::with_one_more`].
    pub fn new(rows: Vec<T>, limit: Limit, mark: impl Fn(&T) -> String) -> Self {
        let mut items = rows;
        let has_more = items.len() > limit.len();
        items.truncate(limit.len());
        let next = items.last().filter(|_| has_more).map(mark);
        Self { items, has_more, next }
    }

    /// The same for rows read backwards and turned round: what is too much stands first.
    pub fn backwards(rows: Vec<T>, limit: Limit, mark: impl Fn(&T) -> String) -> Self {
        let mut items = rows;
        let has_more = items.len() > limit.len();
        items.drain(..items.len().saturating_sub(limit.len()));
        let next = items.first().filter(|_| has_more).map(mark);
        Self { items, has_more, next }
    }
}

/// The mark of a page that starts behind `id`.
pub fn mark(id: Uuid) -> String {
    URL_SAFE_NO_PAD.encode(id.as_bytes())
}

/// Reads what [`mark`] made.
pub fn read_mark(text: &str) -> Option<Uuid> {
    Uuid::from_slice(&URL_SAFE_NO_PAD.decode(text).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn limits_are_from_1_to_100_and_20_by_default() {
        assert_eq!(Limit::new(None).unwrap().len(), 20);
        assert!(Limit::new(Some(1)).is_ok() && Limit::new(Some(100)).is_ok());
        assert!(Limit::new(Some(0)).is_err() && Limit::new(Some(101)).is_err());
    }

    proptest! {
        #[test]
        fn walking_the_pages_gives_every_item_once(total in 0i64..60, asked in 1i64..10) {
            let limit = Limit::new(Some(asked)).unwrap();
            let (mut seen, mut after): (Vec<i64>, i64) = (Vec::new(), 0);
            loop {
                let rows: Vec<i64> = (after + 1..=total).take(limit.with_one_more() as usize).collect();
                let page = List::new(rows, limit, i64::to_string);
                seen.extend(&page.items);
                prop_assert_eq!(page.has_more, page.next.is_some());
                match page.next {
                    Some(next) => after = next.parse().unwrap(),
                    None => break,
                }
            }
            prop_assert_eq!(seen, (1..=total).collect::<Vec<_>>());
        }

        #[test]
        fn walking_backwards_gives_every_item_once(total in 0i64..60, asked in 1i64..10) {
            let limit = Limit::new(Some(asked)).unwrap();
            let (mut seen, mut before) = (Vec::new(), total + 1);
            loop {
                let first = (before - limit.with_one_more()).max(1);
                let page = List::backwards((first..before).collect(), limit, i64::to_string);
                seen.splice(0..0, page.items.iter().copied());
                match page.next {
                    Some(next) => before = next.parse().unwrap(),
                    None => break,
                }
            }
            prop_assert_eq!(seen, (1..=total).collect::<Vec<_>>());
        }

        #[test]
        fn a_mark_gives_back_its_id_and_other_text_gives_nothing_or_an_id(id: u128, text in ".{0,30}") {
            prop_assert_eq!(read_mark(&mark(Uuid::from_u128(id))), Some(Uuid::from_u128(id)));
            let _ = read_mark(&text);
        }
    }
}
