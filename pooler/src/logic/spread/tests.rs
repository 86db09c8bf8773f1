use proptest::prelude::*;

use super::*;

const BUSY: f64 = 0.7;

fn load(share: f64, lively: u32) -> Load {
    Load { share, lively }
}

#[test]
fn a_load_that_one_worker_carries_stays_on_one() {
    let mut spread = Spread::new(BUSY);
    for _ in 0..100 {
        let quotas = spread.look(&[load(0.55, 32), load(0.0, 0)]);
        assert_eq!(quotas, [Quota::default(); 2]);
    }
    assert_eq!(spread.in_use(), 1);
}

#[test]
fn a_busy_worker_gives_half_of_its_load_to_another() {
    let mut spread = Spread::new(BUSY);
    let quotas = spread.look(&[load(0.8, 32), load(0.0, 0), load(0.0, 0)]);
    assert_eq!(spread.in_use(), 2);
    assert_eq!(quotas, [Quota { leave: 16, take: 0 }, Quota { leave: 0, take: 16 }, Quota::default()]);
}

#[test]
fn saturated_workers_are_doubled() {
    let mut spread = Spread::new(BUSY);
    let mut seen = Vec::new();
    for _ in 0..4 {
        let in_use = spread.in_use();
        let loads: Vec<Load> = (0..8).map(|w| load(if w < in_use { 1.0 } else { 0.0 }, 50)).collect();
        spread.look(&loads);
        seen.push(spread.in_use());
    }
    assert_eq!(seen, [2, 4, 8, 8]);
}

#[test]
fn a_load_that_has_gone_brings_the_clients_together_after_a_while() {
    let mut spread = Spread::new(BUSY);
    spread.look(&[load(1.0, 10), load(0.0, 0)]);
    let light = [load(0.1, 5), load(0.1, 5)];
    for _ in 1..LIGHT_LOOKS {
        assert_eq!(spread.look(&light), [Quota::default(); 2]);
    }
    assert_eq!(spread.look(&light), [Quota { leave: 0, take: 5 }, Quota { leave: 5, take: 0 }]);
    assert_eq!(spread.in_use(), 1);
}

#[test]
fn a_short_lull_changes_nothing() {
    let mut spread = Spread::new(BUSY);
    spread.look(&[load(1.0, 10), load(0.0, 0)]);
    for _ in 0..20 {
        for _ in 1..LIGHT_LOOKS {
            spread.look(&[load(0.0, 0), load(0.0, 0)]);
        }
        spread.look(&[load(0.5, 5), load(0.5, 5)]);
    }
    assert_eq!(spread.in_use(), 2);
}

#[test]
fn a_client_that_makes_all_the_load_alone_stays_where_it_is() {
    let mut spread = Spread::new(BUSY);
    for _ in 0..10 {
        let quotas = spread.look(&[load(1.0, 1), load(0.0, 0), load(0.0, 0)]);
        assert!(quotas.iter().all(|quota| quota.leave == 0), "{quotas:?}");
    }
}

/// Clients of one weight, moved as the quotas say; a worker does no more than a core can.
fn settle(workers: usize, clients: u32, weight: f64, looks: usize) -> (Spread, Vec<u32>, Vec<Quota>) {
    let mut spread = Spread::new(BUSY);
    let mut seats = vec![0; workers];
    seats[0] = clients;
    let mut last = Vec::new();
    for _ in 0..looks {
        let loads: Vec<Load> = seats.iter().map(|n| load((f64::from(*n) * weight).min(1.0), *n)).collect();
        let mut quotas = spread.look(&loads);
        last.clone_from(&quotas);
        for from in 0..workers {
            while quotas[from].leave > 0
                && let Some(to) = quotas.iter().position(|quota| quota.take > 0)
            {
                quotas[from].leave -= 1;
                quotas[to].take -= 1;
                seats[from] -= 1;
                seats[to] += 1;
            }
        }
    }
    (spread, seats, last)
}

proptest! {
    #[test]
    fn whoever_leaves_finds_room_with_one_that_serves(
        loads in prop::collection::vec((0.0f64..=1.0, 0u32..500), 1..17), looks in 1usize..20,
    ) {
        let loads: Vec<Load> = loads.into_iter().map(|(share, lively)| load(share, lively)).collect();
        let mut spread = Spread::new(BUSY);
        for _ in 0..looks {
            let quotas = spread.look(&loads);
            prop_assert!((1..=loads.len()).contains(&spread.in_use()));
            let leave: u32 = quotas.iter().map(|quota| quota.leave).sum();
            let take: u32 = quotas.iter().map(|quota| quota.take).sum();
            prop_assert!(leave <= take, "{quotas:?}");
            for (worker, (quota, load)) in quotas.iter().zip(&loads).enumerate() {
                prop_assert!(quota.leave <= load.lively);
                prop_assert!(quota.leave == 0 || quota.take == 0, "nobody goes in a circle");
                prop_assert!(worker < spread.in_use() || quota.take == 0);
            }
        }
    }

    #[test]
    fn a_steady_load_comes_to_rest_on_as_few_workers_as_carry_it(
        workers in 1usize..17, clients in 1u32..400, weight in 0.0005f64..0.2,
    ) {
        let (spread, seats, last) = settle(workers, clients, weight, 100);
        prop_assert!(last.iter().all(|quota| quota.leave == 0), "{seats:?} {last:?}");
        prop_assert_eq!(seats.iter().sum::<u32>(), clients);
        let total = f64::from(clients) * weight;
        prop_assert!(spread.in_use() == workers || total / spread.in_use() as f64 <= SATURATED);
        prop_assert!(spread.in_use() == 1 || total > LIGHT * BUSY * (spread.in_use() - 1) as f64);
        let heaviest = f64::from(*seats.iter().max().unwrap()) * weight;
        if total / workers as f64 <= BUSY {
            prop_assert!(heaviest <= total / spread.in_use() as f64 + UNEVEN * BUSY + weight, "{seats:?}");
        }
    }
}
