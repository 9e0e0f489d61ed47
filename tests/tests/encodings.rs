//! Issue 8, row 9: over a database whose encoding is not UTF8 no delivery holds up another, whatever it holds.

use cap_core::Failure;
use cap_core::prelude::*;
use cap_postgres::Postgres;
use cap_tests::{database_url, heard, scene};
use sqlx::{AssertSqlSafe, PgPool};
use tokio::sync::mpsc;

/// A database of this encoding, which is dropped with this value.
struct OtherDatabase(String);

impl OtherDatabase {
    async fn new(encoding: &str) -> (Self, PgPool) {
        let name = format!("cap_test_{:016x}", fastrand::u64(..));
        let server = PgPool::connect(&database_url()).await.unwrap();
        let create = format!(
            "CREATE DATABASE {name} ENCODING '{encoding}' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'"
        );
        sqlx::raw_sql(AssertSqlSafe(create)).execute(&server).await.unwrap();
        let options = (*server.connect_options()).clone().database(&name);
        (Self(name), PgPool::connect_lazy_with(options))
    }
}

impl Drop for OtherDatabase {
    fn drop(&mut self) {
        let drop_database = AssertSqlSafe(format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.0));
        // The test's own runtime may be on its way down, and a drop cannot wait for it anyway.
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let server = PgPool::connect(&database_url()).await.unwrap();
                sqlx::raw_sql(drop_database).execute(&server).await.unwrap();
            });
        });
        let is_dropped = thread.join().is_ok();
        assert!(is_dropped || std::thread::panicking(), "the database {} could not be dropped", self.0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_header_outside_the_encoding_holds_up_nobody() {
    for encoding in ["LATIN1", "WIN1252", "SQL_ASCII"] {
        scene(async |scene| {
            let (_database, pool) = OtherDatabase::new(encoding).await;
            let (tell, mut told) = mpsc::channel(16);
            let (fail, mut failures) = mpsc::channel::<Failure>(16);
            let builder = scene
                .builder_on(Postgres::new(pool), scene.transport())
                .configure(|options| options.prefetch = 4)
                .on_failed(move |failure| {
                    let fail = fail.clone();
                    async move { fail.send(failure).await.unwrap() }
                })
                .subscribe("number", move |headers: CapHeaders, number: u32| {
                    let tell = tell.clone();
                    let who = headers.all().get("who").unwrap_or_default().to_owned();
                    async move { tell.send((who, number)).await.unwrap() }
                });
            let cap = builder.start().await.unwrap();
            scene.note(&cap).await;
            let foreign = scene.foreign().await;
            let who = "\u{416}\u{e9}\u{1f600}";
            for number in 0..6_u32 {
                let id = format!("n{number}");
                let headers = [("cap-msg-id", &*id), ("cap-msg-name", "number"), ("who", who)];
                foreign.send("number", &headers, number.to_string().as_bytes()).await;
                assert_eq!(heard(&mut told).await, (who.to_owned(), number), "{encoding}");
            }
            // More than the prefetch of ids that do not fit; what comes behind them is handled.
            for number in 0..6 {
                let id = format!("\u{416}{number}");
                foreign.send("number", &[("cap-msg-id", &*id), ("cap-msg-name", "number")], b"1").await;
            }
            if encoding == "SQL_ASCII" {
                for _ in 0..6 {
                    assert_eq!(heard(&mut told).await, (String::new(), 1));
                }
            } else {
                for _ in 0..6 {
                    let failure = heard(&mut failures).await;
                    assert!(failure.message.id().is_some_and(|id| id.starts_with('\u{416}')), "{failure:?}");
                }
            }
            foreign.send("number", &[("cap-msg-id", "good"), ("cap-msg-name", "number")], b"7").await;
            assert_eq!(heard(&mut told).await, (String::new(), 7), "{encoding}");
            cap.shutdown().await.unwrap();
        })
        .await;
    }
}

#[tokio::test]
async fn a_bus_with_names_outside_the_encoding_does_not_start() {
    scene(async |scene| {
        let (_database, pool) = OtherDatabase::new("LATIN2").await;
        let builder = || scene.builder_on(Postgres::new(pool.clone()), scene.transport());
        let name = "\u{437}\u{430}\u{43a}\u{430}\u{437}";
        let group = Subscribe::to("order").group(name);
        for builder in
            [builder().subscribe(group, async |_: u32| ()), builder().subscribe(name, async |_: u32| ())]
        {
            let error = builder.start().await.unwrap_err().to_string();
            assert!(error.contains(name) && error.contains("encoding of the database"), "{error}");
        }
    })
    .await;
}
