//! The transport of this process keeps nothing: what a bus sends over it is stored by the buses that want it, or stays in
//! the outbox. Issue 8, rows A, B and 15. On every storage and every broker: `tests/tests/pairs.rs`.
#![allow(clippy::unwrap_used, reason = "a test says what went wrong by failing")]

mod support;

use std::collections::BTreeMap;
use std::time::Duration;

use cap_core::CapBuilder;
use cap_core::error::StorageErrorKind;
use cap_core::prelude::*;
use cap_core::storage::{Side, Status};
use support::signs::Signs;
use support::store::{ALL, Shaky};
use support::{Log, log, on};
use tokio::time::Instant;
use tracing::Level;

const SECOND: Duration = Duration::from_secs(1);

/// A bus of one group that notes what it handles of a topic.
fn noting(builder: CapBuilder, group: &str, topic: &str, noted: &Log<(String, u32)>) -> CapBuilder {
    let (noted, name) = (noted.clone(), group.to_owned());
    builder.subscribe(Subscribe::to(topic).group(group), move |n: u32| {
        noted.note((name.clone(), n));
        async {}
    })
}

/// How many rows of a side there are in each status.
async fn statuses(cap: &Cap, side: Side) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for row in cap.messages().side(side).limit(10_000).list().await.unwrap() {
        *counts.entry(format!("{:?}", row.status)).or_default() += 1;
    }
    counts
}

fn is(status: Status, count: usize) -> BTreeMap<String, usize> {
    [(format!("{status:?}"), count)].into()
}

mod shutdown {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn stores_what_is_sent_and_starts_none_of_it() {
        let storage = MemoryStorage::new();
        let (noted, mut seen) = log();
        // Each life has a transport of its own, as each process would.
        let life = || {
            let builder = noting(on(&storage, &MemoryTransport::new()), "a", "work", &noted);
            noting(builder, "b", "work", &noted).start()
        };
        let cap = life().await.unwrap();
        cap.publish_all("work", 0..300).await.unwrap();
        cap.shutdown().await.unwrap();
        assert_eq!(statuses(&cap, Side::Outbox).await, is(Status::Succeeded, 300));
        let rows = cap.messages().limit(1000).list().await.unwrap();
        assert_eq!(rows.len(), 600, "every group has every message");
        assert!(rows.iter().all(|row| row.owner.is_none()), "nothing is left in this node's hands");

        let cap = life().await.unwrap();
        let mut all = seen.take(600).await;
        all.sort_unstable();
        let of = |group: &str| (0..300).map(|n| (group.to_owned(), n)).collect::<Vec<_>>();
        assert_eq!(all, [of("a"), of("b")].concat(), "each once, in both lives together");
        cap.shutdown().await.unwrap();
        seen.assert_empty();
    }

    /// The relay goes on while the bus stops, and so would they.
    #[tokio::test(start_paused = true)]
    async fn ends_while_handlers_publish_to_each_other() {
        let storage = MemoryStorage::new();
        let (noted, mut seen) = log();
        let life = || {
            let (serves, returns) = (noted.clone(), noted.clone());
            on(&storage, &MemoryTransport::new())
                .subscribe(Subscribe::to("ping").group("ping"), move |n: u32, publisher: Publisher| {
                    serves.note(n);
                    async move { publisher.publish("pong", &(n + 1)).await.map(drop) }
                })
                .subscribe(Subscribe::to("pong").group("pong"), move |n: u32, publisher: Publisher| {
                    returns.note(n);
                    async move { publisher.publish("ping", &(n + 1)).await.map(drop) }
                })
                .start()
        };
        let cap = life().await.unwrap();
        cap.publish("ping", &0).await.unwrap();
        assert_eq!(seen.take(10).await, (0..10).collect::<Vec<_>>());
        let start = Instant::now();
        cap.shutdown().await.unwrap();
        assert!(start.elapsed() < SECOND, "{:?}", start.elapsed());
        let mut last = 9;
        while let Some(next) = seen.now() {
            assert_eq!(next, last + 1);
            last = next;
        }
        let unfinished = statuses(&cap, Side::Inbox).await.get("Scheduled").copied();
        assert_eq!(unfinished, Some(1), "the last of them is stored");
        let cap = life().await.unwrap();
        assert_eq!(seen.next().await, last + 1);
        cap.shutdown().await.unwrap();
    }

