//! What is published in a transaction leaves if and only if it commits.

use std::time::Duration;

use cap_core::prelude::*;
use cap_core::{CapBuilder, PublishError, Within};
use futures_util::FutureExt as _;
use sqlx::Connection as _;
use sqlx::postgres::PgPoolOptions;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use crate::support::{Database, url};

impl Database {
    /// A bus on this schema and a broker in memory.
    pub(crate) fn bus(&self) -> CapBuilder {
        Cap::builder()
            .handlers(Handlers::none())
            .storage(self.storage.clone())
            .transport(MemoryTransport::new())
            .configure(|options| {
                options.default_group = "test".into();
                // Nothing here may depend on a second look.
                options.poll_interval = Duration::from_secs(3600);
            })
    }

    async fn listening(&self) -> (Cap, UnboundedReceiver<i64>) {
        self.listening_with(|_| ()).await
    }

    async fn listening_with(
        &self,
        configure: impl FnOnce(&mut cap_core::CapOptions),
    ) -> (Cap, UnboundedReceiver<i64>) {
        let (seen, receiver) = unbounded_channel();
        let handler = move |number: i64| {
            let _ = seen.send(number);
            async {}
        };
        let bus = self.bus().configure(configure).subscribe("number", handler).start().await.unwrap();
        self.execute("CREATE TABLE {s}.business (number bigint PRIMARY KEY)").await;
        (bus, receiver)
    }

    async fn insert(&self, connection: &mut sqlx::PgConnection, number: i64) -> Result<(), sqlx::Error> {
        let insert = self.sql("INSERT INTO {s}.business VALUES ($1)");
        sqlx::query(insert).bind(number).execute(connection).await.map(|_| ())
    }

    async fn business(&self) -> String {
        self.text("SELECT coalesce(string_agg(number::text, ' ' ORDER BY number), '') FROM {s}.business")
            .await
    }
}

async fn next(receiver: &mut UnboundedReceiver<i64>) -> i64 {
    tokio::time::timeout(Duration::from_secs(20), receiver.recv()).await.unwrap().unwrap()
}

async fn publish(cap: &Cap, number: i64, transaction: &mut (impl Within<cap_postgres::Postgres> + ?Sized)) {
    cap.publish("number", &number).within(transaction).await.unwrap();
}

#[tokio::test]
async fn a_commit_sends_and_a_rollback_does_not() {
    let database = Database::new().await;
    let (cap, mut seen) = database.listening().await;
    for (number, ending) in [(1, "commit"), (2, "rollback"), (3, "drop"), (4, "commit")] {
        let mut tx = cap_postgres::begin(&cap, &database.pool).await.unwrap();
        database.insert(&mut tx, number).await.unwrap();
        publish(&cap, number, &mut tx).await;
        publish(&cap, number + 10, &mut tx).await;
        match ending {
            "commit" => tx.commit().await.unwrap(),
            "rollback" => tx.rollback().await.unwrap(),
            _ => drop(tx),
        }
    }
    let mut all =
        [next(&mut seen).await, next(&mut seen).await, next(&mut seen).await, next(&mut seen).await];
    all.sort_unstable();
    assert_eq!(all, [1, 4, 11, 14]);
    assert_eq!(database.business().await, "1 4");
    cap.shutdown().await.unwrap();
    assert!(seen.try_recv().is_err());
}

#[tokio::test]
async fn nothing_leaves_before_the_commit() {
    let database = Database::new().await;
    let (cap, mut seen) = database.listening().await;
    let mut tx = cap_postgres::begin(&cap, &database.pool).await.unwrap();
    publish(&cap, 1, &mut tx).await;
    cap.publish("number", &2).await.unwrap();
    assert_eq!(next(&mut seen).await, 2, "the later one passes");
    tx.commit().await.unwrap();
    assert_eq!(next(&mut seen).await, 1);
    cap.shutdown().await.unwrap();
}

/// A transaction that was open for longer than half the lease, where the bus used to leave its messages to the claims
/// (issue 8, row 12): nobody can claim them before the lease is over, and they leave before that.
#[tokio::test]
async fn long_transaction_leaves_at_its_commit() {
    const LEASE: Duration = Duration::from_secs(10);
    let database = Database::new().await;
    let (cap, mut seen) = database.listening_with(|options| options.lease = LEASE).await;
    let mut tx = cap_postgres::begin(&cap, &database.pool).await.unwrap();
    let begun = tokio::time::Instant::now();
    publish(&cap, 1, &mut tx).await;
    tokio::time::sleep(LEASE * 11 / 20).await;
    tx.commit().await.unwrap();
    let number = tokio::time::timeout_at(begun + LEASE, seen.recv()).await.expect("before the lease is over");
    assert_eq!(number, Some(1));
    cap.shutdown().await.unwrap();
    assert!(seen.try_recv().is_err());
}

