//! Drivers with their default settings in transaction mode, over fewer servers than they have transactions.
//! Those of other languages run the scripts in tests/drivers/.

use std::path::Path;
use std::process::Command;

use futures_util::{SinkExt, TryStreamExt};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{ConnectOptions, Connection, Executor, Row};
use tokio_postgres::error::SqlState;

use crate::script::{Batch, Script};
use crate::world::{Pooler, postgres, wait_until};

/// Two servers, and another client who takes one of them now and then.
fn pooler() -> Pooler {
    Pooler::start("default_pool_size = 2")
}

/// Takes and gives back servers all the time, so that nobody keeps the one it had.
struct Rival {
    stop: std::sync::Arc<std::sync::atomic::AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Rival {
    fn of(pooler: &Pooler) -> Rival {
        let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let (mut client, stopped) = (Script::connect(pooler), stop.clone());
        let thread = std::thread::spawn(move || {
            while !stopped.load(std::sync::atomic::Ordering::Relaxed) {
                client.send(Batch::new().query("BEGIN").query("SELECT pg_sleep(0.001)").query("COMMIT"));
                assert_eq!(client.replies(3), "C ZT T D C ZT C Z");
                client.send(Batch::new().parse("", "SELECT 'rival'").bind("", &[]).execute(0).sync());
                assert_eq!(client.column(), ["rival"]);
            }
        });
        Rival { stop, thread: Some(thread) }
    }
}

impl Drop for Rival {
    fn drop(&mut self) {
        self.stop.store(true, std::sync::atomic::Ordering::Relaxed);
        let ended = self.thread.take().map(std::thread::JoinHandle::join);
        assert!(std::thread::panicking() || matches!(ended, Some(Ok(()))), "the rival got another's reply");
    }
}

fn run(pooler: &Pooler, program: &str, args: &[&str]) -> String {
    let port = pooler.port.to_string();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/drivers");
    let output = Command::new(program)
        .args(args)
        .arg(&port)
        .current_dir(folder)
        .output()
        .unwrap_or_else(|error| panic!("{program} is not installed: {error}"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

#[test]
fn psycopg_is_served() {
    let pooler = pooler();
    let _rival = Rival::of(&pooler);
    assert!(run(&pooler, "/usr/bin/python3", &["with_psycopg.py"]).contains("is served"));
}

#[test]
fn asyncpg_is_served() {
    let pooler = pooler();
    let _rival = Rival::of(&pooler);
    assert!(run(&pooler, "/usr/bin/python3", &["with_asyncpg.py"]).contains("is served"));
}

#[test]
fn jdbc_is_served() {
    let pooler = pooler();
    let _rival = Rival::of(&pooler);
    let args = ["-cp", "/usr/share/java/postgresql.jar", "WithJdbc.java"];
    assert!(run(&pooler, "java", &args).contains("is served"));
}

#[test]
fn psql_is_served() {
    let pooler = pooler();
    let _rival = Rival::of(&pooler);
    let script = "\\set ON_ERROR_STOP on\n\
                  BEGIN;\nCREATE TEMP TABLE by_psql (n int) ON COMMIT DROP;\n\\copy by_psql from program 'seq 500'\n\
                  SELECT count(*) AS n FROM by_psql \\gset\nCOMMIT;\n\\echo :n\n\
                  \\d numbers\n\
                  SELECT 'row ' || n FROM generate_series(1, 3) n;\n";
    let mut child = Command::new("psql")
        .args(["-X", "-A", "-t", "-h", "127.0.0.1", "-U", "postgres", "-d", "postgres", "-f", "-"])
        .args(["-p", &pooler.port.to_string()])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("psql is installed");
    let mut input = child.stdin.take().expect("it is piped");
    std::io::Write::write_all(&mut input, script.as_bytes()).expect("psql reads");
    drop(input);
    let output = child.wait_with_output().expect("psql ends");
    let shown = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && shown.contains("500") && shown.contains("row 3"), "{shown}");
}

#[test]
fn pgbench_is_served_in_each_of_its_protocols() {
    let pooler = pooler();
    let port = pooler.port.to_string();
    let bench = |args: &[&str]| {
        let output = Command::new("pgbench")
            .args(["-h", "127.0.0.1", "-p", &port, "-U", "postgres"])
            .args(args)
            .arg("postgres")
            .output()
            .expect("pgbench is installed");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{args:?} {}", String::from_utf8_lossy(&output.stderr));
        text
    };
    bench(&["-i", "-s", "1", "-q"]);
    for protocol in ["simple", "extended", "prepared"] {
        for builtin in ["tpcb-like", "select-only"] {
            // A thread for each client: pgbench waits for a PREPARE with its whole thread, servers in hand or not.
            let text = bench(&["-M", protocol, "-b", builtin, "-c", "8", "-j", "8", "-t", "30"]);
            assert!(text.contains("number of transactions actually processed: 240/240"), "{protocol} {text}");
            assert!(text.contains("number of failed transactions: 0"), "{protocol} {text}");
        }
    }
}

#[tokio::test]
async fn tokio_postgres_is_served() {
    let pooler = pooler();
    let _rival = Rival::of(&pooler);
    let mut client = pooler.client().await;
    let statement = client.prepare("SELECT $1::int + 1").await.unwrap();
    for n in 0..20 {
        let transaction = client.transaction().await.unwrap();
        assert_eq!(transaction.query_one(&statement, &[&n]).await.unwrap().get::<_, i32>(0), n + 1);
        transaction.commit().await.unwrap();
    }
    let numbers: Vec<i32> = (0..30).collect();
    let pipeline = numbers.iter().map(|n| {
        let (client, statement) = (&client, &statement);
        async move { client.query_one(statement, &[n]).await.map(|row| row.get::<_, i32>(0)) }
    });
    let answers = futures_util::future::try_join_all(pipeline).await.unwrap();
    assert_eq!(answers, (1..31).collect::<Vec<i32>>());

    let transaction = client.transaction().await.unwrap();
    let error = transaction.query_one("SELECT 1 / $1::int", &[&0]).await.map(|_| ()).unwrap_err();
    assert_eq!(error.code(), Some(&SqlState::DIVISION_BY_ZERO));
    transaction.rollback().await.unwrap();

    let transaction = client.transaction().await.unwrap();
    transaction.batch_execute("CREATE TEMP TABLE copied_in (n int) ON COMMIT DROP").await.unwrap();
    let sink = transaction.copy_in("COPY copied_in FROM STDIN").await.unwrap();
    let mut sink = std::pin::pin!(sink);
    for n in 0..1000 {
        sink.send(bytes::Bytes::from(format!("{n}\n"))).await.unwrap();
    }
    assert_eq!(sink.finish().await.unwrap(), 1000);
    let stream = transaction.copy_out("COPY copied_in TO STDOUT").await.unwrap();
    let lines: Vec<bytes::Bytes> = stream.try_collect().await.unwrap();
    assert_eq!(lines.len(), 1000);
    transaction.commit().await.unwrap();
    assert_eq!(client.query_one(&statement, &[&1]).await.unwrap().get::<_, i32>(0), 2);
}

#[tokio::test]
async fn tokio_postgres_cancels_its_query() {
    let pooler = pooler();
    let _rival = Rival::of(&pooler);
    let client = pooler.client().await;
    let token = client.cancel_token();
    let (cancelled, ()) = tokio::join!(client.query_one("SELECT pg_sleep(60), 'tokio'", &[]), async {
        let running = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' \
                       AND query LIKE '%sleep(60), ''tokio''' AND pid <> pg_backend_pid()";
        let seen = || wait_until("the query runs", || postgres().query(running).unwrap() == "1");
        tokio::task::spawn_blocking(seen).await.unwrap();
        token.cancel_query(tokio_postgres::NoTls).await.unwrap();
    });
    assert_eq!(cancelled.map(|_| ()).unwrap_err().code(), Some(&SqlState::QUERY_CANCELED));
    assert_eq!(client.query_one("SELECT 1", &[]).await.unwrap().get::<_, i32>(0), 1);
}

#[tokio::test]
async fn tokio_postgres_gets_its_notices() {
    let pooler = pooler();
    let text = format!("host=127.0.0.1 port={} user=postgres dbname=postgres", pooler.port);
    let (client, mut connection) = tokio_postgres::connect(&text, tokio_postgres::NoTls).await.unwrap();
    let (sender, mut notices) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Some(Ok(message)) = std::future::poll_fn(|cx| connection.poll_message(cx)).await {
            if let tokio_postgres::AsyncMessage::Notice(notice) = message {
                let _ = sender.send(notice.message().to_string());
            }
        }
    });
    client.batch_execute("DO $$ BEGIN RAISE NOTICE 'from tokio'; END $$").await.unwrap();
    assert_eq!(notices.recv().await.unwrap(), "from tokio");
}

/// sqlx names its statements, or not: by its cache, and by each query.
#[tokio::test]
async fn sqlx_is_served_in_each_of_its_statement_modes() {
    let pooler = pooler();
    let _rival = Rival::of(&pooler);
    for cached in [100, 1, 0] {
        let mut client = sqlx_options(&pooler).statement_cache_capacity(cached).connect().await.unwrap();
        for persistent in [true, false] {
            for n in 0..20_i32 {
                let query = sqlx::query("SELECT $1 + 1").bind(n).persistent(persistent);
                let row = query.fetch_one(&mut client).await.unwrap();
                assert_eq!(row.get::<i32, _>(0), n + 1, "cache {cached}, persistent {persistent}");
                let query =
                    sqlx::query("SELECT $1 || $2").bind(n.to_string()).bind("!").persistent(persistent);
                let row = query.fetch_one(&mut client).await.unwrap();
                assert_eq!(
                    row.get::<String, _>(0),
                    format!("{n}!"),
                    "cache {cached}, persistent {persistent}"
                );
            }
        }
        sqlx::raw_sql("SELECT 1; SELECT 2").execute(&mut client).await.unwrap();
        sqlx_transactions(&mut client).await;
        client.close().await.unwrap();
    }
}

async fn sqlx_transactions(client: &mut sqlx::PgConnection) {
    let mut transaction = client.begin().await.unwrap();
    let failed = sqlx::query("SELECT 1 / $1").bind(0).fetch_one(&mut *transaction).await.map(|_| ());
    assert_eq!(failed.unwrap_err().as_database_error().unwrap().code().unwrap(), "22012");
    transaction.rollback().await.unwrap();

    let mut transaction = client.begin().await.unwrap();
    transaction.execute("CREATE TEMP TABLE by_sqlx (n int) ON COMMIT DROP").await.unwrap();
    let mut copy = transaction.copy_in_raw("COPY by_sqlx FROM STDIN").await.unwrap();
    copy.send("1\n2\n3\n".as_bytes()).await.unwrap();
    assert_eq!(copy.finish().await.unwrap(), 3);
    let count = sqlx::query("SELECT count(*) FROM by_sqlx").fetch_one(&mut *transaction).await.unwrap();
    assert_eq!(count.get::<i64, _>(0), 3);
    transaction.commit().await.unwrap();
    assert_eq!(sqlx::query("SELECT 'after'").fetch_one(client).await.unwrap().get::<String, _>(0), "after");
}

/// A query whose future is dropped leaves replies behind that its connection has to read first.
#[tokio::test]
async fn a_pool_of_sqlx_is_served_while_queries_are_given_up() {
    let pooler = pooler();
    let _rival = Rival::of(&pooler);
    let pool = PgPoolOptions::new().max_connections(6).connect_with(sqlx_options(&pooler)).await.unwrap();
    let tasks: Vec<_> = (0..60_i32)
        .map(|n| {
            let pool = pool.clone();
            tokio::spawn(async move {
                if n % 3 == 0 {
                    let given_up = sqlx::query("SELECT pg_sleep(0.05), $1").bind(n).execute(&pool);
                    let _ = tokio::time::timeout(std::time::Duration::from_millis(10), given_up).await;
                }
                let row = sqlx::query("SELECT $1 * 3").bind(n).fetch_one(&pool).await.unwrap();
                assert_eq!(row.get::<i32, _>(0), n * 3);
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
}

fn sqlx_options(pooler: &Pooler) -> PgConnectOptions {
    PgConnectOptions::new().host("127.0.0.1").port(pooler.port).username("postgres").database("postgres")
}
