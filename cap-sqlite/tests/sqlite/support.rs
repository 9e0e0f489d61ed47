//! A file for a test, and short ways to say what goes into it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use cap_core::message::{Headers, Message};
use cap_core::storage::{
    ClaimRequest, Claimed, Claims, Entry, Identity, Lease, NewIncoming, NewOutgoing, Owner, RowCompletion,
    RowOutcome, Side, Storage as _, WriteBatch, WriteReport,
};
use cap_sqlite::Sqlite;
use sqlx::{AssertSqlSafe, SqlitePool};

pub(crate) const GROUP: &str = "billing.v1";

/// A folder that is removed with this value, also when the test fails.
pub(crate) struct Folder(pub(crate) PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        let folder = std::env::temp_dir().join(format!("cap_sqlite_{:016x}", fastrand::u64(..)));
        std::fs::create_dir(&folder).unwrap();
        Self(folder)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let is_removed = std::fs::remove_dir_all(&self.0).is_ok();
        assert!(is_removed || std::thread::panicking(), "{} could not be removed", self.0.display());
    }
}

/// A file in a folder of its own.
pub(crate) struct Database {
    pub(crate) storage: Sqlite,
    pub(crate) pool: SqlitePool,
    pub(crate) path: PathBuf,
    _folder: Folder,
}

impl Database {
    /// A file in which nothing was made yet.
    pub(crate) fn empty() -> Self {
        let folder = Folder::new();
        let path = folder.0.join("shop.db");
        let storage = Sqlite::open(&path);
        Self { pool: storage.pool().clone(), storage, path, _folder: folder }
    }

    /// A file with the tables.
    pub(crate) async fn new() -> Self {
        let database = Self::empty();
        database.storage.check().unwrap();
        database.storage.initialize().await.unwrap();
        database
    }

    pub(crate) async fn execute(&self, text: &str) {
        sqlx::raw_sql(AssertSqlSafe(text.to_owned())).execute(&self.pool).await.unwrap();
    }

    pub(crate) async fn text(&self, query: &str) -> String {
        sqlx::query_scalar(AssertSqlSafe(query.to_owned())).fetch_one(&self.pool).await.unwrap()
    }

    pub(crate) async fn count(&self, query: &str) -> i64 {
        sqlx::query_scalar(AssertSqlSafe(query.to_owned())).fetch_one(&self.pool).await.unwrap()
    }

    pub(crate) async fn write(&self, batch: WriteBatch) -> WriteReport {
        self.storage.write(&owner("a"), &batch).await.unwrap()
    }

    pub(crate) async fn publish(&self, outgoing: Vec<NewOutgoing>) -> WriteReport {
        self.write(WriteBatch { outgoing, ..WriteBatch::default() }).await
    }

    pub(crate) async fn receive(&self, incoming: Vec<NewIncoming>) -> WriteReport {
        self.write(WriteBatch { incoming, ..WriteBatch::default() }).await
    }

    /// Completes one row, and says whether the lease held.
    pub(crate) async fn complete(&self, side: Side, lease: Lease, outcome: RowOutcome) -> bool {
        let row_completions = vec![RowCompletion { lease, outcome, publishes: Vec::new() }];
        let mut batch = WriteBatch::default();
        match side {
            Side::Outbox => batch.completed_outgoing = row_completions,
            Side::Inbox => batch.completed_incoming = row_completions,
        }
        let report = self.write(batch).await;
        *report.completed_outgoing.iter().chain(&report.completed_incoming).next().unwrap()
    }

    pub(crate) async fn claim(&self, side: Side) -> Vec<Claimed> {
        self.claims(side, 100).await.rows
    }

    pub(crate) async fn claims(&self, side: Side, limit: usize) -> Claims {
        let request = ClaimRequest::new(side, vec![GROUP.into()], limit);
        self.storage.claim(&owner("b"), &request).await.unwrap()
    }

    /// Lets every lease run out, and every delay pass.
    pub(crate) async fn let_time_pass(&self) {
        for states in ["cap_outbox_state", "cap_inbox_state"] {
            self.execute(&format!("UPDATE {states} SET due = due - 3600000000")).await;
        }
    }
}

pub(crate) fn owner(node: &str) -> Owner {
    Owner { node: node.into(), version: "v1".into(), lease: Duration::from_secs(30) }
}

pub(crate) fn message(id: &str) -> Arc<Message> {
    let headers: Headers = [("cap-msg-id", id), ("cap-msg-name", "order.created")].into_iter().collect();
    Arc::new(Message::new(headers, &b"{}"[..]))
}

/// A message of the outbox that any node may claim.
pub(crate) fn outgoing(id: i64) -> NewOutgoing {
    NewOutgoing { id, message: message(&id.to_string()), delay: None, held: false }
}

pub(crate) fn held(id: i64) -> NewOutgoing {
    NewOutgoing { held: true, ..outgoing(id) }
}

pub(crate) fn delayed(id: i64) -> NewOutgoing {
    NewOutgoing { delay: Some(Duration::from_secs(60)), ..outgoing(id) }
}

/// A message of the inbox that any node may claim.
pub(crate) fn incoming(id: i64) -> NewIncoming {
    let entry = Entry::Scheduled { held: false };
    NewIncoming {
        id,
        group: GROUP.into(),
        message: message(&id.to_string()),
        entry,
        identity: Identity::default(),
    }
}

pub(crate) fn held_incoming(id: i64) -> NewIncoming {
    NewIncoming { entry: Entry::Scheduled { held: true }, ..incoming(id) }
}

/// The lease of a row that was inserted as held.
pub(crate) fn first_lease(id: i64) -> Lease {
    Lease { id, epoch: 1 }
}

pub(crate) fn ids(rows: &[Claimed]) -> Vec<i64> {
    rows.iter().map(|row| row.lease.id).collect()
}