/// As long as its lease, in a transaction of which the bus knows and in a plain one.
#[tokio::test]
async fn transaction_longer_than_its_lease_leaves_at_its_commit() {
    const LEASE: Duration = Duration::from_secs(1);
    let database = Database::new().await;
    let (cap, mut seen) = database.listening_with(|options| options.lease = LEASE).await;
    let mut tx = cap_postgres::begin(&cap, &database.pool).await.unwrap();
    publish(&cap, 1, &mut tx).await;
    tokio::time::sleep(LEASE * 3 / 2).await;
    tx.commit().await.unwrap();
    assert_eq!(next(&mut seen).await, 1);
    let mut tx = database.pool.begin().await.unwrap();
    publish(&cap, 2, &mut tx).await;
    tokio::time::sleep(LEASE * 3 / 2).await;
    tx.commit().await.unwrap();
    assert_eq!(next(&mut seen).await, 2);
    cap.shutdown().await.unwrap();
    assert!(seen.try_recv().is_err());
}

#[tokio::test]
async fn what_is_undone_with_a_savepoint_does_not_leave() {
    let database = Database::new().await;
    let (cap, mut seen) = database.listening().await;
    let mut tx = cap_postgres::begin(&cap, &database.pool).await.unwrap();
    sqlx::raw_sql("SAVEPOINT a").execute(&mut *tx).await.unwrap();
    publish(&cap, 1, &mut tx).await;
    sqlx::raw_sql("ROLLBACK TO SAVEPOINT a").execute(&mut *tx).await.unwrap();
    tx.commit().await.unwrap();

    // The later message tells that an earlier one is gone, although nothing was done after it.
    let mut tx = cap_postgres::begin(&cap, &database.pool).await.unwrap();
    sqlx::raw_sql("SAVEPOINT a").execute(&mut *tx).await.unwrap();
    publish(&cap, 2, &mut tx).await;
    sqlx::raw_sql("ROLLBACK TO SAVEPOINT a").execute(&mut *tx).await.unwrap();
    publish(&cap, 3, &mut tx).await;
    tx.commit().await.unwrap();

    // A savepoint that is kept, as sqlx makes one, changes nothing.
    let mut tx = cap_postgres::begin(&cap, &database.pool).await.unwrap();
    publish(&cap, 4, &mut tx).await;
    let mut inner = tx.begin().await.unwrap();
    publish(&cap, 5, &mut inner).await;
    inner.commit().await.unwrap();
    let mut inner = tx.begin().await.unwrap();
    publish(&cap, 6, &mut inner).await;
    inner.rollback().await.unwrap();
    tx.commit().await.unwrap();

    // 3, too, without waiting for the lease under which it was stored (issue 8, row 12).
    let mut all = [next(&mut seen).await, next(&mut seen).await, next(&mut seen).await];
    all.sort_unstable();
    assert_eq!(all, [3, 4, 5]);
    cap.shutdown().await.unwrap();
    assert!(seen.try_recv().is_err());
}

/// What functions do that take a transaction of sqlx, savepoints included, is part of the transaction.
#[tokio::test]
async fn functions_that_take_a_transaction_of_sqlx_fit() {
    async fn undone(tx: &mut sqlx::Transaction<'_, sqlx::Postgres>, cap: &Cap) {
        let mut inner = tx.begin().await.unwrap();
        publish(cap, 2, &mut inner).await;
        inner.rollback().await.unwrap();
    }
    let database = Database::new().await;
    let (cap, mut seen) = database.listening().await;
    let mut tx = cap_postgres::begin(&cap, &database.pool).await.unwrap();
    publish(&cap, 1, &mut tx).await;
    undone(tx.as_sqlx(), &cap).await;
    publish(&cap, 3, tx.as_sqlx()).await;
    tx.commit().await.unwrap();
    let mut all = [next(&mut seen).await, next(&mut seen).await];
    all.sort_unstable();
    assert_eq!(all, [1, 3]);
    cap.shutdown().await.unwrap();
    assert!(seen.try_recv().is_err());
}

