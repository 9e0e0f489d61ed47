//! A handler's transaction: its effects, its mark, its answer happen together or not at all.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use cap_core::monitor::Row;
use cap_core::prelude::*;
use cap_core::storage::Status;
use cap_core::{BoxError, Delivery, FromDelivery};
use cap_sqlite::SqliteTx;
use tokio::sync::{Notify, mpsc};

use crate::support::Database;

/// The handler's own table, and how it is to behave.
struct Ledger {
    runs: AtomicUsize,
    kept: mpsc::UnboundedSender<SqliteTx>,
    is_held_up: AtomicBool,
    held_up: Notify,
    go_on: Notify,
    over: Notify,
    returned: Notify,
}

async fn enter(tx: &mut SqliteTx, number: i64) -> Result<(), sqlx::Error> {
    sqlx::query("INSERT INTO ledger VALUES (?)").bind(number).execute(&mut **tx).await.map(|_| ())
}

/// Comes before the transaction, holds the handler up once if it is told to, and tells when it is over.
struct HeldUp(Arc<Ledger>);

impl Drop for HeldUp {
    fn drop(&mut self) {
        self.0.over.notify_one();
    }
}

impl FromDelivery for HeldUp {
    async fn from_delivery(delivery: &Delivery) -> Result<Self, HandlerError> {
        let ledger = delivery.state::<Ledger>().unwrap();
        if ledger.is_held_up.swap(false, Ordering::SeqCst) {
            ledger.held_up.notify_one();
            ledger.go_on.notified().await;
        }
        Ok(Self(ledger))
    }
}

async fn book(
    how: String,
    _: HeldUp,
    State(ledger): State<Ledger>,
    publisher: Publisher,
    mut tx: SqliteTx,
) -> Result<Reply<String>, BoxError> {
    let run = ledger.runs.fetch_add(1, Ordering::SeqCst);
    enter(&mut tx, i64::try_from(run)?).await?;
    publisher.publish("told", "published").await?;
    match how.as_str() {
        "fail once" if run == 0 => return Err("not today".into()),
        "panic once" if run == 0 => panic!("not today"),
        "swallow once" if run == 0 => {
            let clash = sqlx::query("INSERT OR ROLLBACK INTO ledger VALUES (0)");
            assert!(clash.execute(&mut *tx).await.is_err());
        }
        "stall once" if run == 0 => {
            ledger.held_up.notify_one();
            std::future::pending::<()>().await;
        }
        "keep once" if run == 0 => {
            ledger.kept.send(tx)?;
            ledger.go_on.notified().await;
            ledger.returned.notify_one();
        }
        "hang once" if run == 0 => {
            // Some seconds of work.
            let long = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000000)
                SELECT max(i) FROM n";
            sqlx::query(long).execute(&mut *tx).await?;
        }
        _ => {}
    }
    Ok(Reply("answered".to_owned()))
}

struct Scene {
    ledger: Arc<Ledger>,
    kept: mpsc::UnboundedReceiver<SqliteTx>,
    told: mpsc::UnboundedReceiver<String>,
    cap: Cap,
    /// The last to go: nothing may hold on to its file any more.
    database: Database,
}

impl Scene {
    async fn new() -> Self {
        let database = Database::new().await;
        database.execute("CREATE TABLE ledger (number INTEGER PRIMARY KEY)").await;
        let (keep, kept) = mpsc::unbounded_channel();
        let ledger = Arc::new(Ledger {
            runs: AtomicUsize::new(0),
            kept: keep,
            is_held_up: AtomicBool::new(false),
            held_up: Notify::new(),
            go_on: Notify::new(),
            over: Notify::new(),
            returned: Notify::new(),
        });
        let (tell, told) = mpsc::unbounded_channel();
        let hear = move |word: String| {
            let _ = tell.send(word);
            async {}
        };
        let book_it = Subscribe::to("book").group("ledger").concurrency(8).timeout(Duration::from_secs(1));
        let builder = database.bus().shared_state(Arc::clone(&ledger)).subscribe(book_it, book);
        let cap = builder.subscribe("told", hear).start().await.unwrap();
        Self { ledger, kept, told, cap, database }
    }

    async fn told(&mut self) -> String {
        tokio::time::timeout(Duration::from_secs(20), self.told.recv()).await.unwrap().unwrap()
    }

