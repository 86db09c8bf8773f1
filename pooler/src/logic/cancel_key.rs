//! Our cancel keys: random, and behind several poolers on one address also who made them and how far they may travel.
//! Which bits say what is PgBouncer's, so that poolers and PgBouncers can be each other's peers.

use std::fmt;

/// The two lowest bits of the last byte: how many more peers may pass the request on.
const HOPS_MASK: u64 = 0x03;

/// A key of eight bytes, the first on top: four that the protocol calls a process id, four of secret.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ClientKey(u64);

/// A key opens the door to cancelling a query: it is not shown.
impl fmt::Debug for ClientKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientKey(…)")
    }
}

/// Where a cancel request has to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    /// To a client of this process.
    Here(ClientKey),
    /// To the pooler with this peer_id, under this key.
    Peer(u16, ClientKey),
    /// It was passed on too often: two poolers each think the other one made it.
    Exhausted,
}

impl ClientKey {
    /// From 64 random bits. Without a peer_id 63 of them stay, with one 45.
    pub fn new(random: u64, peer_id: u16) -> ClientKey {
        // Drivers take the first half for a signed number, and some mind a negative one.
        let positive = random & !(1 << 63);
        if peer_id == 0 {
            return ClientKey(positive);
        }
        let peer = u64::from(peer_id.swap_bytes()) << 40;
        ClientKey(positive & !(0xffff << 40) | peer | HOPS_MASK)
    }

    pub fn from_halves(process_id: u32, secret: [u8; 4]) -> ClientKey {
        ClientKey(u64::from(process_id) << 32 | u64::from(u32::from_be_bytes(secret)))
    }

    pub fn process_id(self) -> u32 {
        (self.0 >> 32) as u32
    }

    pub fn secret(self) -> [u8; 4] {
        (self.0 as u32).to_be_bytes()
    }

    /// Where a request with this key goes, seen from the pooler `own_id`; 0 = it has no peers.
    pub fn route(self, own_id: u16) -> Route {
        if own_id == 0 {
            return Route::Here(self);
        }
        let maker = ((self.0 >> 40) as u16).swap_bytes();
        if maker == own_id {
            return Route::Here(ClientKey(self.0 | HOPS_MASK));
        }
        match self.0 & HOPS_MASK {
            0 => Route::Exhausted,
            _ => Route::Peer(maker, ClientKey(self.0 - 1)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_peer_id_is_in_the_second_and_third_byte() {
        let key = ClientKey::new(u64::MAX, 0x0102);
        assert_eq!(key.process_id().to_be_bytes(), [0x7f, 0x02, 0x01, 0xff]);
        assert_eq!(key.secret()[3] & 3, 3);
        assert_eq!(ClientKey::new(0, 0x0102).process_id(), 0x0002_0100);
    }

    proptest! {
        #[test]
        fn a_request_finds_its_maker_within_three_hops(random: u64, maker in 1..=16_383u16, other in 1..=16_383u16) {
            prop_assume!(maker != other);
            let key = ClientKey::new(random, maker);
            let mut travelling = key;
            for _ in 0..3 {
                let Route::Peer(to, next) = travelling.route(other) else { panic!("it was not passed on") };
                prop_assert_eq!(to, maker);
                prop_assert_eq!(next.route(maker), Route::Here(key), "the maker knows its own key again");
                travelling = next;
            }
            prop_assert_eq!(travelling.route(other), Route::Exhausted);
        }

        #[test]
        fn without_peers_every_key_is_our_own(random: u64, bits: u64) {
            prop_assert_eq!(ClientKey(bits).route(0), Route::Here(ClientKey(bits)));
            let key = ClientKey::new(random, 0);
            prop_assert_eq!(ClientKey::from_halves(key.process_id(), key.secret()), key);
            prop_assert!(key.process_id() as i32 >= 0);
        }
    }
}