    /// Rows B and 15: the task of a group that ends with the bus has not died.
    #[test]
    fn and_start_log_nothing_above_info() {
        let signs = Signs::default();
        let every_thread = signs.clone();
        // On several threads the tasks of a bus end in any order.
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(3)
            .on_thread_start(move || std::mem::forget(every_thread.log()))
            .enable_all()
            .build()
            .unwrap();
        let _log = signs.log();
        runtime.block_on(starts_and_stops(100));
        assert_eq!([signs.lines(Level::ERROR, ""), signs.lines(Level::WARN, "")].concat(), [""; 0]);
        assert_eq!(signs.lines(Level::INFO, "shut down").len(), 100, "the log was heard at all");
    }

    async fn starts_and_stops(rounds: u32) {
        for round in 0..rounds {
            let (storage, transport) = (MemoryStorage::new(), MemoryTransport::new());
            let (noted, mut seen) = log();
            let mut builder = on(&storage, &transport);
            for group in ["a", "b", "c"] {
                builder = noting(builder, group, "work", &noted);
            }
            let cap = builder.start().await.unwrap();
            if round % 2 == 0 {
                cap.publish_all("work", 0..20).await.unwrap();
            }
            if round % 4 == 0 {
                seen.take(60).await;
            }
            cap.shutdown().await.unwrap();
        }
    }
}

mod other_bus {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn has_stored_what_counts_as_sent() {
        let (own, other) = (MemoryStorage::new(), Shaky::default());
        let transport = MemoryTransport::new();
        let (noted, mut seen) = log();
        let a = noting(on(&own, &transport), "a", "work", &noted).start().await.unwrap();
        let b = on(&MemoryStorage::new(), &transport).storage(other.clone());
        let b = noting(b, "b", "work", &noted).start().await.unwrap();
        other.fail(&ALL, StorageErrorKind::Unavailable);
        let start = Instant::now();
        a.publish_all("work", 0..20).await.unwrap();
        let mut of_a = seen.take(20).await;
        of_a.sort_unstable();
        assert_eq!(of_a, (0..20).map(|n| ("a".to_owned(), n)).collect::<Vec<_>>());
        assert!(start.elapsed() < SECOND, "its own group does not wait for the other bus");
        tokio::time::sleep(100 * SECOND).await;
        assert_eq!(statuses(&a, Side::Outbox).await, is(Status::Scheduled, 20));
        other.mend(&ALL);
        let mut of_b = seen.take(20).await;
        of_b.sort_unstable();
        assert_eq!(of_b, (0..20).map(|n| ("b".to_owned(), n)).collect::<Vec<_>>());
        tokio::time::sleep(60 * SECOND).await;
        let rows = a.messages().published().limit(100).list().await.unwrap();
        assert!(rows.iter().all(|row| row.status == Status::Succeeded && row.attempts == 0), "{rows:?}");
        a.shutdown().await.unwrap();
        b.shutdown().await.unwrap();
        seen.assert_empty();
    }