    /// Both words that a success leaves behind.
    async fn all_told(&mut self) -> [String; 2] {
        let mut words = [self.told().await, self.told().await];
        words.sort_unstable();
        words
    }

    async fn publish(&self, how: &str) -> String {
        self.cap.publish("book", how).callback("told").await.unwrap().to_string()
    }

    async fn row(&self, id: &str) -> Row {
        let rows = self.cap.messages().find(id).await.unwrap();
        rows.into_iter().find(|row| row.group.starts_with("ledger")).unwrap()
    }

    async fn entries(&self) -> String {
        let entries = "SELECT coalesce(group_concat(number, ' ' ORDER BY number), '') FROM ledger";
        self.database.text(entries).await
    }

    /// The first run leaves nothing, the second everything once.
    async fn check_second_run_counts(mut self, how: &str, error: &str) {
        let id = self.publish(how).await;
        assert_eq!(self.all_told().await, ["answered", "published"]);
        assert_eq!(self.entries().await, "1");
        let row = self.row(&id).await;
        assert_eq!((row.status, row.attempts), (Status::Succeeded, 1));
        let attempts = self.cap.messages().attempts(row.id).await.unwrap();
        assert!(attempts[0].error.contains(error), "{attempts:?}");
        self.cap.shutdown().await.unwrap();
        assert!(self.told.try_recv().is_err(), "told once");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_success_commits_everything_together() {
    let mut scene = Scene::new().await;
    let id = scene.publish("well").await;
    assert_eq!(scene.all_told().await, ["answered", "published"]);
    assert_eq!(scene.entries().await, "0");
    let row = scene.row(&id).await;
    assert_eq!((row.status, row.attempts), (Status::Succeeded, 0));
    let stored = "SELECT count(*) FROM cap_outbox WHERE name = 'told'";
    assert_eq!(scene.database.count(stored).await, 2, "in the store, and not only on their way in memory");
    scene.cap.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_error_rolls_everything_back() {
    Scene::new().await.check_second_run_counts("fail once", "not today").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_rolls_everything_back() {
    Scene::new().await.check_second_run_counts("panic once", "not today").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_transaction_cannot_be_swallowed() {
    let error = "SQLite has rolled the transaction back";
    Scene::new().await.check_second_run_counts("swallow once", error).await;
}

// On one thread: when this task goes on after the handler has returned, the bus has looked for the transaction.
#[tokio::test(flavor = "current_thread")]
async fn transaction_moved_out_is_rolled_back() {
    let mut scene = Scene::new().await;
    let id = scene.publish("keep once").await;
    let mut kept = scene.kept.recv().await.unwrap();
    enter(&mut kept, 99).await.unwrap();
    scene.ledger.go_on.notify_one();
    scene.ledger.returned.notified().await;
    drop(kept);
    assert_eq!(scene.all_told().await, ["answered", "published"]);
    assert_eq!(scene.entries().await, "1");
    let row = scene.row(&id).await;
    let attempts = scene.cap.messages().attempts(row.id).await.unwrap();
    assert!(attempts[0].error.contains("still uses its SqliteTx"), "{attempts:?}");
    scene.cap.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_time_out_in_the_middle_of_a_query_rolls_everything_back() {
    Scene::new().await.check_second_run_counts("hang once", "1s").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn effects_under_a_lost_lease_are_rolled_back() {
    let mut scene = Scene::new().await;
    scene.ledger.is_held_up.store(true, Ordering::SeqCst);
    let id = scene.publish("well").await;
    scene.ledger.held_up.notified().await;
    // Another process has taken the message over, as after a long pause of this one.
    scene.database.execute("UPDATE cap_inbox_state SET epoch = epoch + 1, owner = 'other'").await;
    scene.ledger.go_on.notify_one();
    // What comes later comes through.
    scene.publish("well").await;
    assert_eq!(scene.all_told().await, ["answered", "published"]);
    assert_eq!(scene.row(&id).await.owner.as_deref(), Some("other"));
    scene.cap.shutdown().await.unwrap();
    assert_eq!(scene.entries().await, "1");
    assert!(scene.told.try_recv().is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn eight_at_once_all_come_through() {
    let mut scene = Scene::new().await;
    let mut ids = Vec::new();
    for _ in 0..8 {
        ids.push(scene.publish("well").await);
    }
    for _ in 0..16 {
        scene.told().await;
    }
    assert_eq!(scene.entries().await, "0 1 2 3 4 5 6 7");
    for id in ids {
        let row = scene.row(&id).await;
        assert_eq!((row.status, row.attempts), (Status::Succeeded, 0));
    }
    scene.cap.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bus_that_is_dropped_in_the_middle_leaves_nothing_half_done() {
    let Scene { ledger, kept: _kept, told: _told, cap, database } = Scene::new().await;
    let id = cap.publish("book", "stall once").callback("told").await.unwrap();
    ledger.held_up.notified().await;
    let row = async |cap: &Cap| {
        let rows = cap.messages().find(id.as_str()).await.unwrap();
        rows.into_iter().find(|row| row.group.starts_with("ledger")).unwrap()
    };
    // Half-way through the handler, as after a crash.
    let before = row(&cap).await;
    assert_eq!(before.status, Status::Scheduled);
    drop(cap);
    database.let_time_pass().await;
    let (tell, mut told) = mpsc::unbounded_channel();
    let hear = move |word: String| {
        let _ = tell.send(word);
        async {}
    };
    let cap = database
        .bus()
        .shared_state(ledger)
        .subscribe(Subscribe::to("book").group("ledger"), book)
        .subscribe("told", hear)
        .start()
        .await
        .unwrap();
    for _ in 0..2 {
        tokio::time::timeout(Duration::from_secs(20), told.recv()).await.unwrap().unwrap();
    }
    assert_eq!(row(&cap).await.status, Status::Succeeded);
    assert_eq!(database.count("SELECT count(*) FROM ledger").await, 1);
    cap.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unavailable_database_counts_no_attempt() {
    let scene = Scene::new().await;
    scene.database.pool.close().await;
    let id = scene.publish("well").await;
    let released = async {
        loop {
            let rows = scene.cap.messages().find(&id).await.unwrap();
            if let Some(row) = rows.into_iter().find(|row| row.owner.is_none()) {
                return row;
            }
            tokio::task::yield_now().await;
        }
    };
    let row = tokio::time::timeout(Duration::from_secs(20), released).await.unwrap();
    assert_eq!((row.status, row.attempts), (Status::Scheduled, 0));
    assert_eq!(scene.ledger.runs.load(Ordering::SeqCst), 0);
    scene.cap.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wait_for_the_write_lock_costs_no_attempt() {
    let mut scene = Scene::new().await;
    scene.ledger.is_held_up.store(true, Ordering::SeqCst);
    let id = scene.publish("well").await;
    scene.ledger.held_up.notified().await;
    let other = cap_sqlite::begin(&scene.cap, &scene.database.pool).await.unwrap();
    scene.ledger.go_on.notify_one();
    scene.ledger.over.notified().await;
    other.rollback().await.unwrap();
    assert_eq!(scene.all_told().await, ["answered", "published"]);
    let row = scene.row(&id).await;
    assert_eq!((row.status, row.attempts), (Status::Succeeded, 0), "{row:?}");
    scene.cap.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bus_on_another_storage_does_not_start() {
    let error = Cap::builder()
        .handlers(Handlers::none())
        .storage(MemoryStorage::new())
        .transport(MemoryTransport::new())
        .subscribe("a", |_: SqliteTx| async {})
        .start()
        .await
        .unwrap_err();
    assert!(error.to_string().contains("takes SqliteTx, which needs SQLite"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_transaction_is_refused() {
    let database = Database::new().await;
    let cap = database.bus().subscribe("a", |_: SqliteTx, _: SqliteTx| async {}).start().await.unwrap();
    let id = cap.publish("a", &()).await.unwrap();
    let failed = async {
        loop {
            let rows = cap.messages().find(id.as_str()).await.unwrap();
            if let Some(row) = rows.into_iter().find(|row| row.status == Status::Failed) {
                return row;
            }
            tokio::task::yield_now().await;
        }
    };
    let row = tokio::time::timeout(Duration::from_secs(20), failed).await.unwrap();
    assert!(row.last_error.unwrap().contains("takes two"));
    cap.shutdown().await.unwrap();
}
