use super::*;
use proptest::prelude::*;

const KEY: Key = Key { kind: Kind::Get, name: "/api/users" };

fn sample(ms: u64) -> Sample<'static> {
    Sample { key: KEY, took: Duration::from_millis(ms), body_bytes: 10, fault: None }
}

#[test]
fn figures_add_up_over_entries() {
    let mut stats = Stats::default();
    for ms in 1..=100 {
        stats.on_sample(&sample(ms), Duration::from_secs(1));
    }
    let total = stats.total();
    assert_eq!((total.requests, total.failures, total.min_ms(), total.max_ms()), (100, 0, 1.0, 100.0));
    assert!((total.mean_ms() - 50.5).abs() < 1e-9);
    assert!((total.percentile_ms(0.5).expect("100 samples") - 50.0).abs() < 0.1);
    assert!((total.mean_bytes() - 10.0).abs() < 1e-9);
}

#[test]
fn no_p99_is_told_below_a_thousand_samples() {
    let mut stats = Stats::default();
    for _ in 0..999 {
        stats.on_sample(&sample(5), Duration::ZERO);
    }
    assert_eq!(stats.total().percentile_ms(0.99), None);
    assert!(stats.total().percentile_ms(0.95).is_some());
    stats.on_sample(&sample(5), Duration::ZERO);
    assert_eq!(stats.total().percentile_ms(0.99), Some(5.0));
    assert_eq!(stats.total().percentile_ms(0.999), None);
}

#[test]
fn spans_are_listed_but_not_added_up() {
    let mut stats = Stats::default();
    let span = Sample { key: Key { kind: Kind::Span, name: "first token" }, ..sample(3) };
    stats.on_sample(&span, Duration::ZERO);
    assert_eq!((stats.total().requests, stats.entries().count()), (0, 1));
}

#[test]
fn the_recent_past_is_ten_seconds_long() {
    let mut stats = Stats::default();
    for second in 0..60 {
        stats.on_sample(&sample(second + 1), Duration::from_secs(second));
    }
    let recent = stats.recent(Duration::from_secs(59));
    assert_eq!(recent.figures.requests, 10);
    assert!((recent.requests_per_s - 1.0).abs() < 1e-9);
    assert_eq!(recent.figures.min_ms(), 51.0);
    assert_eq!(stats.recent(Duration::from_secs(500)).figures.requests, 0);
}

#[test]
fn equal_faults_are_counted_together_with_the_first_as_example() {
    let mut stats = Stats::default();
    for n in 0..5 {
        let fault = Fault::order("an offset came twice", format!("{n}"));
        stats.on_sample(&Sample { fault: Some(&fault), ..sample(1) }, Duration::from_secs(n));
    }
    let (_, headline, seen) = stats.faults().next().expect("one fault");
    assert_eq!(headline, "wrong order: an offset came twice");
    assert_eq!((seen.count, seen.first, seen.last), (5, Duration::ZERO, Duration::from_secs(4)));
    assert!(seen.example.to_string().ends_with(": 0"));
    assert_eq!(stats.failures(), 5);
}

#[test]
fn a_server_that_invents_faults_does_not_fill_the_memory() {
    let mut stats = Stats::default();
    for n in 0..1000 {
        let fault = Fault::Connect(format!("{n}"));
        stats.on_sample(&Sample { fault: Some(&fault), ..sample(1) }, Duration::ZERO);
    }
    assert_eq!(stats.faults().count(), FAULTS_MAX + 1);
    assert_eq!(stats.faults().map(|(_, _, seen)| seen.count).sum::<u64>(), 1000);
}

proptest! {
    #[test]
    fn percentiles_rise_and_stay_between_least_and_most(times in proptest::collection::vec(0u64..700_000_000, 1..400)) {
        let mut stats = Stats::default();
        for us in &times {
            stats.on_sample(&Sample { took: Duration::from_micros(*us), ..sample(0) }, Duration::ZERO);
        }
        let told: Vec<f64> = PERCENTILES.iter().filter_map(|(q, _)| stats.total().percentile_ms(*q)).collect();
        prop_assert!(told.windows(2).all(|pair| pair[0] <= pair[1]));
        prop_assert!(told.iter().all(|ms| *ms <= stats.total().max_ms()));
    }

    #[test]
    fn the_median_is_right_to_three_digits(mut times in proptest::collection::vec(1000u64..100_000_000, 1..200)) {
        let mut stats = Stats::default();
        for us in &times {
            stats.on_sample(&Sample { took: Duration::from_micros(*us), ..sample(0) }, Duration::ZERO);
        }
        times.sort_unstable();
        let exact_ms = times[(times.len() - 1) / 2] as f64 / 1000.0;
        let told_ms = stats.total().percentile_ms(0.5).expect("at least one sample");
        prop_assert!((told_ms - exact_ms).abs() / exact_ms < 0.002, "{told_ms} {exact_ms}");
    }
}

#[test]
fn a_wrong_order_is_told_by_name_however_many_faults_there_are() {
    let mut stats = Stats::default();
    let told = |stats: &mut Stats, fault: &Fault| {
        stats.on_sample(&Sample { fault: Some(fault), ..sample(1) }, Duration::ZERO);
    };
    for n in 0..FAULTS_MAX + 10 {
        told(&mut stats, &Fault::Cut(format!("cause {n}")));
    }
    assert_eq!(stats.disorders().count(), 0);
    told(&mut stats, &Fault::order("an offset came twice or late", "7 came for 8"));
    let found: Vec<_> = stats.disorders().map(|(_, headline, seen)| (headline, seen.count)).collect();
    assert_eq!(found, [("wrong order: an offset came twice or late", 1)]);
}

#[test]
fn a_wrong_form_is_a_disorder_where_it_came_over_a_socket() {
    let mut stats = Stats::default();
    let fault = Fault::shape("not JSON", "x");
    stats.on_sample(&Sample { fault: Some(&fault), ..sample(1) }, Duration::ZERO);
    assert_eq!(stats.disorders().count(), 0, "an answer of HTTP is asked for again");
    let key = Key { kind: Kind::Socket, name: "frames" };
    stats.on_sample(&Sample { key, fault: Some(&fault), ..sample(1) }, Duration::ZERO);
    assert_eq!(stats.disorders().count(), 1);
}
