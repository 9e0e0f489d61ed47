//! What is published in a transaction leaves if and only if it commits.

use std::time::Duration;

use cap_core::prelude::*;
use cap_core::{CapBuilder, PublishError, Within};
use sqlx::{ConnectOptions as _, Connection as _, SqliteConnection};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use crate::support::Database;

impl Database {
    /// A bus on this file and a broker in memory.
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
        self.execute("CREATE TABLE business (number INTEGER PRIMARY KEY)").await;
        (bus, receiver)
    }

    async fn insert(&self, connection: &mut SqliteConnection, number: i64) -> Result<(), sqlx::Error> {
        let insert = sqlx::query("INSERT INTO business VALUES (?)").bind(number);
        insert.execute(connection).await.map(|_| ())
    }

    async fn business(&self) -> String {
        self.text("SELECT coalesce(group_concat(number, ' ' ORDER BY number), '') FROM business").await
    }
}

async fn next(receiver: &mut UnboundedReceiver<i64>) -> i64 {
    tokio::time::timeout(Duration::from_secs(20), receiver.recv()).await.unwrap().unwrap()
}

async fn publish(cap: &Cap, number: i64, transaction: &mut (impl Within<cap_sqlite::Sqlite> + ?Sized)) {
    cap.publish("number", &number).within(transaction).await.unwrap();
}

#[tokio::test]
async fn a_commit_sends_and_a_rollback_does_not() {
    let database = Database::new().await;
    let (cap, mut seen) = database.listening().await;
    for (number, ending) in [(1, "commit"), (2, "rollback"), (3, "drop"), (4, "commit")] {
        let mut tx = cap_sqlite::begin(&cap, &database.pool).await.unwrap();
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
async fn nothing_is_there_before_the_commit() {
    let database = Database::new().await;
    let (cap, mut seen) = database.listening().await;
    let mut tx = cap_sqlite::begin(&cap, &database.pool).await.unwrap();
    let id = cap.publish("number", &1).within(&mut tx).await.unwrap();
    assert!(cap.messages().published().find(id.as_str()).await.unwrap().is_empty());
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
    let mut tx = cap_sqlite::begin(&cap, &database.pool).await.unwrap();
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
    let mut tx = cap_sqlite::begin(&cap, &database.pool).await.unwrap();
    publish(&cap, 1, &mut tx).await;
    tokio::time::sleep(LEASE * 3 / 2).await;
    tx.commit().await.unwrap();
    assert_eq!(next(&mut seen).await, 1);
    let mut tx = database.pool.begin_with("BEGIN IMMEDIATE").await.unwrap();
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
    let mut tx = cap_sqlite::begin(&cap, &database.pool).await.unwrap();
    sqlx::raw_sql("SAVEPOINT a").execute(&mut *tx).await.unwrap();
    publish(&cap, 1, &mut tx).await;
    sqlx::raw_sql("ROLLBACK TO SAVEPOINT a").execute(&mut *tx).await.unwrap();
    tx.commit().await.unwrap();

    // The later message tells that an earlier one is gone, although nothing was done after it.
    let mut tx = cap_sqlite::begin(&cap, &database.pool).await.unwrap();
    sqlx::raw_sql("SAVEPOINT a").execute(&mut *tx).await.unwrap();
    publish(&cap, 2, &mut tx).await;
    sqlx::raw_sql("ROLLBACK TO SAVEPOINT a").execute(&mut *tx).await.unwrap();
    publish(&cap, 3, &mut tx).await;
    tx.commit().await.unwrap();

    // A savepoint that is kept, as sqlx makes one, changes nothing.
    let mut tx = cap_sqlite::begin(&cap, &database.pool).await.unwrap();
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

#[tokio::test]
async fn the_lock_is_taken_at_once() {
    let database = Database::new().await;
    let (cap, _seen) = database.listening().await;
    let tx = cap_sqlite::begin(&cap, &database.pool).await.unwrap();
    let hasty = (*database.pool.connect_options()).clone().busy_timeout(Duration::ZERO);
    let mut other = hasty.connect().await.unwrap();
    let error = other.begin_with("BEGIN IMMEDIATE").await.unwrap_err();
    assert!(error.to_string().contains("database is locked"), "{error}");
    drop(tx);
    cap.shutdown().await.unwrap();
}

/// Ends the transaction it is in, as a full disk may.
async fn roll_back_unasked(connection: &mut SqliteConnection) {
    let clash = "INSERT OR ROLLBACK INTO business VALUES (77), (77)";
    assert!(sqlx::query(clash).execute(connection).await.is_err());
}

#[tokio::test]
async fn a_transaction_that_sqlite_has_rolled_back_cannot_be_used_on() {
    let database = Database::new().await;
    let (cap, mut seen) = database.listening().await;
    let mut tx = cap_sqlite::begin(&cap, &database.pool).await.unwrap();
    database.insert(&mut tx, 1).await.unwrap();
    publish(&cap, 1, &mut tx).await;
    // The caller does not look at the error.
    roll_back_unasked(&mut tx).await;
    let error = tx.commit().await.unwrap_err();
    assert!(error.to_string().contains("SQLite has rolled the transaction back"), "{error}");

    let mut tx = cap_sqlite::begin(&cap, &database.pool).await.unwrap();
    roll_back_unasked(&mut tx).await;
    let error = cap.publish("number", &2).within(&mut tx).await.unwrap_err();
    assert!(matches!(error, PublishError::Storage { .. }), "{error}");
    drop(tx);

    // However the connections were left, they are not given out like that.
    for _ in 0..12 {
        let mut tx = cap_sqlite::begin(&cap, &database.pool).await.unwrap();
        roll_back_unasked(&mut tx).await;
    }
    let mut tx = cap_sqlite::begin(&cap, &database.pool).await.unwrap();
    database.insert(&mut tx, 3).await.unwrap();
    publish(&cap, 3, &mut tx).await;
    tx.commit().await.unwrap();
    assert_eq!(next(&mut seen).await, 3);
    assert_eq!(database.business().await, "3");
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
    publish(&cap, 6, &mut *connection).await;
    assert_eq!(next(&mut seen).await, 6, "outside a transaction at once");
    cap.shutdown().await.unwrap();
    assert!(seen.try_recv().is_err());
    assert_eq!(database.business().await, "4");
}

#[tokio::test]
async fn delayed_message_waits_in_the_storage() {
    let database = Database::new().await;
    let (cap, mut seen) = database.listening().await;
    let mut tx = cap_sqlite::begin(&cap, &database.pool).await.unwrap();
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
    let mut tx = cap_sqlite::begin(&cap, &database.pool).await.unwrap();
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
    let mut tx = cap_sqlite::begin(&cap, &database.pool).await.unwrap();
    let error = cap.publish("number", &1).within(&mut tx).await.unwrap_err();
    assert!(matches!(error, PublishError::ForeignTransaction { bus: "memory" }), "{error}");
    tx.rollback().await.unwrap();
    cap.shutdown().await.unwrap();
}
