//! What cap costs on the application's connections: plans, notifications, round trips. Counted, so that noise moves
//! nothing.

use cap_core::prelude::*;
use sqlx::postgres::PgPoolOptions;
use sqlx::{Connection as _, PgConnection, PgPool};

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