    /// Also when nothing that succeeded is remembered: its own group runs once, however often it is sent again.
    #[tokio::test(start_paused = true)]
    async fn that_has_shut_down_first_loses_nothing() {
        let (of_a, of_b) = (MemoryStorage::new(), MemoryStorage::new());
        let (noted, mut seen) = log();
        let start = async |transport: &MemoryTransport| {
            let forgetful = |options: &mut CapOptions| options.succeeded_expire_after = Duration::ZERO;
            let b = noting(on(&of_b, transport), "b", "work", &noted).start().await.unwrap();
            let a = noting(on(&of_a, transport).configure(forgetful), "a", "work", &noted);
            (a.start().await.unwrap(), b)
        };
        let (a, b) = start(&MemoryTransport::new()).await;
        a.publish_all("work", 0..10).await.unwrap();
        b.shutdown().await.unwrap();
        a.publish_all("work", 10..20).await.unwrap();
        tokio::time::sleep(1000 * SECOND).await;
        let waiting = statuses(&a, Side::Outbox).await;
        a.shutdown().await.unwrap();
        assert!(waiting.get("Scheduled").is_some_and(|waiting| *waiting >= 10), "{waiting:?}");
        let rows = a.messages().published().limit(100).list().await.unwrap();
        assert!(rows.iter().all(|row| row.attempts == 0 && row.owner.is_none()), "{rows:?}");
        let mut before = Vec::new();
        while let Some(report) = seen.now() {
            before.push(report);
        }
        before.sort_unstable();
        before.dedup();
        let count_of_a = before.iter().filter(|(group, _)| group == "a").count();
        assert_eq!(count_of_a, 20, "{before:?}");

        let (a, b) = start(&MemoryTransport::new()).await;
        let count_of_b = before.len() - count_of_a;
        while before.iter().filter(|(group, _)| group == "b").count() < 20 {
            before.push(seen.next().await);
        }
        assert!(count_of_b <= 10);
        tokio::time::sleep(60 * SECOND).await;
        assert_eq!(statuses(&a, Side::Outbox).await.get("Scheduled"), None);
        a.shutdown().await.unwrap();
        b.shutdown().await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn that_comes_back_gets_what_waits_for_it() {
        let (of_a, of_b, transport) = (MemoryStorage::new(), MemoryStorage::new(), MemoryTransport::new());
        let (noted, mut seen) = log();
        let life = || noting(on(&of_b, &transport), "b", "work", &noted).start();
        let a = on(&of_a, &transport).start().await.unwrap();
        life().await.unwrap().shutdown().await.unwrap();
        a.publish_all("work", 0..10).await.unwrap();
        tokio::time::sleep(10 * SECOND).await;
        seen.assert_empty();
        let (back, b) = (Instant::now(), life().await.unwrap());
        assert_eq!(seen.take(10).await, (0..10).map(|n| ("b".to_owned(), n)).collect::<Vec<_>>());
        assert!(back.elapsed() <= 30 * SECOND);
        a.shutdown().await.unwrap();
        b.shutdown().await.unwrap();
    }

    /// Two members of one group, each with a topic of its own: the bus that has the group does not take what is the
    /// other's.
    #[tokio::test(start_paused = true)]
    async fn of_the_same_group_gets_topics_that_only_it_takes() {
        let transport = MemoryTransport::new();
        let (noted, mut seen) = log();
        let a = noting(on(&MemoryStorage::new(), &transport), "shared", "a", &noted).start().await.unwrap();
        a.publish("a", &1).await.unwrap();
        assert_eq!(seen.next().await.1, 1);
        a.shutdown().await.unwrap();
        let storage = MemoryStorage::new();
        let b = noting(on(&storage, &transport), "shared", "b", &noted).start().await.unwrap();
        let publisher =
            noting(on(&MemoryStorage::new(), &transport), "none", "x", &noted).start().await.unwrap();
        publisher.publish("b", &2).await.unwrap();
        assert_eq!(seen.next().await, ("shared".to_owned(), 2));
        for cap in [b, publisher] {
            cap.shutdown().await.unwrap();
        }
        seen.assert_empty();
    }
}

mod own_groups {
    use super::*;

