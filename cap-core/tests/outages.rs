//! Broker or store away, nodes that die, and shutdown at a bad moment: work is delayed and never lost.

mod support;

use std::sync::Arc;
use std::time::Duration;

use cap_core::memory::{MemoryStorage, MemoryTransport};
use cap_core::prelude::*;
use cap_core::storage::{Side, Status};
use support::{alone, log, on};
use tokio::sync::Notify;
use tokio::time::Instant;

#[tokio::test(start_paused = true)]
async fn a_broker_that_is_away_delays_messages_and_costs_no_attempt() {
    let (storage, transport) = (MemoryStorage::new(), MemoryTransport::new());
    transport.set_available(false);
    let (noted, mut seen) = log();
    let cap = on(&storage, &transport)
        .configure(|options| options.relay_buffer = 8)
        .subscribe("work", move |n: u32| {
            noted.note(n);
            async {}
        })
        .start()
        .await
        .unwrap();
    let mut ids = Vec::new();
    for n in 0..100u32 {
        ids.push(cap.publish("work", &n).await.unwrap());
        // Time for tries that must not count, far beyond what fifty attempts would take.
        tokio::time::sleep(Duration::from_secs(60)).await;
    }
    let health = cap.health().await;
    assert!(!health.is_healthy() && !health.transport.up && health.storage.up, "{health:?}");
    assert!(!health.groups[0].consumer.up && health.backlog, "{health:?}");
    seen.assert_empty();
    transport.set_available(true);
    assert_eq!(seen.take(100).await, (0..100).collect::<Vec<_>>(), "the oldest first");
    for id in ids {
        for row in cap.messages().published().find(id.as_str()).await.unwrap() {
            assert_eq!(row.attempts, 0);
        }
    }
    let health = cap.health().await;
    assert!(health.is_healthy(), "{health:?}");
    cap.shutdown().await.unwrap();
    seen.assert_empty();
}

