//! The law of the house, by made-up scripts: no client ever sees another's reply. The fuzz target `pooler_session` plays
//! the same model for longer.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a model may panic, as tests may")]

mod model;

use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]
    #[test]
    fn each_client_sees_what_it_would_see_on_a_postgres_of_its_own(
        script in proptest::collection::vec(any::<u8>(), 0..160),
    ) {
        model::play(&script);
    }
}

/// Scripts that the fuzzer found.
#[test]
fn a_query_skipped_behind_an_error_then_a_bind_of_the_unnamed_statement() {
    model::play(
        b"PGB\x91\0\0\x93OUN\x01\x91\x91\0\0\x93\x01\x91\xf1\x03\xf1\x02d\x01\x04d\x01PGdaa\x01\x91\xf1\x03\
          \xf1\x01BOUNCER_#\xa4\xa5",
    );
}

#[test]
fn a_query_closes_the_unnamed_statement_though_one_before_it_was_skipped() {
    model::play(b"\x00\x00\x00\x70\x04\x04\xc5\xc3\xc3\x04\x04\xc3\x04\xc5");
}

#[test]
fn a_statement_that_failed_and_whose_eviction_was_skipped_is_not_taken_for_prepared() {
    model::play(b"\x32\x70\x00\x5b\x00\xe0\x00\x6e\x00\xf2\x00\x08\x00\x5b\x31\x70");
}
