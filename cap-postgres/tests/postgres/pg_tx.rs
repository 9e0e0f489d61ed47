//! A handler's transaction: its effects, its mark, its answer happen together or not at all.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use cap_core::monitor::Row;
use cap_core::prelude::*;
use cap_core::storage::Status;
use cap_core::{BoxError, CapBuilder};
use cap_postgres::PgTx;
use sqlx::AssertSqlSafe;
use tokio::sync::{Notify, mpsc};

use crate::support::Database;

/// The handler's own table, and how it is to behave.
struct Ledger {
    insert: String,
    runs: AtomicUsize,
    kept: mpsc::UnboundedSender<PgTx>,
    running: Notify,
    go_on: Notify,
}

impl Ledger {
    async fn enter(&self, tx: &mut PgTx, number: i64) -> Result<(), sqlx::Error> {
        self.enter_in(tx.as_sqlx(), number).await
    }

    /// As a function of an application that knows nothing of cap.
    async fn enter_in(
        &self,
        tx: &mut sqlx::Transaction<'_, sqlx::Postgres>,
        number: i64,
    ) -> Result<(), sqlx::Error> {
        sqlx::query(AssertSqlSafe(self.insert.clone())).bind(number).execute(&mut **tx).await.map(|_| ())
    }
}

async fn book(
    how: String,
    State(ledger): State<Ledger>,
    publisher: Publisher,
    mut tx: PgTx,
) -> Result<Reply<String>, BoxError> {
    let run = ledger.runs.fetch_add(1, Ordering::SeqCst);
    ledger.enter(&mut tx, i64::try_from(run)?).await?;
    publisher.publish("told", "published").await?;
    match how.as_str() {
        "fail once" if run == 0 => return Err("not today".into()),
        "panic once" if run == 0 => panic!("not today"),
        "swallow once" if run == 0 => {
            let _ = ledger.enter(&mut tx, 0).await;
        }
        "keep once" if run == 0 => ledger.kept.send(tx)?,
        "hang once" if run == 0 => {
            sqlx::query("SELECT pg_sleep(3)").execute(&mut *tx).await?;
        }
        "wait" => {
            ledger.running.notify_one();
            ledger.go_on.notified().await;
        }
        _ => {}
    }
    Ok(Reply("answered".to_owned()))
}

struct Scene {
    ledger: Arc<Ledger>,
    kept: mpsc::UnboundedReceiver<PgTx>,
    told: mpsc::UnboundedReceiver<String>,
    cap: Cap,
    /// The last to go: nothing may hold on to its tables any more.
    database: Database,
}

impl Scene {
    async fn new(change: impl FnOnce(CapBuilder) -> CapBuilder) -> Self {
        let database = Database::new().await;
        database.execute("CREATE TABLE {s}.ledger (number bigint PRIMARY KEY)").await;
        let (keep, kept) = mpsc::unbounded_channel();
        let insert = database.sql("INSERT INTO {s}.ledger VALUES ($1)").0;
        let (running, go_on) = (Notify::new(), Notify::new());
        let ledger = Arc::new(Ledger { insert, runs: AtomicUsize::new(0), kept: keep, running, go_on });
        let (tell, told) = mpsc::unbounded_channel();
        let hear = move |word: String| {
            let _ = tell.send(word);
            async {}
        };
        let book_it = Subscribe::to("book").group("ledger").timeout(Duration::from_secs(1));
        let builder = database.bus().shared_state(Arc::clone(&ledger)).subscribe(book_it, book);
        let builder = change(builder.subscribe("told", hear));
        let cap = builder.start().await.unwrap();
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
        let entries = "SELECT coalesce(string_agg(number::text, ' ' ORDER BY number), '') FROM {s}.ledger";
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
    let mut scene = Scene::new(|builder| builder).await;
    let id = scene.publish("well").await;
    assert_eq!(scene.all_told().await, ["answered", "published"]);
    assert_eq!(scene.entries().await, "0");
    let row = scene.row(&id).await;
    assert_eq!((row.status, row.attempts), (Status::Succeeded, 0));
    scene.cap.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_error_rolls_everything_back() {
    Scene::new(|builder| builder).await.check_second_run_counts("fail once", "not today").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_rolls_everything_back() {
    Scene::new(|builder| builder).await.check_second_run_counts("panic once", "not today").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_statement_cannot_be_swallowed() {
    let error = "current transaction is aborted";
    Scene::new(|builder| builder).await.check_second_run_counts("swallow once", error).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn transaction_moved_out_is_rolled_back() {
    let scene = Scene::new(|builder| builder).await;
    scene.check_second_run_counts("keep once", "still uses its PgTx").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn transaction_moved_out_changes_nothing_later() {
    let mut scene = Scene::new(|builder| builder).await;
    scene.publish("keep once").await;
    let mut kept = scene.kept.recv().await.unwrap();
    assert_eq!(scene.all_told().await, ["answered", "published"]);
    scene.ledger.enter(&mut kept, 99).await.unwrap();
    drop(kept);
    scene.cap.shutdown().await.unwrap();
    assert_eq!(scene.entries().await, "1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_time_out_in_the_middle_of_a_query_rolls_everything_back() {
    Scene::new(|builder| builder).await.check_second_run_counts("hang once", "1s").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn effects_under_a_lost_lease_are_rolled_back() {
    let mut scene = Scene::new(|builder| builder).await;
    let id = scene.publish("wait").await;
    scene.ledger.running.notified().await;
    // Another node has taken the message over, as after a long pause of this one.
    scene.database.execute("UPDATE {s}.inbox_state SET epoch = epoch + 1, owner = 'other'").await;
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
async fn completion_uses_the_index_on_any_connection() {
    let mut scene = Scene::new(|builder| builder).await;
    // The planner knows now that the table is empty, and would rather read it whole, now and when it is large.
    scene.database.execute("VACUUM {s}.inbox_state").await;
    for _ in 0..8 {
        scene.publish("well").await;
        scene.all_told().await;
    }
    scene.cap.shutdown().await.unwrap();
    scene.database.pool.close().await;
    // A connection has said what it read at the latest when it is closed.
    let other = Database::named(&scene.database.schema);
    let read = format!(
        "SELECT seq_scan FROM pg_stat_all_tables WHERE schemaname = '{}' AND relname = 'inbox_state' AND n_tup_del >= 8",
        other.schema
    );
    let counted = async {
        loop {
            if let Some(whole) =
                sqlx::query_scalar::<_, i64>(other.sql(&read)).fetch_optional(&other.pool).await.unwrap()
            {
                return whole;
            }
            tokio::task::yield_now().await;
        }
    };
    // Making the table's three indexes counts as reading it whole, three times; eight marks would add as many.
    let whole = tokio::time::timeout(Duration::from_secs(20), counted).await.unwrap();
    assert!(whole <= 3, "the table was read whole {whole} times");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unavailable_database_counts_no_attempt() {
    let scene = Scene::new(|builder| builder).await;
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
async fn bus_on_another_storage_does_not_start() {
    let error = Cap::builder()
        .handlers(Handlers::none())
        .storage(MemoryStorage::new())
        .transport(MemoryTransport::new())
        .subscribe("a", |_: PgTx| async {})
        .start()
        .await
        .unwrap_err();
    assert!(error.to_string().contains("takes PgTx, which needs PostgreSQL"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_transaction_is_refused() {
    let database = Database::new().await;
    let cap = database.bus().subscribe("a", |_: PgTx, _: PgTx| async {}).start().await.unwrap();
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
