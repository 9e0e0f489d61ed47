//! A storage and its tables, as the cases use them, and short ways to say what goes into them.

use std::sync::Arc;
use std::time::Duration;

use cap_adapter::message::{Headers, Message};
use cap_adapter::monitor::{Among, Change, Monitor as _, Row};
use cap_adapter::storage::{
    ClaimRequest, Claimed, Claims, Entry, Identity, Lease, NewIncoming, NewOutgoing, Owner, RowCompletion,
    RowOutcome, Side, Storage as _, WriteBatch, WriteReport,
};

use super::SqlFixture;

pub(super) const GROUP: &str = "billing.v1";

/// A storage with its tables. Writes are the node `a`'s, claims the node `b`'s.
pub(super) struct Tables<'f, F: SqlFixture> {
    fixture: &'f F,
    pub(super) storage: Arc<F::Storage>,
}

impl<'f, F: SqlFixture> Tables<'f, F> {
    pub(super) async fn create(fixture: &'f F) -> Self {
        let storage = Arc::new(fixture.open().await);
        storage.check().unwrap();
        storage.initialize().await.unwrap();
        Self { fixture, storage }
    }

    /// SQL of a case with `{t}` before the names of tables, `{now}` for the time, and `{hour}` for a span of time.
    fn sql(&self, text: &str) -> String {
        text.replace("{t}", &self.fixture.table_prefix())
            .replace("{now}", &self.fixture.now())
            .replace("{hour}", &self.fixture.span(Duration::from_secs(3600)))
            .replace("{minute}", &self.fixture.span(Duration::from_secs(60)))
    }

    pub(super) async fn execute(&self, text: &str) {
        self.fixture.execute(&self.sql(text)).await;
    }

    pub(super) async fn numbers(&self, query: &str) -> Vec<i64> {
        self.fixture.numbers(&self.sql(query)).await
    }

    pub(super) async fn count(&self, what: &str) -> i64 {
        self.numbers(&format!("SELECT count(*) FROM {what}")).await[0]
    }

    /// The ids of the rows of a table.
    pub(super) async fn ids(&self, table: &str) -> Vec<i64> {
        self.numbers(&format!("SELECT id FROM {{t}}{table} ORDER BY id")).await
    }

    /// How long until the row is due, in seconds rounded to five.
    pub(super) async fn due_in(&self, states: &str, id: i64) -> i64 {
        let seconds = self.fixture.seconds("due - {now}");
        let due = self.numbers(&format!("SELECT {seconds} FROM {{t}}{states} WHERE id = {id}")).await[0];
        (due + 2).div_euclid(5) * 5
    }

    /// How many seconds after they were stored the messages of both views expire, where that is fixed; each number once.
    pub(super) async fn expire_after(&self) -> Vec<Option<i64>> {
        let seconds = self.fixture.seconds_in_views("\"Added\"", "\"ExpiresAt\"");
        let shown = "(SELECT \"Added\", \"ExpiresAt\" FROM {t}published
            UNION ALL SELECT \"Added\", \"ExpiresAt\" FROM {t}received) AS shown";
        let query = format!("SELECT DISTINCT coalesce({seconds}, -1) FROM {shown} ORDER BY 1");
        self.numbers(&query).await.into_iter().map(|seconds| (seconds >= 0).then_some(seconds)).collect()
    }

    /// Gives a stored message a body of this many bytes.
    pub(super) async fn set_body(&self, table: &str, id: i64, bytes: usize) {
        let body = self.fixture.body(bytes);
        self.execute(&format!("UPDATE {{t}}{table} SET body = {body} WHERE id = {id}")).await;
    }

    /// Lets every lease expire, and every delay pass.
    pub(super) async fn let_time_pass(&self) {
        for states in ["outbox_state", "inbox_state"] {
            self.execute(&format!("UPDATE {{t}}{states} SET due = due - {{hour}}")).await;
        }
    }

    pub(super) async fn headers(&self, table: &str, id: i64) -> String {
        let query = self.sql(&format!("SELECT headers FROM {{t}}{table} WHERE id = {id}"));
        self.fixture.texts(&query).await.remove(0)
    }

    pub(super) async fn write(&self, batch: WriteBatch) -> WriteReport {
        self.storage.write(&owner("a"), &batch).await.unwrap()
    }

    pub(super) async fn publish(&self, outgoing: Vec<NewOutgoing>) -> WriteReport {
        self.write(WriteBatch { outgoing, ..WriteBatch::default() }).await
    }

    pub(super) async fn receive(&self, incoming: Vec<NewIncoming>) -> WriteReport {
        self.write(WriteBatch { incoming, ..WriteBatch::default() }).await
    }

    /// Completes one row, and returns whether the lease held.
    pub(super) async fn complete(&self, side: Side, lease: Lease, outcome: RowOutcome) -> bool {
        let row_completions = vec![RowCompletion { lease, outcome, publishes: Vec::new() }];
        let mut batch = WriteBatch::default();
        match side {
            Side::Outbox => batch.completed_outgoing = row_completions,
            Side::Inbox => batch.completed_incoming = row_completions,
        }
        let report = self.write(batch).await;
        *report.completed_outgoing.iter().chain(&report.completed_incoming).next().unwrap()
    }

    pub(super) async fn claim(&self, side: Side) -> Vec<Claimed> {
        self.claims(side, 100).await.rows
    }

    pub(super) async fn claims(&self, side: Side, limit: usize) -> Claims {
        let request = ClaimRequest::new(side, vec![GROUP.into()], limit);
        self.storage.claim(&owner("b"), &request).await.unwrap()
    }

    pub(super) async fn row(&self, side: Side, id: i64) -> Row {
        self.storage.get(side, id).await.unwrap().unwrap()
    }

    pub(super) async fn rerun(&self, side: Side, ids: &[i64]) -> Vec<i64> {
        self.storage.rerun(side, ids, Among::All, &Change::default()).await.unwrap()
    }
}

pub(super) fn owner(node: &str) -> Owner {
    Owner { node: node.into(), version: "v1".into(), lease: Duration::from_secs(30) }
}

pub(super) fn message(id: &str) -> Arc<Message> {
    let headers: Headers = [("cap-msg-id", id), ("cap-msg-name", "order.created")].into_iter().collect();
    Arc::new(Message::new(headers, &b"{}"[..]))
}

/// A message of the outbox that any node may claim.
pub(super) fn outgoing(id: i64) -> NewOutgoing {
    NewOutgoing { id, message: message(&id.to_string()), delay: None, held: false }
}

pub(super) fn leased(id: i64) -> NewOutgoing {
    NewOutgoing { held: true, ..outgoing(id) }
}

pub(super) fn delayed(id: i64) -> NewOutgoing {
    NewOutgoing { delay: Some(Duration::from_secs(60)), ..outgoing(id) }
}

/// A message of the inbox that any node may claim.
pub(super) fn incoming(id: i64) -> NewIncoming {
    let message = message(&id.to_string());
    let entry = Entry::Scheduled { held: false };
    NewIncoming { id, group: GROUP.into(), message, entry, identity: Identity::default() }
}

pub(super) fn leased_incoming(id: i64) -> NewIncoming {
    NewIncoming { entry: Entry::Scheduled { held: true }, ..incoming(id) }
}

/// The lease of a row that was inserted under one.
pub(super) fn first_lease(id: i64) -> Lease {
    Lease { id, epoch: 1 }
}

pub(super) fn ids(rows: &[Claimed]) -> Vec<i64> {
    rows.iter().map(|row| row.lease.id).collect()
}
