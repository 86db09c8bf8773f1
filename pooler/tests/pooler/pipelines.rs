//! Traps of pipelining: nobody may see another's reply, whatever is sent, in whatever pieces, and however it fails.

use crate::script::{Batch, Script};
use crate::world::Pooler;

/// One server for all, so that whatever is left behind is found by the next client.
fn narrow() -> Pooler {
    Pooler::start("default_pool_size = 1\nmax_prepared_statements = 50")
}

/// Another client gets its own answer from the same server.
fn assert_clean(pooler: &Pooler) {
    let mut other = Script::connect(pooler);
    assert_eq!(other.value("SELECT 'mine'"), "mine");
    other.send(Batch::new().parse("", "SELECT 7").bind("", &[]).execute(0).sync());
    assert_eq!(other.replies(1), "1 2 D C Z");
}

#[test]
fn pipelined_batches_are_answered_in_order_and_the_server_goes_back_after_the_last() {
    let pooler = narrow();
    let mut client = Script::connect(&pooler);
    let one = |n: &str| Batch::new().parse("", &format!("SELECT '{n}'")).bind("", &[]).execute(0).sync().0;
    client.send_bytes(&[one("a"), one("b"), one("c")].concat());
    assert_eq!([client.column(), client.column(), client.column()].concat(), ["a", "b", "c"]);
    assert_clean(&pooler);
}

#[test]
fn a_pipeline_in_which_a_later_batch_opens_a_transaction_keeps_its_server() {
    let pooler = narrow();
    let mut client = Script::connect(&pooler);
    let batch = Batch::new().query("SELECT 1").query("BEGIN").query("SELECT 2").query("COMMIT");
    client.send(batch);
    assert_eq!(client.replies(4), "T D C Z C ZT T D C ZT C Z");
    assert_clean(&pooler);
}

#[test]
fn a_pipeline_error_skips_to_sync_and_invents_nothing_behind_it() {
    let pooler = narrow();
    let mut client = Script::connect(&pooler);
    client.send(Batch::new().parse("s", "SELECT 1").sync());
    assert_eq!(client.replies(1), "1 Z");
    let failing =
        Batch::new().parse("", "SELECT 1 / (count(*) - count(*)) FROM numbers").bind("", &[]).execute(0);
    client.send(failing.parse("t", "SELECT 1").close("s").sync().query("SELECT 5"));
    assert_eq!(client.replies(2), "1 2 E22012 Z T D C Z");
    assert_clean(&pooler);
}

/// pgbouncer#1555: a batch of Parse and Close without Sync left an invented reply at the head of the queue, and the
/// poisoned server went to the next client.
#[test]
fn parse_and_close_without_sync_do_not_shift_the_replies_of_the_next_client() {
    let pooler = narrow();
    let mut first = Script::connect(&pooler);
    first.send(Batch::new().parse("s", "SELECT 'shared'").sync());
    assert_eq!(first.replies(1), "1 Z");
    let mut second = Script::connect(&pooler);
    second.send(Batch::new().parse("s", "SELECT 'shared'").close("s"));
    assert_eq!(second.some_replies(2), "1 3");
    second.send(Batch::new().query("SELECT 'x'"));
    assert_eq!(second.replies(1), "T D C Z");
    drop(second);
    assert_clean(&pooler);
    assert_eq!(first.value("SELECT 'still mine'"), "still mine");
}

#[test]
fn parse_and_close_without_sync_and_gone_leaves_nothing_behind() {
    let pooler = narrow();
    let mut first = Script::connect(&pooler);
    first.send(Batch::new().parse("s", "SELECT 'shared'").sync());
    assert_eq!(first.replies(1), "1 Z");
    let mut second = Script::connect(&pooler);
    second.send(Batch::new().parse("s", "SELECT 'shared'").close("s").describe("s"));
    drop(second);
    assert_clean(&pooler);
}