#[tokio::test(start_paused = true)]
async fn missing_queue_of_another_service_delays_no_publishing() {
    let (noted, mut seen) = log();
    let cap = alone()
        .subscribe(Subscribe::to("#").queue("nobody.made.this"), async || ())
        .subscribe("work", move |n: u32| {
            noted.note(n);
            async {}
        })
        .start()
        .await
        .unwrap();
    cap.publish("work", &1).await.unwrap();
    assert_eq!(seen.next().await, 1);
    let health = cap.health().await;
    let up: Vec<_> = health.groups.iter().map(|group| (group.group.as_str(), group.consumer.up)).collect();
    assert_eq!(up, [("nobody.made.this", false), ("test.v1", true)]);
    cap.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn rows_of_a_dead_node_are_claimed_when_its_lease_expires() {
    let (storage, transport) = (MemoryStorage::new(), MemoryTransport::new());
    let (noted, mut seen) = log();
    let node = |hangs: bool| {
        let noted = noted.clone();
        on(&storage, &transport).subscribe("work", move |Attempt(attempt): Attempt| {
            noted.note((hangs, attempt, Instant::now()));
            async move {
                if hangs {
                    std::future::pending::<()>().await;
                }
            }
        })
    };
    let dying = node(true).start().await.unwrap();
    dying.publish("work", &()).await.unwrap();
    let (_, _, began) = seen.next().await;
    drop(dying);
    let heir = node(false).start().await.unwrap();
    let (hangs, attempt, at) = seen.next().await;
    assert_eq!((hangs, attempt), (false, 1), "dying is no failed attempt");
    let waited = (at - began).as_secs();
    assert!((20..=45).contains(&waited), "a lease is 30 seconds; it took {waited}");
    tokio::time::sleep(Duration::from_secs(3600)).await;
    seen.assert_empty();
    heir.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_long_handler_keeps_its_lease_and_runs_once() {
    let (storage, transport) = (MemoryStorage::new(), MemoryTransport::new());
    let (noted, mut seen) = log();
    let node = || {
        let noted = noted.clone();
        on(&storage, &transport).subscribe("work", move || {
            let noted = noted.clone();
            async move {
                noted.note("begun");
                tokio::time::sleep(Duration::from_secs(1000)).await;
                noted.note("done");
            }
        })
    };
    let (one, two) = (node().start().await.unwrap(), node().start().await.unwrap());
    one.publish("work", &()).await.unwrap();
    assert_eq!(seen.take(2).await, ["begun", "done"]);
    tokio::time::sleep(Duration::from_secs(1000)).await;
    seen.assert_empty();
    one.shutdown().await.unwrap();
    two.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn shutdown_lets_running_handlers_finish_and_keeps_the_rest() {
    let (storage, transport) = (MemoryStorage::new(), MemoryTransport::new());
    let (noted, mut seen) = log();
    let node = || {
        let noted = noted.clone();
        on(&storage, &transport).subscribe("work", move |n: u32| {
            let noted = noted.clone();
            async move {
                noted.note(("begun", n));
                tokio::time::sleep(Duration::from_secs(10)).await;
                noted.note(("done", n));
            }
        })
    };
    let cap = node().start().await.unwrap();
    cap.publish_all("work", 0..3u32).await.unwrap();
    assert_eq!(seen.next().await, ("begun", 0));
    cap.shutdown().await.unwrap();
    assert_eq!(seen.next().await, ("done", 0));
    seen.assert_empty();
    let start = Instant::now();
    let cap = node().start().await.unwrap();
    let rest = seen.take(4).await;
    assert_eq!(rest, [("begun", 1), ("done", 1), ("begun", 2), ("done", 2)]);
    assert!(start.elapsed() < Duration::from_secs(25), "leases were given back, not left to run out");
    cap.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_outlasts_the_shutdown_is_run_again_later() {
    let (storage, transport) = (MemoryStorage::new(), MemoryTransport::new());
    let (noted, mut seen) = log();
    let node = |hangs: bool| {
        let noted = noted.clone();
        on(&storage, &transport).subscribe("work", move |Attempt(attempt): Attempt| {
            noted.note((hangs, attempt));
            async move {
                if hangs {
                    std::future::pending::<()>().await;
                }
            }
        })
    };
    let cap = node(true).start().await.unwrap();
    cap.publish("work", &()).await.unwrap();
    seen.next().await;
    let start = Instant::now();
    let error = cap.shutdown().await.unwrap_err().to_string();
    assert!(error.contains("messages being handled") && error.contains("30s"), "{error}");
    assert_eq!(start.elapsed().as_secs(), 30);
    let cap = node(false).start().await.unwrap();
    assert_eq!(seen.next().await, (false, 1));
    assert_eq!(start.elapsed().as_secs(), 30, "its lease was given back");
    cap.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_looks_at_the_token_stops_early_at_shutdown() {
    let cap_stopped = Arc::new(Notify::new());
    let (noted, mut seen) = log();
    let (storage, transport) = (MemoryStorage::new(), MemoryTransport::new());
    let stopped = Arc::clone(&cap_stopped);
    let cap = on(&storage, &transport)
        .subscribe("work", move |Cancelled(token): Cancelled| {
            noted.note(());
            let stopped = Arc::clone(&stopped);
            async move {
                token.cancelled().await;
                stopped.notify_one();
                Err::<(), _>(HandlerError::cancelled())
            }
        })
        .start()
        .await
        .unwrap();
    let id = cap.publish("work", &()).await.unwrap();
    seen.next().await;
    cap.shutdown().await.unwrap();
    cap_stopped.notified().await;
    let row = cap.messages().find(id.as_str()).await.unwrap().remove(0);
    assert_eq!((row.status, row.attempts, row.owner), (Status::Scheduled, 0, None));
}

#[tokio::test(start_paused = true)]
async fn the_second_delivery_of_a_message_is_not_handled_again() {
    let (storage, transport) = (MemoryStorage::new(), MemoryTransport::new());
    let (noted, mut seen) = log();
    let cap = on(&storage, &transport)
        .subscribe("work", move |n: u32| {
            noted.note(n);
            async {}
        })
        .start()
        .await
        .unwrap();
    let headers: cap_core::Headers = [("cap-msg-id", "same"), ("cap-msg-name", "work")].into_iter().collect();
    for body in ["1", "2", "3"] {
        transport.publish_raw("work", headers.clone(), cap_core::Headers::new(), body).await.unwrap();
    }
    assert_eq!(seen.next().await, 1);
    cap.publish("work", &9).await.unwrap();
    assert_eq!(seen.next().await, 9);
    cap.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn expired_rows_are_deleted_and_those_with_attempts_left_kept() {
    let cap = alone()
        .subscribe("good", async || ())
        .subscribe("bad", async || Err::<(), _>("never"))
        .configure(|options| {
            options.failed_expire_after = Duration::from_secs(36 * 3600);
            options.retry = RetryPolicy::fixed(Duration::from_secs(6 * 3600), 4);
        })
        .start()
        .await
        .unwrap();
    let good = cap.publish("good", &()).await.unwrap();
    let bad = cap.publish("bad", &()).await.unwrap();
    let there =
        async |side, id: &MessageId| !cap.messages().side(side).find(id.as_str()).await.unwrap().is_empty();
    let hours = |hours: u64| Duration::from_hours(hours);
    tokio::time::sleep(Duration::from_mins(24 * 60 - 10)).await;
    assert!(there(Side::Inbox, &good).await && there(Side::Outbox, &good).await);
    tokio::time::sleep(Duration::from_secs(1200)).await;
    assert!(!there(Side::Inbox, &good).await && !there(Side::Outbox, &good).await);
    tokio::time::sleep(hours(21)).await;
    assert!(there(Side::Inbox, &bad).await, "its last attempt failed after 18 hours: kept until the 54th");
    tokio::time::sleep(hours(12)).await;
    assert!(!there(Side::Inbox, &bad).await);
    cap.shutdown().await.unwrap();
}

#[tokio::test]
async fn success_may_delete_at_once() {
    let (noted, mut seen) = log();
    let cap = alone()
        .configure(|options| options.succeeded_expire_after = Duration::ZERO)
        .subscribe("work", move || {
            noted.note(());
            async {}
        })
        .start()
        .await
        .unwrap();
    let id = cap.publish("work", &()).await.unwrap();
    seen.next().await;
    cap.shutdown().await.unwrap();
    for side in [Side::Outbox, Side::Inbox] {
        assert!(cap.messages().side(side).find(id.as_str()).await.unwrap().is_empty());
    }
}
