//! What a message allocates on the embedded pair, from `publish` to the written outcome of its handler. Counted in one thread, so
//! that noise moves nothing: a budget that is exceeded is a change of ours or of a dependency.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test says what went wrong by failing")]

mod support;

use allocation_counter::{AllocationInfo, measure};
use cap_core::prelude::*;
use serde_json::json;
use support::{Seen, alone, log};
use tokio::runtime::{Builder, Runtime};

const MESSAGES: u64 = 1000;

/// A bus with one handler, warm: its tables, queues and batches have grown.
fn warm() -> (Runtime, Cap, Seen<()>) {
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let (noted, mut seen) = log();
    let bus = alone().subscribe("work", move |_: serde_json::Value| {
        noted.note(());
        async {}
    });
    let cap = runtime.block_on(bus.start()).unwrap();
    runtime.block_on(publish_one_by_one(&cap, &mut seen));
    (runtime, cap, seen)
}

async fn publish_one_by_one(cap: &Cap, seen: &mut Seen<()>) {
    for number in 0..MESSAGES {
        cap.publish("work", &json!({ "number": number, "customer": "acme" })).await.unwrap();
        seen.next().await;
    }
}

async fn publish_together(cap: &Cap, seen: &mut Seen<()>) {
    for _ in 0..MESSAGES / 100 {
        let payloads = (0..100).map(|number| json!({ "number": number, "customer": "acme" }));
        cap.publish_all("work", payloads).await.unwrap();
        seen.take(100).await;
    }
}

/// Fails if a message takes more allocations or bytes than this.
#[track_caller]
fn check(what: &str, used: &AllocationInfo, allocations: u64, bytes: u64) {
    let (each, bytes_each) = (used.count_total / MESSAGES, used.bytes_total / MESSAGES);
    eprintln!("{what}: {each} allocations of {bytes_each} bytes a message");
    assert!(each <= allocations, "{what}: {each} allocations a message, the budget is {allocations}");
    assert!(bytes_each <= bytes, "{what}: {bytes_each} bytes a message, the budget is {bytes}");
}

#[test]
fn messages_published_one_by_one_stay_within_their_budget() {
    let (runtime, cap, mut seen) = warm();
    let used = measure(|| runtime.block_on(publish_one_by_one(&cap, &mut seen)));
    check("one by one", &used, 160, 21_800);
    runtime.block_on(cap.shutdown()).unwrap();
}

#[test]
fn messages_published_together_stay_within_their_budget() {
    let (runtime, cap, mut seen) = warm();
    let used = measure(|| runtime.block_on(publish_together(&cap, &mut seen)));
    check("together", &used, 104, 15_200);
    runtime.block_on(cap.shutdown()).unwrap();
}
