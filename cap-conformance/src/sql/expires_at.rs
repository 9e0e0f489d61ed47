//! When a message that succeeded at its first attempt expires, as the views show it.

use std::time::Duration;

use cap_adapter::storage::{Lease, NodeRequest, Retention, RowOutcome, Side, Storage as _};

use super::SqlFixture;
use super::tables::{Tables, first_lease, leased, leased_incoming};

const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;

/// A message in each table that succeeded at once, without a state row.
async fn two_that_succeeded<F: SqlFixture>(fixture: &F) -> Tables<'_, F> {
    let tables = Tables::create(fixture).await;
    tables.publish(vec![leased(1)]).await;
    tables.receive(vec![leased_incoming(2)]).await;
    for (side, id) in [(Side::Outbox, 1), (Side::Inbox, 2)] {
        forget(&tables, side, first_lease(id)).await;
    }
    tables
}

async fn forget<F: SqlFixture>(tables: &Tables<'_, F>, side: Side, lease: Lease) {
    let done = RowOutcome::Succeeded { retention: Retention::Forget, reason: None };
    assert!(tables.complete(side, lease, done).await);
}

async fn join<F: SqlFixture>(tables: &Tables<'_, F>, node: &str, keeps: i64) -> u16 {
    let succeeded_expire_after = Duration::from_secs(keeps.unsigned_abs());
    let lease = Duration::from_secs(600);
    let request = NodeRequest { node: node.into(), worker: None, lease, succeeded_expire_after };
    tables.storage.join(&request).await.unwrap()
}

/// Without a node the views show one day.
pub async fn tables_without_a_node_show_one_day<F: SqlFixture>(fixture: &F) {
    let tables = two_that_succeeded(fixture).await;
    assert_eq!(tables.expire_after().await, [Some(DAY)]);
}

/// The node that keeps messages for the shortest time decides.
pub async fn shortest_retention_of_two_nodes_is_shown<F: SqlFixture>(fixture: &F) {
    let tables = two_that_succeeded(fixture).await;
    join(&tables, "patient", 7 * DAY).await;
    assert_eq!(tables.expire_after().await, [Some(7 * DAY)]);
    let hasty = join(&tables, "hasty", 2 * HOUR).await;
    assert_eq!(tables.expire_after().await, [Some(2 * HOUR)]);
    tables.storage.leave("hasty", hasty).await.unwrap();
    assert_eq!(tables.expire_after().await, [Some(7 * DAY)], "a node that has left deletes nothing");
}

/// A node whose lease has expired does not decide.
pub async fn dead_node_no_longer_counts<F: SqlFixture>(fixture: &F) {
    let tables = two_that_succeeded(fixture).await;
    join(&tables, "hasty", 2 * HOUR).await;
    tables.execute("UPDATE {t}nodes SET lease_until = {now} - {minute} WHERE worker >= 0").await;
    join(&tables, "patient", 3 * DAY).await;
    assert_eq!(tables.expire_after().await, [Some(3 * DAY)]);
}

/// The node that joined last decides while no node is there.
pub async fn last_node_counts_while_none_is_left<F: SqlFixture>(fixture: &F) {
    let tables = two_that_succeeded(fixture).await;
    let worker = join(&tables, "only", 2 * HOUR).await;
    tables.storage.leave("only", worker).await.unwrap();
    assert_eq!(tables.expire_after().await, [Some(2 * HOUR)]);
}

/// A retention of zero shows the time at which the message was stored.
pub async fn retention_of_zero_expires_at_once<F: SqlFixture>(fixture: &F) {
    let tables = two_that_succeeded(fixture).await;
    join(&tables, "patient", DAY).await;
    join(&tables, "forgetful", 0).await;
    assert_eq!(tables.expire_after().await, [Some(0)]);
}

/// A node of a version without a retention counts with one day, also in the place of a newer one.
pub async fn older_node_counts_with_one_day<F: SqlFixture>(fixture: &F) {
    let tables = two_that_succeeded(fixture).await;
    join(&tables, "hasty", 2 * HOUR).await;
    let older = "INSERT INTO {t}nodes (worker, node, lease_until) VALUES (0, 'older', {now} + {hour})
        ON CONFLICT (worker) DO UPDATE SET node = excluded.node, lease_until = excluded.lease_until";
    tables.execute(older).await;
    assert_eq!(tables.expire_after().await, [Some(DAY)], "the retention of the other node is not its own");
    join(&tables, "patient", 7 * DAY).await;
    assert_eq!(tables.expire_after().await, [Some(DAY)]);
}

/// Its row stays for the epoch alone, and the message expires by its age like any other.
pub async fn rerun_message_expires_like_others<F: SqlFixture>(fixture: &F) {
    let tables = two_that_succeeded(fixture).await;
    for (side, id) in [(Side::Outbox, 1), (Side::Inbox, 2)] {
        tables.rerun(side, &[id]).await;
        assert!(tables.expire_after().await.contains(&None), "it is under way again");
        for claimed in tables.claim(side).await {
            forget(&tables, side, claimed.lease).await;
        }
    }
    assert_eq!(tables.expire_after().await, [Some(DAY)]);
}