    /// What a slow group cannot take waits in its inbox, neither in memory nor before others.
    #[tokio::test(start_paused = true)]
    async fn that_fall_behind_delay_no_other_and_keep_order() {
        let (noted, mut seen) = log();
        let slow = noted.clone();
        let builder = on(&MemoryStorage::new(), &MemoryTransport::with_capacity(4));
        let cap = noting(builder, "fast", "work", &noted)
            .configure(|options| options.prefetch = 4)
            .subscribe(Subscribe::to("work").group("slow"), move |n: u32| {
                let slow = slow.clone();
                async move {
                    tokio::time::sleep(SECOND).await;
                    slow.note(("slow".to_owned(), n));
                }
            })
            .start()
            .await
            .unwrap();
        let start = Instant::now();
        for n in 0..200 {
            cap.publish("work", &n).await.unwrap();
        }
        let (mut fast, mut behind) = (Vec::new(), Vec::new());
        while fast.len() + behind.len() < 400 {
            let (group, n) = seen.next().await;
            if group == "fast" {
                fast.push(n);
                assert!(start.elapsed() < 30 * SECOND, "{n} after {:?}", start.elapsed());
            } else {
                behind.push(n);
            }
        }
        assert_eq!(behind, (0..200).collect::<Vec<_>>());
        assert_eq!(fast, behind);
        cap.shutdown().await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn get_messages_delayed_at_the_broker_after_restart() {
        let storage = MemoryStorage::new();
        let (noted, mut seen) = log();
        let life = || noting(on(&storage, &MemoryTransport::new()), "a", "work", &noted).start();
        let cap = life().await.unwrap();
        let start = Instant::now();
        cap.publish("work", &1).delay_at_broker(90 * SECOND).await.unwrap();
        tokio::time::sleep(10 * SECOND).await;
        cap.shutdown().await.unwrap();
        seen.assert_empty();
        let cap = life().await.unwrap();
        assert_eq!(seen.next().await.1, 1);
        assert!(start.elapsed() >= 90 * SECOND && start.elapsed() < 95 * SECOND, "{:?}", start.elapsed());
        cap.shutdown().await.unwrap();
    }

    /// A queue of somebody else's gets what its owner has bound to it.
    #[tokio::test(start_paused = true)]
    async fn on_a_foreign_queue_get_what_is_bound_to_it() {
        let transport = MemoryTransport::new();
        let (noted, mut seen) = log();
        let owner = noting(on(&MemoryStorage::new(), &transport), "theirs", "bound", &noted);
        owner.start().await.unwrap().shutdown().await.unwrap();
        let taker = noted.clone();
        let cap = on(&MemoryStorage::new(), &transport)
            .subscribe(Subscribe::to("#").queue("theirs.v1"), move |n: u32| {
                taker.note(("taken".to_owned(), n));
                async {}
            })
            .start()
            .await
            .unwrap();
        cap.publish("unbound", &1).await.unwrap();
        cap.publish("bound", &2).await.unwrap();
        assert_eq!(seen.next().await, ("taken".to_owned(), 2));
        tokio::time::sleep(60 * SECOND).await;
        assert_eq!(statuses(&cap, Side::Outbox).await, is(Status::Succeeded, 2));
        cap.shutdown().await.unwrap();
        seen.assert_empty();
    }

    /// The storage may be away for long: nothing is lost, nothing is counted.
    #[tokio::test(start_paused = true)]
    async fn get_everything_after_an_outage_of_the_storage() {
        let storage = Shaky::default();
        let (noted, mut seen) = log();
        let builder = on(&MemoryStorage::new(), &MemoryTransport::new()).storage(storage.clone());
        let cap = noting(builder, "a", "work", &noted).start().await.unwrap();
        cap.publish_all("work", 0..50).await.unwrap();
        storage.fail(&ALL, StorageErrorKind::Unavailable);
        tokio::time::sleep(100 * SECOND).await;
        storage.mend(&ALL);
        storage.lose_answers(2);
        let mut all = seen.take(50).await;
        all.sort_unstable();
        assert_eq!(all, (0..50).map(|n| ("a".to_owned(), n)).collect::<Vec<_>>());
        tokio::time::sleep(100 * SECOND).await;
        assert_eq!(statuses(&cap, Side::Outbox).await, is(Status::Succeeded, 50));
        cap.shutdown().await.unwrap();
        seen.assert_empty();
    }
}
