//! When a message that succeeded at once expires, as the views show it: issue 8, row C.

use std::time::Duration;

use cap_core::monitor::{Among, Change, Monitor as _};
use cap_core::storage::{NodeRequest, Retention, RowOutcome, Side, Storage as _};

use crate::support::{Database, first_lease, held, held_incoming};

const HOUR: u64 = 3600;
const DAY: u64 = 24 * HOUR;

impl Database {
    /// A message in each table that succeeded at once, without a state row.
    async fn with_two_that_succeeded() -> Self {
        let database = Self::new().await;
        database.publish(vec![held(1)]).await;
        database.receive(vec![held_incoming(2)]).await;
        for (side, id) in [(Side::Outbox, 1), (Side::Inbox, 2)] {
            database.forget(side, first_lease(id)).await;
        }
        database
    }

    async fn forget(&self, side: Side, lease: cap_core::storage::Lease) {
        let done = RowOutcome::Succeeded { retention: Retention::Forget, reason: None };
        assert!(self.complete(side, lease, done).await);
    }

    async fn join(&self, node: &str, keeps: u64) -> u16 {
        let succeeded_expire_after = Duration::from_secs(keeps);
        let lease = Duration::from_secs(600);
        let request = NodeRequest { node: node.into(), worker: None, lease, succeeded_expire_after };
        self.storage.join(&request).await.unwrap()
    }

    /// How many seconds after they were stored the messages expire: one number if both views agree.
    async fn expire_after(&self) -> String {
        self.text(
            "SELECT string_agg(DISTINCT coalesce(extract(epoch FROM \"ExpiresAt\" - \"Added\")::bigint::text, 'null'), ' ')
            FROM (
                SELECT \"Added\", \"ExpiresAt\" FROM {s}.published
                UNION ALL SELECT \"Added\", \"ExpiresAt\" FROM {s}.received
            ) AS shown",
        )
        .await
    }
}

#[tokio::test]
async fn a_schema_without_a_node_shows_one_day() {
    let database = Database::with_two_that_succeeded().await;
    assert_eq!(database.expire_after().await, DAY.to_string());
}

#[tokio::test]
async fn the_shortest_retention_of_two_nodes_is_shown() {
    let database = Database::with_two_that_succeeded().await;
    database.join("patient", 7 * DAY).await;
    assert_eq!(database.expire_after().await, (7 * DAY).to_string());
    let hasty = database.join("hasty", 2 * HOUR).await;
    assert_eq!(database.expire_after().await, (2 * HOUR).to_string());
    database.storage.leave("hasty", hasty).await.unwrap();
    assert_eq!(database.expire_after().await, (7 * DAY).to_string(), "a node that has left deletes nothing");
}

#[tokio::test]
async fn a_node_that_died_no_longer_counts() {
    let database = Database::with_two_that_succeeded().await;
    database.join("hasty", 2 * HOUR).await;
    database
        .execute("UPDATE {s}.nodes SET lease_until = now() - interval '1 second' WHERE worker >= 0")
        .await;
    database.join("patient", 3 * DAY).await;
    assert_eq!(database.expire_after().await, (3 * DAY).to_string());
}

#[tokio::test]
async fn the_node_that_joined_last_counts_while_none_is_there() {
    let database = Database::with_two_that_succeeded().await;
    let worker = database.join("only", 2 * HOUR).await;
    database.storage.leave("only", worker).await.unwrap();
    assert_eq!(database.expire_after().await, (2 * HOUR).to_string());
}

#[tokio::test]
async fn a_retention_of_zero_expires_at_once() {
    let database = Database::with_two_that_succeeded().await;
    database.join("patient", DAY).await;
    database.join("forgetful", 0).await;
    assert_eq!(database.expire_after().await, "0");
}

/// As a node of 010ce59 joins, also in the place of a newer one.
#[tokio::test]
async fn an_older_node_counts_with_one_day() {
    let database = Database::with_two_that_succeeded().await;
    database.join("hasty", 2 * HOUR).await;
    let join =
        "INSERT INTO {s}.nodes (worker, node, lease_until) VALUES (0, 'older', now() + interval '1 hour')
        ON CONFLICT (worker) DO UPDATE SET node = excluded.node, lease_until = excluded.lease_until";
    database.execute(join).await;
    assert_eq!(database.expire_after().await, DAY.to_string(), "what the other node said is not its");
    database.join("patient", 7 * DAY).await;
    assert_eq!(database.expire_after().await, DAY.to_string());
}

/// Its row stays for the epoch alone, and the message expires by its age like any other.
#[tokio::test]
async fn a_message_that_was_run_again_expires_likewise() {
    let database = Database::with_two_that_succeeded().await;
    for (side, id) in [(Side::Outbox, 1), (Side::Inbox, 2)] {
        database.storage.rerun(side, &[id], Among::All, &Change::default()).await.unwrap();
        assert!(database.expire_after().await.contains("null"), "it is under way again");
        for claimed in database.claim(side).await {
            database.forget(side, claimed.lease).await;
        }
    }
    assert_eq!(database.expire_after().await, DAY.to_string());
}