#[test]
fn replies_behind_a_flush_come_at_once_and_the_server_stays() {
    let pooler = narrow();
    let mut client = Script::connect(&pooler);
    client.send(Batch::new().parse("", "SELECT 3").describe("").flush());
    assert_eq!(client.some_replies(3), "1 t T");
    client.send(Batch::new().bind("", &[]).execute(0).sync());
    assert_eq!(client.replies(1), "2 D C Z");
    assert_clean(&pooler);
}

#[test]
fn a_flush_behind_the_end_of_a_batch_holds_no_server() {
    let pooler = narrow();
    let batch = Batch::new().parse("", "SELECT 1").bind("", &[]).execute(0).sync().flush();
    for (asked, replies) in [(batch, "1 2 D C Z"), (Batch::new().query("SELECT 1").flush(), "T D C Z")] {
        let mut idle = Script::connect(&pooler);
        idle.send(asked);
        assert_eq!(idle.replies(1), replies);
        assert_eq!(Script::connect(&pooler).value("SELECT 2"), "2");
        assert_clean(&pooler);
    }
}

#[test]
fn a_client_gone_in_the_middle_of_a_batch_takes_its_server_with_it() {
    let pooler = narrow();
    let mut client = Script::connect(&pooler);
    client.send(Batch::new().parse("", "SELECT pg_sleep(0.2)").bind("", &[]).execute(0).flush());
    assert_eq!(client.some_replies(2), "1 2");
    drop(client);
    assert_clean(&pooler);
    pooler.wait_for_log("client disconnect while server was not ready");
}

#[test]
fn a_simple_query_may_stand_in_the_middle_of_a_batch() {
    let pooler = narrow();
    let mut client = Script::connect(&pooler);
    client.send(Batch::new().parse("s", "SELECT 1").query("SELECT 2").bind("s", &[]).execute(0).sync());
    assert_eq!(client.replies(2), "1 T D C Z 2 D C Z");
    assert_clean(&pooler);
}

#[test]
fn a_query_of_many_statements_has_one_ready() {
    let pooler = narrow();
    let mut client = Script::connect(&pooler);
    client.send(Batch::new().query("BEGIN; SELECT 1; COMMIT; SELECT 2").query(";"));
    assert_eq!(client.replies(2), "C T D C C T D C Z I Z");
    assert_clean(&pooler);
}

#[test]
fn a_failed_transaction_counts_as_one() {
    let pooler = narrow();
    let mut client = Script::connect(&pooler);
    client.send(Batch::new().query("BEGIN").query("SELECT 1/0"));
    assert_eq!(client.replies(2), "C ZT E22012 ZE");
    client.send(Batch::new().query("SELECT 1").query("ROLLBACK"));
    assert_eq!(client.replies(2), "E25P02 ZE C Z");
    assert_clean(&pooler);
}

#[test]
fn a_portal_that_is_suspended_goes_on_at_the_same_server() {
    let pooler = narrow();
    let mut client = Script::connect(&pooler);
    client.send(Batch::new().query("BEGIN"));
    assert_eq!(client.replies(1), "C ZT");
    client.send(Batch::new().parse("", "SELECT n FROM numbers").bind("", &[]).execute(2).sync());
    assert_eq!(client.replies(1), "1 2 D s ZT");
    client.send(Batch::new().execute(2).sync().query("COMMIT"));
    assert_eq!(client.replies(2), "D s ZT C Z");
    assert_clean(&pooler);
}

#[test]
fn a_function_call_is_answered() {
    let pooler = narrow();
    let mut client = Script::connect(&pooler);
    let oid: u32 = client.value("SELECT 'int4inc'::regproc::oid").parse().unwrap();
    let mut body = oid.to_be_bytes().to_vec();
    body.extend([0, 0, 0, 1, 0, 0, 0, 2]);
    body.extend(b"41");
    body.extend([0, 0]);
    client.send(Batch::new().raw(b'F', &body).query("SELECT 1"));
    assert_eq!(client.replies(2), "V Z T D C Z");
    assert_clean(&pooler);
}

