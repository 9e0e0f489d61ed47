//! Which messages are deleted, and which stay.

use std::sync::Arc;
use std::time::Duration;

use cap_adapter::message::IdGenerator;
use cap_adapter::storage::{Expiry, Reason, Retention, RowOutcome, Side, Storage as _};

use super::SqlFixture;
use super::tables::{Tables, first_lease, leased, leased_incoming};

const DAY: Expiry = Expiry { succeeded: Duration::from_secs(24 * 3600), limit: 2 };

fn done(retention: Retention) -> RowOutcome {
    RowOutcome::Succeeded { retention, reason: None }
}

/// Messages expire by their age or by their own expiry, at most `limit` in one call.
pub async fn messages_expire_by_age_or_own_expiry_in_batches<F: SqlFixture>(fixture: &F) {
    let tables = Tables::create(fixture).await;
    tables.publish((1..=7).map(leased).collect()).await;
    let hour = Duration::from_secs(3600);
    let unrouted = RowOutcome::Succeeded { retention: Retention::Forget, reason: Some(Reason::Unrouted) };
    let error = "no".to_owned();
    let failed =
        RowOutcome::Failed { reason: Reason::Permanent, error, counted: true, keep: hour, notify: false };
    for (id, outcome) in [
        (1, done(Retention::Forget)),
        (2, done(Retention::Forget)),
        (3, done(Retention::Keep(hour))),
        (4, failed.clone()),
        (5, unrouted),
        (6, failed),
    ] {
        assert!(tables.complete(Side::Outbox, first_lease(id), outcome).await);
    }
    assert_eq!(tables.storage.delete_expired(&DAY).await.unwrap(), (0, 0), "nothing is old");
    tables
        .execute(
            "UPDATE {t}outbox SET added = added - 48 * {hour} WHERE id <> 2;
             UPDATE {t}outbox_state SET expires = expires - 48 * {hour} WHERE id IN (3, 4)",
        )
        .await;
    // 1 and 5 go by age, 3 and 4 by their own expiry; 2 is young, 6 has failed and is kept, 7 is not done.
    assert_eq!(tables.storage.delete_expired(&DAY).await.unwrap(), (2, 0));
    assert_eq!(tables.storage.delete_expired(&DAY).await.unwrap(), (2, 0));
    assert_eq!(tables.storage.delete_expired(&DAY).await.unwrap(), (0, 0));
    assert_eq!(tables.ids("outbox").await, [2, 6, 7]);
    assert_eq!(tables.ids("outbox_state").await, [6, 7]);
    assert_eq!(tables.ids("attempts").await, [6], "attempts go with their message");
}

/// A message under a generated id expires in the inbox, too.
pub async fn generated_ids_expire_in_the_inbox<F: SqlFixture>(fixture: &F) {
    let tables = Tables::create(fixture).await;
    let id = IdGenerator::new(1).next_id();
    tables.receive(vec![leased_incoming(id)]).await;
    assert!(tables.complete(Side::Inbox, first_lease(id), done(Retention::Forget)).await);
    assert_eq!(tables.storage.delete_expired(&DAY).await.unwrap(), (0, 0));
    let now = Expiry { succeeded: Duration::ZERO, limit: 10 };
    assert_eq!(tables.storage.delete_expired(&now).await.unwrap(), (0, 1));
}

/// A message that was run again and has succeeded expires with the state row that keeps its epoch.
pub async fn rerun_and_forgotten_message_expires_by_age<F: SqlFixture>(fixture: &F) {
    let tables = Tables::create(fixture).await;
    tables.publish(vec![leased(1)]).await;
    assert!(tables.complete(Side::Outbox, first_lease(1), done(Retention::Forget)).await);
    assert_eq!(tables.rerun(Side::Outbox, &[1]).await, [1]);
    let lease = tables.claim(Side::Outbox).await.remove(0).lease;
    assert!(tables.complete(Side::Outbox, lease, done(Retention::Forget)).await);
    let states = "{t}outbox_state";
    assert_eq!(tables.count(states).await, 1, "the epoch is remembered");
    assert_eq!(tables.storage.delete_expired(&DAY).await.unwrap(), (0, 0));
    let now = Expiry { succeeded: Duration::ZERO, limit: 10 };
    assert_eq!(tables.storage.delete_expired(&now).await.unwrap(), (1, 0));
    assert_eq!(tables.count(states).await, 0);
}

/// A message that is run again while it expires keeps its state row, or is gone with it.
pub async fn message_rerun_during_expiry_stays_whole<F: SqlFixture>(fixture: &F) {
    let tables = Tables::create(fixture).await;
    for round in 0..10 {
        let ids: Vec<i64> = (1..=20).map(|n| n + 20 * round).collect();
        tables.publish(ids.iter().copied().map(leased).collect()).await;
        for id in &ids {
            assert!(tables.complete(Side::Outbox, first_lease(*id), done(Retention::Forget)).await);
        }
        let collector = {
            let storage = Arc::clone(&tables.storage);
            let now = Expiry { succeeded: Duration::ZERO, limit: 100 };
            tokio::spawn(async move { storage.delete_expired(&now).await.unwrap() })
        };
        let rerun = tables.rerun(Side::Outbox, &ids).await;
        collector.await.unwrap();
        let whole = "{t}outbox JOIN {t}outbox_state USING (id)";
        assert_eq!(tables.count(whole).await, i64::try_from(rerun.len()).unwrap());
        assert_eq!(tables.count("{t}outbox_state").await, i64::try_from(rerun.len()).unwrap());
        tables.execute("DELETE FROM {t}outbox; DELETE FROM {t}outbox_state").await;
    }
}
