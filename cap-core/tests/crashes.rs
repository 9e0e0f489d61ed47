//! Messages that kill their process, on the embedded pair: issue 8, row 2. A bus that is dropped while a handler hangs is a
//! process that died; `cap-tests` has real ones.

#![allow(clippy::unwrap_used, reason = "a test says what went wrong by failing")]

mod support;

use std::collections::BTreeMap;
use std::time::Duration;

use cap_core::memory::{MemoryStorage, MemoryTransport};
use cap_core::monitor::{Monitor as _, Query};
use cap_core::prelude::*;
use cap_core::storage::{Reason, Side, Status};
use cap_core::{Cap, CapBuilder};
use support::store::Shaky;
use support::{Log, Seen, log, on};
use tokio::time::{sleep, timeout};

const DEADLY: u64 = 7;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Event {
    Began(&'static str, u64),
    Ended(&'static str, u64),
    Died,
    Failed(Reason, String),
}

/// A process with two groups. In the first the deadly message kills it.
fn process(storage: &MemoryStorage, transport: &MemoryTransport, noted: &Log<Event>) -> CapBuilder {
    let handler = |group: &'static str| {
        let noted = noted.clone();
        move |number: u64| {
            let noted = noted.clone();
            async move {
                noted.note(Event::Began(group, number));
                sleep(Duration::from_millis(10)).await;
                if number == DEADLY && group == "deadly" {
                    noted.note(Event::Died);
                    std::future::pending::<()>().await;
                }
                noted.note(Event::Ended(group, number));
            }
        }
    };
    let told = noted.clone();
    on(storage, transport)
        .configure(|options| options.group_concurrency = 4)
        .on_failed(move |failure| {
            told.note(Event::Failed(failure.reason, failure.error));
            async {}
        })
        .subscribe(Subscribe::to("work").group("deadly"), handler("deadly"))
        .subscribe(Subscribe::to("work").group("calm"), handler("calm"))
}

/// The next death, with what was noted before it; `None` when nothing more happens.
async fn death(cap: Cap, seen: &mut Seen<Event>, all: &mut Vec<Event>) -> bool {
    let quiet = Duration::from_secs(300);
    loop {
        match timeout(quiet, seen.next()).await {
            Ok(Event::Died) => {
                all.push(Event::Died);
                drop(cap);
                return true;
            }
            Ok(event) => all.push(event),
            Err(_) => {
                cap.shutdown().await.unwrap();
                return false;
            }
        }
    }
}

async fn crashes_on_record(storage: &MemoryStorage) -> BTreeMap<i64, usize> {
    let mut crashes = BTreeMap::new();
    for row in storage.list(&Query::new(Side::Inbox).limit(1000)).await.unwrap() {
        let count = storage.attempts(Side::Inbox, row.id).await.unwrap().len();
        if count > 0 {
            crashes.insert(row.id, count);
        }
    }
    crashes
}

async fn until_quiet(limit: u32, most: usize) -> (MemoryStorage, Vec<Event>, usize) {
    let (storage, transport) = (MemoryStorage::new(), MemoryTransport::new());
    let (noted, mut seen) = log();
    let mut all = Vec::new();
    let mut deaths = 0;
    loop {
        let builder = process(&storage, &transport, &noted);
        let cap = builder.configure(|options| options.crash_limit = limit).start().await.unwrap();
        if deaths == 0 {
            cap.publish_all("work", 0..20_u64).await.unwrap();
        }
        if !death(cap, &mut seen, &mut all).await || deaths == most {
            return (storage, all, deaths);
        }
        deaths += 1;
    }
}

#[tokio::test(start_paused = true)]
async fn a_message_that_kills_its_process_is_parked() {
    let (storage, all, deaths) = until_quiet(3, 100).await;
    // Once unsuspected, perhaps once beside a suspect of the other group, and three times alone.
    assert!((4..=5).contains(&deaths), "{deaths}");
    let failed: Vec<_> = all.iter().filter(|event| matches!(event, Event::Failed(..))).collect();
    let [Event::Failed(Reason::ProcessCrashed, error)] = &failed[..] else { panic!("{failed:?}") };
    assert!(error.contains("3 times in all"), "{error}");
    for group in ["deadly", "calm"] {
        for number in (0..20).filter(|number| (group, *number) != ("deadly", DEADLY)) {
            assert!(all.contains(&Event::Ended(group, number)), "{group} {number}");
        }
    }
    let parked = storage.list(&Query::new(Side::Inbox).status(Status::Failed)).await.unwrap();
    assert_eq!((parked.len(), parked[0].attempts), (1, 0), "no attempt has failed");
    assert_eq!(crashes_on_record(&storage).await, BTreeMap::from([(parked[0].id, 3)]), "and of no other");
}

#[tokio::test(start_paused = true)]
async fn a_crash_limit_of_zero_parks_nothing() {
    let (storage, all, _) = until_quiet(0, 8).await;
    assert!(!all.iter().any(|event| matches!(event, Event::Failed(..))));
    assert!(storage.list(&Query::new(Side::Inbox).status(Status::Failed)).await.unwrap().is_empty());
    let crashes = crashes_on_record(&storage).await;
    assert!(crashes.len() == 1 && crashes.values().all(|count| *count >= 6), "{crashes:?}");
}

/// What shutdown gives back is no suspect, however often.
#[tokio::test(start_paused = true)]
async fn an_orderly_shutdown_counts_nothing() {
    let (storage, transport) = (MemoryStorage::new(), MemoryTransport::new());
    let (noted, mut seen) = log();
    for round in 0..8 {
        let builder = process(&storage, &transport, &noted);
        let builder = builder.configure(|options| options.shutdown_timeout = Duration::from_secs(1));
        let cap = builder.start().await.unwrap();
        if round == 0 {
            cap.publish("work", &DEADLY).await.unwrap();
        }
        while seen.next().await != Event::Died {}
        let _ = cap.shutdown().await;
    }
    assert_eq!(crashes_on_record(&storage).await, BTreeMap::new());
}

/// A suspect that takes its time holds up no other message of its group.
#[tokio::test(start_paused = true)]
async fn others_go_on_beside_a_suspect() {
    let (storage, transport) = (MemoryStorage::new(), MemoryTransport::new());
    let (noted, mut seen) = log();
    let mut all = Vec::new();
    let first = process(&storage, &transport, &noted).start().await.unwrap();
    first.publish("work", &DEADLY).await.unwrap();
    assert!(death(first, &mut seen, &mut all).await);
    let second = process(&storage, &transport, &noted).start().await.unwrap();
    while seen.next().await != Event::Died {}
    // It hangs, marked, in a process that lives.
    second.publish_all("work", 100..300_u64).await.unwrap();
    let mut done = 0;
    while done < 400 {
        done += usize::from(matches!(seen.next().await, Event::Ended(_, 100..)));
    }
    second.shutdown().await.unwrap_err();
}

/// A node that was cut off from its storage for longer than a lease lost its suspect to another, which took it for dead: it
/// takes the crash back.
#[tokio::test(start_paused = true)]
async fn a_node_that_lives_takes_its_crash_back() {
    use support::store::ALL;
    let (storage, transport) = (MemoryStorage::new(), MemoryTransport::new());
    let (noted, mut seen) = log();
    let mut all = Vec::new();
    let first = process(&storage, &transport, &noted).start().await.unwrap();
    first.publish("work", &DEADLY).await.unwrap();
    assert!(death(first, &mut seen, &mut all).await);
    let shaky = Shaky::over(storage.clone());
    let cut_off = process(&storage, &transport, &noted).storage(shaky.clone()).start().await.unwrap();
    while seen.next().await != Event::Died {}
    shaky.fail(&ALL, cap_core::error::StorageErrorKind::Unavailable);
    let heir = process(&storage, &transport, &noted).start().await.unwrap();
    while seen.next().await != Event::Died {}
    assert_eq!(crashes_on_record(&storage).await.values().sum::<usize>(), 1, "who would know better?");
    shaky.mend(&ALL);
    sleep(Duration::from_secs(60)).await;
    assert_eq!(crashes_on_record(&storage).await, BTreeMap::new());
    let _ = cut_off.shutdown().await;
    let _ = heir.shutdown().await;
}

/// However many groups have a suspect, their starts are noted together.
#[tokio::test(start_paused = true)]
async fn starts_of_many_suspects_are_noted_together() {
    const GROUPS: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "h"];
    let (storage, transport) = (MemoryStorage::new(), MemoryTransport::new());
    let (noted, mut seen) = log();
    let shaky = Shaky::over(storage.clone());
    let service = |hangs: bool| {
        GROUPS.into_iter().fold(on(&storage, &transport).storage(shaky.clone()), |builder, group| {
            let noted = noted.clone();
            builder.subscribe(Subscribe::to("work").group(group), move |number: u64| {
                noted.note(Event::Began(group, number));
                async move {
                    if hangs {
                        std::future::pending::<()>().await;
                    }
                }
            })
        })
    };
    let first = service(true).start().await.unwrap();
    first.publish("work", &1_u64).await.unwrap();
    for _ in GROUPS {
        seen.next().await;
    }
    drop(first);
    assert_eq!(shaky.marks(), [0; 0], "a first run is not noted");
    let second = service(false).start().await.unwrap();
    for _ in GROUPS {
        seen.next().await;
    }
    let marks = shaky.marks();
    assert!(marks.len() <= 2 && marks.iter().max() == Some(&GROUPS.len()), "{marks:?}");
    second.shutdown().await.unwrap();
}
