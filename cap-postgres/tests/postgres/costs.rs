//! What cap costs on the application's connections: plans, notifications, round trips. Counted, so that noise moves
//! nothing.

use std::sync::Arc;
use std::time::Duration;

use cap_core::prelude::*;
use cap_postgres::PgTx;
use sqlx::postgres::{PgConnectOptions, PgListener, PgPoolOptions};
use sqlx::{Connection as _, PgConnection, PgPool};
use tokio::sync::Semaphore;

use crate::support::{Database, url};

/// A pool of one connection, as an application makes it.
async fn one_connection() -> PgPool {
    PgPoolOptions::new().max_connections(1).connect(&url()).await.unwrap()
}

/// Custom and generic plans of each statement on the outbox that this connection has prepared.
async fn plans(connection: &mut PgConnection) -> Vec<(i64, i64)> {
    let query = "SELECT custom_plans, generic_plans FROM pg_prepared_statements
        WHERE statement LIKE '%INSERT INTO%outbox_state%' ORDER BY prepare_time";
    sqlx::query_as(query).persistent(false).fetch_all(connection).await.unwrap()
}

/// PostgreSQL plans a statement five times before it may keep a plan, and keeps it without a setting of ours.
#[tokio::test]
async fn insert_is_planned_five_times_on_a_plain_connection() {
    let database = Database::new().await;
    let cap = database.bus().publish_only().start().await.unwrap();
    let pool = one_connection().await;
    for number in 0..30 {
        let mut tx = pool.begin().await.unwrap();
        cap.publish("number", &number).within(&mut tx).await.unwrap();
        tx.commit().await.unwrap();
    }
    let mut connection = pool.acquire().await.unwrap();
    assert_eq!(plans(&mut connection).await, [(5, 25)]);
    // The transaction that knows the bus takes the same statement, and an id of the application's another one.
    drop(connection);
    for number in 0..30 {
        let mut tx = cap_postgres::begin(&cap, &pool).await.unwrap();
        cap.publish("number", &number).within(&mut tx).await.unwrap();
        let own = format!("{}-{number}", database.schema);
        cap.publish("number", &number).message_id(own).within(&mut tx).await.unwrap();
        tx.commit().await.unwrap();
    }
    let mut connection = pool.acquire().await.unwrap();
    assert_eq!(plans(&mut connection).await, [(5, 55), (5, 25)]);
    cap.shutdown().await.unwrap();
}

/// The ids of other messages are looked at only where one may be meant.
#[tokio::test]
async fn single_rows_know_duplicates_as_many_do() {
    let database = Database::new().await;
    let cap = database.bus().publish_only().start().await.unwrap();
    let mut connection = PgConnection::connect(&url()).await.unwrap();
    let first = cap.publish("number", &1).within(&mut connection).await.unwrap();
    for taken in [first.as_str(), "own"] {
        let publish = || cap.publish("number", &2).message_id(taken);
        if taken == "own" {
            publish().within(&mut connection).await.unwrap();
        }
        let error = publish().within(&mut connection).await.unwrap_err();
        assert!(matches!(error, PublishError::DuplicateId { .. }), "{taken}: {error}");
    }
    assert_eq!(database.count("SELECT count(*) FROM {s}.outbox").await, 2);
    cap.shutdown().await.unwrap();
}

async fn chain(number: i64, cap: Cap, publisher: Publisher, mut tx: PgTx) -> Result<(), PublishError> {
    if number > 0 {
        publisher.publish("chain", &-number).await?;
        publisher.publish("later", &number).delay(Duration::from_secs(3600)).await?;
        cap.publish("chain", &-number).within(&mut tx).await?;
        cap.publish("later", &number).delay(Duration::from_secs(3600)).within(&mut tx).await?;
    }
    Ok(())
}

/// A transaction that announces something holds a lock of the whole server over its commit.
#[tokio::test]
async fn nothing_is_announced_within_transactions_of_the_application() {
    let database = Database::new().await;
    // Other pools than ours: one of the application, one of this test.
    let options = url().parse::<PgConnectOptions>().unwrap().application_name(&database.schema);
    let pool = PgPoolOptions::new().max_connections(3).connect_with(options).await.unwrap();
    let channel = database.storage.notification_channel().to_owned();
    let storage = cap_postgres::Postgres::new(pool.clone()).schema(&database.schema);
    let handled = Arc::new(Semaphore::new(0));
    let done = Arc::clone(&handled);
    let count = move |_: i64| {
        done.add_permits(1);
        async {}
    };
    let cap = database
        .bus()
        .storage(storage)
        .subscribe("chain", chain)
        .subscribe_with(Subscribe::to("chain").group("count"), count);
    let cap = cap.start().await.unwrap();
    let mut listener = PgListener::connect_with(&database.pool).await.unwrap();
    listener.listen(&channel).await.unwrap();
    let later = || cap.publish("later", &1_i64).delay(Duration::from_secs(3600));
    for _ in 0..10 {
        let mut tx = pool.begin().await.unwrap();
        cap.publish("chain", &1_i64).within(&mut tx).await.unwrap();
        cap.publish_all("chain", [1_i64, 2]).within(&mut tx).await.unwrap();
        later().within(&mut tx).await.unwrap();
        tx.commit().await.unwrap();
        let mut tx = cap_postgres::begin(&cap, &pool).await.unwrap();
        cap.publish("chain", &1_i64).within(&mut tx).await.unwrap();
        later().within(&mut tx).await.unwrap();
        tx.commit().await.unwrap();
    }
    // Each of 40 has made two more.
    let all = tokio::time::timeout(Duration::from_secs(30), handled.acquire_many(120)).await;
    all.unwrap().unwrap().forget();
    let pids = "SELECT pid FROM pg_stat_activity WHERE application_name = $1";
    let applications: Vec<i32> =
        sqlx::query_scalar(pids).bind(&database.schema).fetch_all(&database.pool).await.unwrap();
    assert!(!applications.is_empty());
    // Other nodes hear of what is delayed, from a connection of the bus.
    let first = tokio::time::timeout(Duration::from_secs(20), listener.recv()).await.unwrap().unwrap();
    let mut heard = vec![first];
    sqlx::query("SELECT pg_notify($1, 'end')").bind(&channel).execute(&database.pool).await.unwrap();
    while heard.last().unwrap().payload() != "end" {
        heard.push(listener.recv().await.unwrap());
    }
    for notification in &heard {
        let pid = i32::try_from(notification.process_id()).unwrap();
        assert!(!applications.contains(&pid), "{notification:?}");
    }
    cap.shutdown().await.unwrap();
}