#[test]
fn messages_split_at_every_byte_are_the_same_messages() {
    let pooler = narrow();
    let mut client = Script::connect(&pooler);
    let batch =
        Batch::new().parse("split", "SELECT $1::text").bind("split", &["x"]).execute(0).close("split").sync();
    for byte in &batch.0 {
        client.send_bytes(&[*byte]);
    }
    assert_eq!(client.replies(1), "1 2 D C 3 Z");
    for cut in 1..batch.0.len() {
        client.send_bytes(&batch.0[..cut]);
        client.send_bytes(&batch.0[cut..]);
        assert_eq!(client.replies(1), "1 2 D C 3 Z", "cut at {cut}");
    }
    assert_clean(&pooler);
}

#[test]
fn large_messages_pass_both_ways() {
    let pooler = narrow();
    let mut client = Script::connect(&pooler);
    let big = "y".repeat(5_000_000);
    client.send(Batch::new().parse("big", "SELECT $1::text").bind("big", &[&big]).execute(0).sync());
    assert_eq!(client.column(), [big.as_str()]);
    assert_eq!(client.value(&format!("SELECT '{big}'")).len(), big.len());
    client.send(
        Batch::new().parse("", &format!("SELECT length('{big}')::text")).bind("", &[]).execute(0).sync(),
    );
    assert_eq!(client.column(), ["5000000"]);
    assert_clean(&pooler);
}

#[test]
fn a_slow_reader_does_not_hold_up_others_and_gets_all() {
    let pooler = Pooler::start("default_pool_size = 2\nworker_threads = 1");
    let mut slow = Script::connect(&pooler);
    slow.send(Batch::new().query("SELECT repeat('z', 1000) FROM generate_series(1, 30000)"));
    let mut quick = Script::connect(&pooler);
    for _ in 0..20 {
        assert_eq!(quick.value("SELECT 'quick'"), "quick");
    }
    assert_eq!(slow.column().len(), 30_000);
}

#[test]
fn a_client_that_sends_much_before_it_reads_is_served() {
    let pooler = narrow();
    let mut client = Script::connect(&pooler);
    let mut writer = client.stream.try_clone().unwrap();
    let one = Batch::new().parse("", "SELECT repeat('w', 2000)").bind("", &[]).execute(0).sync().0;
    let sender = std::thread::spawn(move || {
        for _ in 0..3000 {
            crate::world::write(&mut writer, &one);
        }
    });
    for _ in 0..3000 {
        assert_eq!(client.column()[0].len(), 2000);
    }
    sender.join().unwrap();
    assert_clean(&pooler);
}

#[test]
fn malformed_messages_end_the_client_and_harm_nobody() {
    let pooler = narrow();
    for bytes in
        [&b"Q\0\0\0\x03"[..], b"Q\xff\xff\xff\xff", b"?\0\0\0\x04", b"P\0\0\0\x08abcd", b"B\0\0\0\x05a"]
    {
        let mut client = Script::connect(&pooler);
        client.send_bytes(bytes);
        assert!(client.last_error().contains("FATAL"), "{bytes:?}");
        assert_clean(&pooler);
    }
}

#[test]
fn a_batch_that_failed_is_skipped_to_its_sync_whatever_names_it_uses() {
    let pooler = narrow();
    let mut client = Script::connect(&pooler);
    // In two parts: the error is known before the rest comes.
    client.send(Batch::new().parse("bad", "selec 1").flush());
    assert_eq!(client.some_replies(1), "E42601");
    client.send(
        Batch::new().bind("bad", &[]).execute(0).parse("n", "SELECT 1").close("n").query("SELECT 2").sync(),
    );
    assert_eq!(client.replies(1), "Z");
    client.send(Batch::new().parse("n", "SELECT 1").bind("n", &[]).execute(0).sync());
    assert_eq!(client.replies(1), "1 2 D C Z");
    assert_clean(&pooler);
}