#[tokio::test]
async fn a_commit_that_postgresql_turns_into_a_rollback_is_an_error() {
    let database = Database::new().await;
    let (cap, mut seen) = database.listening().await;
    let mut tx = cap_postgres::begin(&cap, &database.pool).await.unwrap();
    database.insert(&mut tx, 1).await.unwrap();
    publish(&cap, 1, &mut tx).await;
    // The caller does not look at the error.
    let _ = database.insert(&mut tx, 1).await;
    let error = tx.commit().await.unwrap_err();
    assert!(error.to_string().contains("current transaction is aborted"), "{error}");

    let mut tx = cap_postgres::begin(&cap, &database.pool).await.unwrap();
    let _ = database.insert(&mut tx, 2).await;
    let _ = database.insert(&mut tx, 2).await;
    let error = cap.publish("number", &2).within(&mut tx).await.unwrap_err();
    assert!(matches!(error, PublishError::Storage { .. }), "{error}");
    assert!(tx.commit().await.is_err());

    cap.publish("number", &3).await.unwrap();
    assert_eq!(next(&mut seen).await, 3);
    assert_eq!(database.business().await, "");
    cap.shutdown().await.unwrap();
    assert!(seen.try_recv().is_err());
}

#[tokio::test]
async fn plain_transaction_is_noticed_when_it_commits() {
    let database = Database::new().await;
    let (cap, mut seen) = database.listening().await;
    let mut tx = database.pool.begin().await.unwrap();
    publish(&cap, 1, &mut tx).await;
    cap.publish_all("number", [2, 3]).within(&mut tx).await.unwrap();
    tx.rollback().await.unwrap();

    let mut tx = database.pool.begin().await.unwrap();
    database.insert(&mut tx, 4).await.unwrap();
    publish(&cap, 4, &mut tx).await;
    tx.commit().await.unwrap();
    assert_eq!(next(&mut seen).await, 4);

    let mut connection = database.pool.acquire().await.unwrap();
    sqlx::raw_sql("BEGIN").execute(&mut *connection).await.unwrap();
    publish(&cap, 5, &mut *connection).await;
    sqlx::raw_sql("COMMIT").execute(&mut *connection).await.unwrap();
    assert_eq!(next(&mut seen).await, 5);
    cap.shutdown().await.unwrap();
    assert!(seen.try_recv().is_err());
    assert_eq!(database.business().await, "4");
}

#[tokio::test]
async fn delayed_message_waits_in_the_storage() {
    let database = Database::new().await;
    let (cap, mut seen) = database.listening().await;
    let mut tx = cap_postgres::begin(&cap, &database.pool).await.unwrap();
    let id = cap.publish("number", &1).delay(Duration::from_secs(3600)).within(&mut tx).await.unwrap();
    tx.commit().await.unwrap();
    let row = &cap.messages().published().find(id.as_str()).await.unwrap()[0];
    assert_eq!(row.status, cap_core::storage::Status::Delayed);
    assert_eq!(cap.messages().published().rerun(&[row.id]).await.unwrap(), [row.id]);
    assert_eq!(next(&mut seen).await, 1);
    cap.shutdown().await.unwrap();
}

#[tokio::test]
async fn taken_id_is_refused_and_the_transaction_goes_on() {
    let database = Database::new().await;
    let (cap, mut seen) = database.listening().await;
    let mut tx = cap_postgres::begin(&cap, &database.pool).await.unwrap();
    cap.publish("number", &1).message_id("once").within(&mut tx).await.unwrap();
    let error = cap.publish("number", &2).message_id("once").within(&mut tx).await.unwrap_err();
    assert!(matches!(error, PublishError::DuplicateId { .. }), "{error}");
    database.insert(&mut tx, 1).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(next(&mut seen).await, 1);
    assert_eq!(database.business().await, "1");
    cap.shutdown().await.unwrap();
}

#[tokio::test]
async fn transaction_of_another_storage_is_refused() {
    let database = Database::new().await;
    let cap = Cap::builder()
        .handlers(Handlers::none())
        .storage(MemoryStorage::new())
        .transport(MemoryTransport::new())
        .start()
        .await
        .unwrap();
    let mut tx = cap_postgres::begin(&cap, &database.pool).await.unwrap();
    let error = cap.publish("number", &1).within(&mut tx).await.unwrap_err();
    assert!(matches!(error, PublishError::ForeignTransaction { bus: "memory" }), "{error}");
    tx.rollback().await.unwrap();
    cap.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropped_begin_leaves_no_transaction_behind() {
    let database = Database::new().await;
    database.execute("CREATE TABLE {s}.orders (id bigint)").await;
    let cap = database.bus().start().await.unwrap();
    let one = PgPoolOptions::new().max_connections(1).test_before_acquire(false);
    let pool = one.connect(&url()).await.unwrap();
    // Polled once, which sends the BEGIN, and dropped, as a rule before the answer is here.
    drop(cap_postgres::begin(&cap, &pool).now_or_never());
    let insert = database.sql("INSERT INTO {s}.orders VALUES (1)");
    sqlx::query(insert).execute(&pool).await.unwrap();
    assert_eq!(database.count("SELECT count(*) FROM {s}.orders").await, 1, "done is done");
    cap.shutdown().await.unwrap();
}
