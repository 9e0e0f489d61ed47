//! What the collector deletes, and what it leaves.

use std::time::Duration;

use cap_core::message::IdGenerator;
use cap_core::monitor::{Among, Change, Monitor as _};
use cap_core::storage::{Expiry, Reason, Retention, RowOutcome, Side, Storage as _};

use crate::support::{Database, first_lease, held, held_incoming};

const DAY: Expiry = Expiry { succeeded: Duration::from_secs(24 * 3600), limit: 2 };

fn done(retention: Retention) -> RowOutcome {
    RowOutcome::Succeeded { retention, reason: None }
}

#[tokio::test]
async fn messages_go_by_age_or_by_their_own_expiry_in_small_batches() {
    let database = Database::new().await;
    database.publish((1..=7).map(held).collect()).await;
    let hour = Duration::from_secs(3600);
    let told = RowOutcome::Succeeded { retention: Retention::Forget, reason: Some(Reason::Unrouted) };
    let error = "no".to_owned();
    let failed =
        RowOutcome::Failed { reason: Reason::Permanent, error, counted: true, keep: hour, notify: false };
    for (id, outcome) in [
        (1, done(Retention::Forget)),
        (2, done(Retention::Forget)),
        (3, done(Retention::Keep(hour))),
        (4, failed.clone()),
        (5, told),
        (6, failed),
    ] {
        assert!(database.complete(Side::Outbox, first_lease(id), outcome).await);
    }
    assert_eq!(database.storage.delete_expired(&DAY).await.unwrap(), (0, 0), "nothing is old");
    database
        .execute(
            "UPDATE cap_outbox SET added = added - 172800000000 WHERE id <> 2;
             UPDATE cap_outbox_state SET expires = expires - 172800000000 WHERE id IN (3, 4)",
        )
        .await;
    // 1 and 5 go by age, 3 and 4 by their own expiry; 2 is young, 6 has failed and is kept, 7 is not done.
    assert_eq!(database.storage.delete_expired(&DAY).await.unwrap(), (2, 0));
    assert_eq!(database.storage.delete_expired(&DAY).await.unwrap(), (2, 0));
    assert_eq!(database.storage.delete_expired(&DAY).await.unwrap(), (0, 0));
    let left =
        |table: &str| format!("SELECT coalesce(group_concat(id, ' ' ORDER BY id), '') FROM cap_{table}");
    assert_eq!(database.text(&left("outbox")).await, "2 6 7");
    assert_eq!(database.text(&left("outbox_state")).await, "6 7");
    assert_eq!(database.text(&left("attempts")).await, "6", "attempts go with their message");
}

#[tokio::test]
async fn real_ids_and_the_inbox_too() {
    let database = Database::new().await;
    let id = IdGenerator::new(1).next_id();
    database.receive(vec![held_incoming(id)]).await;
    assert!(database.complete(Side::Inbox, first_lease(id), done(Retention::Forget)).await);
    assert_eq!(database.storage.delete_expired(&DAY).await.unwrap(), (0, 0));
    let now = Expiry { succeeded: Duration::ZERO, limit: 10 };
    assert_eq!(database.storage.delete_expired(&now).await.unwrap(), (0, 1));
}

#[tokio::test]
async fn what_was_re_run_and_forgotten_goes_by_age_with_all_that_is_left_of_it() {
    let database = Database::new().await;
    database.publish(vec![held(1)]).await;
    assert!(database.complete(Side::Outbox, first_lease(1), done(Retention::Forget)).await);
    assert_eq!(
        database.storage.rerun(Side::Outbox, &[1], Among::All, &Change::default()).await.unwrap(),
        [1]
    );
    let lease = database.claim(Side::Outbox).await.remove(0).lease;
    assert!(database.complete(Side::Outbox, lease, done(Retention::Forget)).await);
    let states = "SELECT count(*) FROM cap_outbox_state";
    assert_eq!(database.count(states).await, 1, "the epoch is remembered");
    assert_eq!(database.storage.delete_expired(&DAY).await.unwrap(), (0, 0));
    let now = Expiry { succeeded: Duration::ZERO, limit: 10 };
    assert_eq!(database.storage.delete_expired(&now).await.unwrap(), (1, 0));
    assert_eq!(database.count(states).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_is_re_run_meanwhile_is_not_torn_apart() {
    let database = std::sync::Arc::new(Database::new().await);
    for round in 0..10 {
        let ids: Vec<i64> = (1..=20).map(|n| n + 20 * round).collect();
        database.publish(ids.iter().copied().map(held).collect()).await;
        for id in &ids {
            assert!(database.complete(Side::Outbox, first_lease(*id), done(Retention::Forget)).await);
        }
        let collector = {
            let database = std::sync::Arc::clone(&database);
            let now = Expiry { succeeded: Duration::ZERO, limit: 100 };
            tokio::spawn(async move { database.storage.delete_expired(&now).await.unwrap() })
        };
        let rerun = database.storage.rerun(Side::Outbox, &ids, Among::All, &Change::default()).await.unwrap();
        collector.await.unwrap();
        let whole = "SELECT count(*) FROM cap_outbox JOIN cap_outbox_state USING (id)";
        assert_eq!(database.count(whole).await, i64::try_from(rerun.len()).unwrap());
        assert_eq!(
            database.count("SELECT count(*) FROM cap_outbox_state").await,
            i64::try_from(rerun.len()).unwrap()
        );
        database.execute("DELETE FROM cap_outbox; DELETE FROM cap_outbox_state").await;
    }
}
