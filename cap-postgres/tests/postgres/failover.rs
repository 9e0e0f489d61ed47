//! A primary, its standby, and an address that leads to the one and then to the other (issue 8, row 3).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use cap_core::prelude::*;
use cap_postgres::{PgTx, Postgres};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{AssertSqlSafe, PgPool};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use crate::private::Private;

const LIMIT: Duration = Duration::from_secs(60);

/// Leads each new connection to the server of the moment; those that are there stay where they are.
async fn address(server: watch::Receiver<String>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let server = server.borrow().clone();
            tokio::spawn(async move {
                if let Ok(mut server) = TcpStream::connect(server).await {
                    let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                }
            });
        }
    });
    address
}

fn place(url: &str) -> String {
    let options: PgConnectOptions = url.parse().unwrap();
    format!("{}:{}", options.get_host(), options.get_port())
}

async fn execute(url: &str, statement: &'static str) {
    let pool = PgPool::connect(url).await.unwrap();
    sqlx::raw_sql(statement).execute(&pool).await.unwrap();
}

/// Tries until it works, and says how often it did not.
async fn until_ok<T, E: std::fmt::Display>(mut what: impl AsyncFnMut() -> Result<T, E>) -> (T, Vec<String>) {
    let end = tokio::time::Instant::now() + LIMIT;
    let mut errors = Vec::new();
    loop {
        match what().await {
            Ok(done) => return (done, errors),
            Err(error) => errors.push(error.to_string()),
        }
        assert!(tokio::time::Instant::now() < end, "it never worked again: {:?}", errors.last());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn book(
    n: i64,
    State(done): State<mpsc::UnboundedSender<i64>>,
    mut tx: PgTx,
) -> Result<(), sqlx::Error> {
    let insert = sqlx::query(AssertSqlSafe("INSERT INTO ledger VALUES ($1)"));
    insert.bind(n).execute(&mut *tx).await?;
    let _ = done.send(n);
    Ok(())
}

async fn within(cap: &Cap, pool: &PgPool, n: i64) -> Result<(), cap_core::BoxError> {
    let mut tx = cap_postgres::begin(cap, pool).await?;
    cap.publish("book", &n).within(&mut tx).await?;
    tx.commit().await?;
    Ok(())
}

async fn handled(seen: &mut mpsc::UnboundedReceiver<i64>, n: i64) {
    let seen = async { while seen.recv().await.unwrap() != n {} };
    assert!(timeout(LIMIT, seen).await.is_ok(), "message {n} was not handled");
}

#[tokio::test]
async fn work_resumes_on_the_new_primary_without_a_restart() {
    let mut servers = Private::start(&["pair"]).await;
    let (primary, standby) = (servers.urls[0].clone(), servers.urls[1].clone());
    let (leads_to, server) = watch::channel(place(&primary));
    let url = primary.replace(&place(&primary), &address(server).await.to_string());
    let pool = PgPoolOptions::new().max_connections(6).acquire_timeout(LIMIT).connect(&url).await.unwrap();
    sqlx::raw_sql("CREATE TABLE ledger (number bigint)").execute(&pool).await.unwrap();
    let (done, mut seen) = mpsc::unbounded_channel();
    let cap = Cap::builder()
        .handlers(Handlers::none())
        .storage(Postgres::new(pool.clone()))
        .transport(MemoryTransport::new())
        .configure(|options| {
            options.default_group = "books".into();
            options.publish_timeout = Duration::from_secs(2);
        })
        .shared_state(Arc::new(done))
        .subscribe(Subscribe::to("book").retry(RetryPolicy::fixed(Duration::from_millis(100), 50)), book)
        .start()
        .await
        .unwrap();
    cap.publish("book", &1_i64).await.unwrap();
    handled(&mut seen, 1).await;
    // All of the application's connections are open, and lead to the primary.
    let mut open = Vec::new();
    for _ in 0..6 {
        open.push(pool.acquire().await.unwrap());
    }
    drop(open);
    while pool.num_idle() < 6 {
        tokio::task::yield_now().await;
    }

    // The primary is fenced off: who is connected stays so.
    execute(&primary, "ALTER SYSTEM SET default_transaction_read_only = on").await;
    execute(&primary, "SELECT pg_reload_conf()").await;
    let error = timeout(LIMIT, async {
        loop {
            if let Err(error) = cap.publish("book", &2_i64).await {
                break error;
            }
        }
    });
    error.await.unwrap();
    let health = cap.health().await;
    assert!(!health.storage.up, "reading works, writing does not: {health:?}");
    assert!(health.storage.error.unwrap().contains("takes no writes"));
    let mut plain = pool.begin().await.unwrap();
    let error = cap.publish("book", &3_i64).within(&mut plain).await.unwrap_err();
    assert!(
        error.to_string().contains("takes no writes") && error.to_string().contains("after_release"),
        "{error}"
    );
    drop(plain);

    // The address leads to the standby, which is none a moment later.
    leads_to.send_replace(place(&standby));
    assert!(within(&cap, &pool, 4).await.is_err());
    servers.tell("promote").await;
    let ((), errors) = until_ok(async || cap.publish("book", &5_i64).await.map(drop)).await;
    assert!(errors.len() < 10, "{errors:?}");
    handled(&mut seen, 5).await;
    let ((), errors) = until_ok(async || within(&cap, &pool, 6).await).await;
    assert!(errors.len() <= 3, "one bad connection has the others looked at: {errors:?}");
    handled(&mut seen, 6).await;
    let health = cap.health().await;
    assert!(health.storage.up, "{health:?}");
    // Every connection of the application's pool that is left takes writes.
    for n in 10..20 {
        within(&cap, &pool, n).await.unwrap();
    }
    cap.shutdown().await.unwrap();
    servers.stop().await;
}

/// The hook that docs/operating.md shows, for those who begin their transactions themselves.
#[tokio::test]
async fn after_release_hook_closes_connections_to_a_read_only_server() {
    let options: PgConnectOptions = crate::support::url().parse().unwrap();
    let pool = PgPoolOptions::new()
        .max_connections(1)
        .after_release(|connection, _| {
            Box::pin(async move {
                let query = "SELECT current_setting('transaction_read_only') = 'off'";
                sqlx::query_scalar(query).persistent(false).fetch_one(connection).await
            })
        })
        .connect_with(options)
        .await
        .unwrap();
    let pid =
        async || sqlx::query_scalar::<_, i32>("SELECT pg_backend_pid()").fetch_one(&pool).await.unwrap();
    let first = pid().await;
    assert_eq!(pid().await, first);
    sqlx::raw_sql("SET default_transaction_read_only = on").execute(&pool).await.unwrap();
    assert_ne!(pid().await, first);
}
