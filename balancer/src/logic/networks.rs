//! What belongs to which addresses: ranges painted one over the other, as `geo` does. A look-up is one search in a tree.

use std::collections::BTreeMap;
use std::net::IpAddr;

/// Values by address, IPv4 and IPv6 apart: `::/0` says nothing about IPv4.
#[derive(Debug)]
pub struct Networks<T> {
    v4: Line<T>,
    v6: Line<T>,
}

/// Each key begins a stretch that lasts to the next key.
#[derive(Debug)]
struct Line<T> {
    starts: BTreeMap<u128, Option<T>>,
}

impl<T> Default for Networks<T> {
    fn default() -> Networks<T> {
        let line = || Line { starts: BTreeMap::from([(0, None)]) };
        Networks { v4: line(), v6: line() }
    }
}

impl<T: Clone> Networks<T> {
    /// From here to there, both included; what was painted there before is gone. Ends of two families paint nothing.
    pub fn paint(&mut self, first: IpAddr, last: IpAddr, value: Option<T>) {
        match (first, last) {
            (IpAddr::V4(first), IpAddr::V4(last)) => {
                self.v4.paint(u32::from(first).into(), u32::from(last).into(), value);
            }
            (IpAddr::V6(first), IpAddr::V6(last)) => self.v6.paint(first.into(), last.into(), value),
            _ => {}
        }
    }

    pub fn find(&self, address: IpAddr) -> Option<&T> {
        match address {
            IpAddr::V4(address) => self.v4.find(u32::from(address).into()),
            IpAddr::V6(address) => self.v6.find(address.into()),
        }
    }
}

impl<T: Clone> Line<T> {
    fn find(&self, at: u128) -> Option<&T> {
        self.starts.range(..=at).next_back().and_then(|(_, value)| value.as_ref())
    }

    fn paint(&mut self, first: u128, last: u128, value: Option<T>) {
        if first > last {
            return;
        }
        if let Some(after) = last.checked_add(1) {
            let resumed = self.find(last + 1).cloned();
            self.starts.entry(after).or_insert(resumed);
            let inside: Vec<u128> = self.starts.range(first..after).map(|(start, _)| *start).collect();
            inside.iter().for_each(|start| drop(self.starts.remove(start)));
        } else {
            self.starts.split_off(&first);
        }
        self.starts.insert(first, value);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn families_do_not_mix() {
        let mut networks = Networks::default();
        networks.paint(
            "::".parse().unwrap(),
            "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff".parse().unwrap(),
            Some(6),
        );
        assert_eq!(networks.find("1.2.3.4".parse().unwrap()), None);
        assert_eq!(networks.find("::1".parse().unwrap()), Some(&6));
        networks.paint("0.0.0.0".parse().unwrap(), "255.255.255.255".parse().unwrap(), Some(4));
        assert_eq!(networks.find("255.255.255.255".parse().unwrap()), Some(&4));
    }

    proptest! {
        #[test]
        fn the_last_paint_counts_at_each_address(
            strokes in proptest::collection::vec((0u8..32, 0u8..32, proptest::option::of(0u8..9)), 0..20),
        ) {
            let ip = |n: u8| IpAddr::from([10, 0, 0, n]);
            let (mut networks, mut plain) = (Networks::default(), [None; 32]);
            for (first, last, value) in strokes {
                networks.paint(ip(first), ip(last), value);
                for n in first..=last {
                    plain[usize::from(n)] = value;
                }
            }
            for n in 0..32u8 {
                prop_assert_eq!(networks.find(ip(n)).copied(), plain[usize::from(n)]);
            }
        }
    }
}
