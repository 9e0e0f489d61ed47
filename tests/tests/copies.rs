//! How often a large body is copied on its way: every allocation of at least its size is counted. Issue 9, row 13.
//!
//! A program of its own, as the allocator that counts is that of the whole process.

#![allow(clippy::unwrap_used, reason = "a test says what went wrong by failing")]

use std::alloc::System;
use std::sync::{Mutex, PoisonError};

use cap_core::prelude::*;
use cap_tests::{Scene, heard, scene, until};
use tokio::sync::mpsc;
use tracking_allocator::{AllocationGroupId, AllocationRegistry, AllocationTracker, Allocator};

#[global_allocator]
static ALLOCATOR: Allocator<System> = Allocator::system();

/// The size of the body, of which lapin has to make its buffer only a little larger.
const BODY: usize = 8_000_000;

/// What the driver of PostgreSQL allocates for a statement with a body: a buffer for its arguments; one for what it writes to
/// the socket, which gets the arguments; and the double of that, for the few bytes that come behind them.
const DRIVER: usize = 3;

/// The sizes of all allocations that a body of this size fits into.
static LARGE: Mutex<Vec<usize>> = Mutex::new(Vec::new());

struct Large;

impl AllocationTracker for Large {
    fn allocated(&self, _: usize, size: usize, _: usize, _: AllocationGroupId) {
        if size >= BODY {
            LARGE.lock().unwrap_or_else(PoisonError::into_inner).push(size);
        }
    }

    fn deallocated(&self, _: usize, _: usize, _: usize, _: AllocationGroupId, _: AllocationGroupId) {}
}

/// Forgets what was allocated before.
fn begin_to_count() {
    // The other test may have set it, where all tests run in one process.
    let _ = AllocationRegistry::set_global_tracker(Large);
    AllocationRegistry::enable_tracking();
    taken();
}

fn taken() -> Vec<usize> {
    std::mem::take(&mut LARGE.lock().unwrap_or_else(PoisonError::into_inner))
}

/// One test at a time: they count the same allocations.
static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// Waits until a table has so many rows in a final state. Reading rows by the bus would count.
async fn completed(scene: &Scene, table: &str) {
    let count = format!(
        "SELECT count(*) FROM \"{0}\".{table} AS m WHERE NOT EXISTS (SELECT FROM \"{0}\".{table}_state AS s WHERE s.id = m.id)",
        scene.name()
    );
    until("the message to be completed", async || {
        let rows: i64 =
            sqlx::query_scalar(sqlx::AssertSqlSafe(count.clone())).fetch_one(scene.pool()).await.unwrap();
        (rows == 1).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_received_body_is_copied_by_the_driver_alone() {
    let _turn = TURN.lock().await;
    scene(async |scene| {
        let (tell, mut told) = mpsc::channel(1);
        let builder = scene.builder().subscribe("large", move |RawBody(body): RawBody| {
            let tell = tell.clone();
            async move { tell.send(body.len()).await }
        });
        scene.start(builder).await;
        let (foreign, body) = (scene.foreign().await, vec![b'x'; BODY]);
        begin_to_count();
        foreign.send_named("large", "1", &body).await;
        assert_eq!(heard(&mut told).await, BODY);
        completed(scene, "inbox").await;
        let sizes = taken();
        // lapin's buffer, which is the body that the handler gets, and what the driver takes.
        assert_eq!(sizes.len(), 1 + DRIVER, "{sizes:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_published_body_is_copied_by_the_driver_alone() {
    let _turn = TURN.lock().await;
    scene(async |scene| {
        let cap = scene.start(scene.builder()).await;
        let foreign = scene.foreign().await;
        // Nobody consumes it: what comes back from the broker would count.
        foreign.small_queue("large", 1).await;
        // "[1,1,1,..]" in JSON.
        let payload = vec![1_u8; BODY / 2];
        begin_to_count();
        cap.publish("large", &payload).await.unwrap();
        completed(scene, "outbox").await;
        let sizes = taken();
        // The JSON, of which lapin makes frames that are smaller, and what the driver takes.
        assert_eq!(sizes.len(), 1 + DRIVER, "{sizes:?}");
    })
    .await;
}
