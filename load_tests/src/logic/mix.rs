//! Which kind of virtual user each number is, so that any first N of them have the mix that was asked for.

use std::fmt;
use std::str::FromStr;

/// What a virtual user does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    Api,
    Stream,
    Socket,
}

impl Role {
    pub const ALL: [Self; 3] = [Self::Api, Self::Stream, Self::Socket];

    pub fn word(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::Stream => "stream",
            Self::Socket => "ws",
        }
    }
}

/// Shares of the three kinds of users.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mix {
    shares: [u32; 3],
}

const SHARE_MAX: u32 = 1000;

impl Mix {
    pub const API: Self = Self { shares: [1, 0, 0] };
    pub const STREAM: Self = Self { shares: [0, 1, 0] };
    pub const SOCKET: Self = Self { shares: [0, 0, 1] };
    /// Most people read and write, some wait for an answer, some sit in a room.
    pub const MIXED: Self = Self { shares: [6, 2, 2] };

    /// The kind of user `number` (from 0).
    pub fn role_of(&self, number: u32) -> Role {
        self.roles(number + 1).pop().expect("one role per number")
    }

    /// The kinds of the first `users` users, spread evenly (smooth weighted round robin).
    pub fn roles(&self, users: u32) -> Vec<Role> {
        let sum: i64 = self.shares.iter().map(|share| i64::from(*share)).sum();
        let mut credit = [0i64; 3];
        (0..users)
            .map(|_| {
                for (credit, share) in credit.iter_mut().zip(self.shares) {
                    *credit += i64::from(share);
                }
                let best = (0..3).rev().max_by_key(|i| credit[*i]).expect("three roles");
                credit[best] -= sum;
                Role::ALL[best]
            })
            .collect()
    }
}

impl FromStr for Mix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut shares = [0; 3];
        for part in text.split(',') {
            let bad = || format!("`{part}` in the mix `{text}`: write api=6,stream=2,ws=2");
            let (word, share) = part.trim().split_once('=').ok_or_else(bad)?;
            let index = Role::ALL.iter().position(|role| role.word() == word.trim()).ok_or_else(bad)?;
            shares[index] = share.trim().parse().ok().filter(|n| *n <= SHARE_MAX).ok_or_else(bad)?;
        }
        if shares == [0; 3] { Err(format!("the mix `{text}` has no users")) } else { Ok(Self { shares }) }
    }
}

impl fmt::Display for Mix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = Role::ALL.iter().zip(self.shares).filter(|(_, share)| *share > 0);
        let words: Vec<String> = parts.map(|(role, share)| format!("{}={share}", role.word())).collect();
        f.write_str(&words.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_mix_is_read_and_written_back() {
        assert_eq!("api=6, stream=2,ws=2".parse(), Ok(Mix::MIXED));
        assert_eq!(Mix::MIXED.to_string(), "api=6,stream=2,ws=2");
        for text in ["", "api", "api=x", "web=1", "api=0", "api=1001", "api=1;ws=1"] {
            assert!(text.parse::<Mix>().is_err(), "{text}");
        }
    }

    #[test]
    fn the_first_users_already_have_the_mix() {
        let roles = Mix::MIXED.roles(10);
        let count = |role| roles.iter().filter(|r| **r == role).count();
        assert_eq!((count(Role::Api), count(Role::Stream), count(Role::Socket)), (6, 2, 2));
        assert_eq!(Mix::MIXED.role_of(9), roles[9]);
    }

    proptest! {
        #[test]
        fn every_first_n_is_within_two_users_of_its_share(api in 0u32..20, stream in 0u32..20, ws in 1u32..20, n in 1u32..300) {
            let mix = Mix { shares: [api, stream, ws] };
            let roles = mix.roles(n);
            for (role, share) in Role::ALL.iter().zip(mix.shares) {
                let have = roles.iter().filter(|r| *r == role).count() as f64;
                let due = f64::from(n) * f64::from(share) / f64::from(api + stream + ws);
                prop_assert!((have - due).abs() < 2.0, "{role:?} {have} {due}");
            }
        }
    }
}
