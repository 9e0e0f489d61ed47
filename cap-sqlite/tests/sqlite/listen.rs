//! Who is woken, and by what.

use std::time::Duration;

use cap_core::monitor::{Among, Change, Monitor as _};
use cap_core::storage::{Retention, RowOutcome, Side, Storage as _, Wake, WriteBatch};
use cap_sqlite::Sqlite;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::support::{Database, Folder, delayed, first_lease, held, held_incoming, incoming, outgoing};

impl Database {
    /// What is announced while something is done.
    async fn announced(&self, doing: impl AsyncFnOnce(&Self)) -> String {
        let counts = "SELECT group_concat(count, ' ' ORDER BY side) FROM cap_signals";
        self.execute("UPDATE cap_signals SET count = 0").await;
        doing(self).await;
        self.text(counts).await
    }
}

#[tokio::test]
async fn only_what_others_may_take_is_announced() {
    let database = Database::new().await;
    let told = async |doing: &dyn Fn() -> WriteBatch| {
        database.announced(async |database| drop(database.write(doing()).await)).await
    };
    let out = |outgoing| WriteBatch { outgoing, ..WriteBatch::default() };
    let inc = |incoming| WriteBatch { incoming, ..WriteBatch::default() };
    assert_eq!(told(&|| out(vec![held(1), held(2)])).await, "0 0", "the usual way is silent");
    assert_eq!(told(&|| inc((1..=3).map(held_incoming).collect())).await, "0 0");
    assert_eq!(told(&|| out(vec![outgoing(3), outgoing(4)])).await, "1 0");
    assert_eq!(told(&|| out(vec![outgoing(3)])).await, "0 0", "it was there before");
    assert_eq!(told(&|| out(vec![delayed(5)])).await, "1 0");
    assert_eq!(told(&|| WriteBatch { incoming: vec![incoming(4)], ..out(vec![held(6)]) }).await, "0 1");

    let completed = async |side, id, outcome: RowOutcome| {
        let doing = async |database: &Database| {
            assert!(database.complete(side, first_lease(id), outcome).await);
        };
        database.announced(doing).await
    };
    let done = RowOutcome::Succeeded { retention: Retention::Forget, reason: None };
    assert_eq!(completed(Side::Inbox, 1, done).await, "0 0");
    let retry = |hold| RowOutcome::Retry { after: Duration::from_secs(60), hold, error: "x".to_owned() };
    assert_eq!(completed(Side::Inbox, 2, retry(true)).await, "0 0");
    assert_eq!(completed(Side::Inbox, 2, retry(false)).await, "0 1");
    let minute = Duration::from_secs(60);
    let kept = RowOutcome::RetryAtBroker { after: minute, spare: minute, error: "x".to_owned() };
    assert_eq!(completed(Side::Inbox, 3, kept).await, "0 0", "the broker will say when it is due");
    let release = RowOutcome::Release { after: Duration::ZERO };
    assert_eq!(completed(Side::Outbox, 1, release).await, "1 0");
    let rerun = database.announced(async |database| {
        database.storage.rerun(Side::Inbox, &[1], Among::All, &Change::default()).await.unwrap();
    });
    assert_eq!(rerun.await, "0 1");
}

struct Listening {
    wake: Wake,
    cancelled: CancellationToken,
    task: JoinHandle<()>,
}

impl Listening {
    fn start(storage: Sqlite) -> Self {
        let (wake, cancelled) = (Wake::default(), CancellationToken::new());
        let (his_wake, his_cancelled) = (wake.clone(), cancelled.clone());
        let task = tokio::spawn(async move { storage.listen(his_wake, his_cancelled).await });
        Self { wake, cancelled, task }
    }

    async fn woken(&self, side: Side) {
        tokio::time::timeout(Duration::from_secs(10), self.wake.woken(side)).await.unwrap();
    }

    async fn stop(self) {
        self.cancelled.cancel();
        tokio::time::timeout(Duration::from_secs(10), self.task).await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn listener_wakes_for_all_other_writers() {
    let database = Database::new().await;
    let listening = Listening::start(database.storage.clone());
    listening.woken(Side::Outbox).await;
    listening.woken(Side::Inbox).await;
    database.publish(vec![outgoing(1)]).await;
    listening.woken(Side::Outbox).await;
    database.receive(vec![incoming(1)]).await;
    listening.woken(Side::Inbox).await;
    // As another process, of which nothing is known but what is in the file.
    database.execute("UPDATE cap_signals SET count = count + 1 WHERE side = 1").await;
    listening.woken(Side::Inbox).await;
    listening.stop().await;
}

#[tokio::test]
async fn a_listener_without_a_file_can_still_be_stopped() {
    let folder = Folder::new();
    let listening = Listening::start(Sqlite::open(folder.0.join("missing").join("shop.db")));
    tokio::task::yield_now().await;
    listening.stop().await;
}
