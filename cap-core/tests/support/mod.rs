//! What the engine's tests share: a builder on the embedded pair, and a place where handlers report.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that waits in vain has failed")]
#![allow(dead_code, unreachable_pub, reason = "each test file uses its own part")]

pub mod signs;
pub mod store;

use std::fmt::Debug;
use std::time::Duration;

use cap_core::CapBuilder;
use cap_core::prelude::*;
use tokio::sync::mpsc;

/// A bus on a store and a broker of its own.
pub fn alone() -> CapBuilder {
    on(&MemoryStorage::new(), &MemoryTransport::new())
}

/// A bus on a store and a broker that others share.
pub fn on(storage: &MemoryStorage, transport: &MemoryTransport) -> CapBuilder {
    Cap::builder()
        .handlers(Handlers::none())
        .storage(storage.clone())
        .transport(transport.clone())
        .configure(|options| options.default_group = "test".into())
}

/// Where handlers report what they saw.
#[derive(Debug)]
pub struct Log<T>(mpsc::UnboundedSender<T>);

impl<T> Clone for Log<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

/// What the test reads of it.
#[derive(Debug)]
pub struct Seen<T>(mpsc::UnboundedReceiver<T>);

pub fn log<T>() -> (Log<T>, Seen<T>) {
    let (sender, receiver) = mpsc::unbounded_channel();
    (Log(sender), Seen(receiver))
}

impl<T> Log<T> {
    pub fn note(&self, what: T) {
        let _ = self.0.send(what);
    }
}

impl<T: Debug> Seen<T> {
    /// The next report. With paused time a wait for one that never comes ends at once.
    pub async fn next(&mut self) -> T {
        tokio::time::timeout(std::time::Duration::from_secs(30 * 86_400), self.0.recv())
            .await
            .expect("a report within thirty days")
            .expect("the handlers are alive")
    }

    pub async fn take(&mut self, count: usize) -> Vec<T> {
        let mut all = Vec::new();
        for _ in 0..count {
            all.push(self.next().await);
        }
        all
    }

    /// A report that is there already.
    pub fn now(&mut self) -> Option<T> {
        self.0.try_recv().ok()
    }

    /// Nothing more was reported until now.
    #[track_caller]
    pub fn assert_empty(&mut self) {
        if let Ok(more) = self.0.try_recv() {
            panic!("one report too many: {more:?}");
        }
    }
}

/// The attempts and the whole seconds at which they were made.
pub async fn attempts(seen: &mut Seen<(u32, Duration)>, count: usize) -> Vec<(u32, u64)> {
    seen.take(count).await.into_iter().map(|(attempt, at)| (attempt, at.as_secs())).collect()
}
