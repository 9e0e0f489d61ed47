//! Faults on demand.

use std::sync::atomic::{AtomicU32, Ordering};

/// Makes the storage or the broker of a [`TestBus`](crate::TestBus) fail, as [`TestBus::faults`](crate::TestBus::faults)
/// returns it. Each call applies to the next operations of its kind, and only to this bus.
///
/// ```
/// use cap_core::prelude::*;
/// use cap_test::TestBus;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let service = Cap::builder().handlers(Handlers::none()).subscribe("greeting", async |_: String| {});
/// let bus = TestBus::start(service).await;
/// bus.faults().deliver_twice(1);
/// bus.publish("greeting", "hello").await.expect("stored");
/// // The inbox recognizes the duplicate: the handler runs once.
/// assert_eq!(bus.handled("greeting").count().await, 1);
/// # }
/// ```
#[derive(Debug, Default)]
pub struct Faults {
    failing_sends: AtomicU32,
    lost_confirms: AtomicU32,
    duplicates: AtomicU32,
    failing_writes: AtomicU32,
    lost_answers: AtomicU32,
    lost_leases: AtomicU32,
}

impl Faults {
    /// The next `count` batches that are sent to the broker fail as in an outage; nothing is sent. No attempt is counted,
    /// and the messages are sent again.
    pub fn fail_sends(&self, count: u32) {
        self.failing_sends.store(count, Ordering::SeqCst);
    }

    /// The next `count` batches are sent, but the broker's confirmations are lost. The bus sends them again, so that the
    /// receiver gets duplicates.
    pub fn lose_confirms(&self, count: u32) {
        self.lost_confirms.store(count, Ordering::SeqCst);
    }

    /// The broker delivers each message of the next `count` batches twice.
    pub fn deliver_twice(&self, count: u32) {
        self.duplicates.store(count, Ordering::SeqCst);
    }

    /// The next `count` writes to the storage fail as in an outage; nothing is written.
    pub fn fail_writes(&self, count: u32) {
        self.failing_writes.store(count, Ordering::SeqCst);
    }

    /// The next `count` writes to the storage are carried out, but the connection breaks before their result is known, as
    /// when the database's host fails right after a commit.
    pub fn lose_answers(&self, count: u32) {
        self.lost_answers.store(count, Ordering::SeqCst);
    }

    /// The next `count` writes of outcomes of handlers are not carried out, because the leases are lost, as if another node
    /// had taken over the messages. They are handled again at once. Only for handlers without a transaction argument, which
    /// writes its outcome itself.
    pub fn lose_leases(&self, count: u32) {
        self.lost_leases.store(count, Ordering::SeqCst);
    }

    pub(crate) fn send_fails(&self) -> bool {
        take(&self.failing_sends)
    }

    pub(crate) fn confirm_is_lost(&self) -> bool {
        take(&self.lost_confirms)
    }

    pub(crate) fn is_duplicated(&self) -> bool {
        take(&self.duplicates)
    }

    pub(crate) fn write_fails(&self) -> bool {
        take(&self.failing_writes)
    }

    pub(crate) fn answer_is_lost(&self) -> bool {
        take(&self.lost_answers)
    }

    pub(crate) fn lease_is_lost(&self) -> bool {
        take(&self.lost_leases)
    }
}

/// Uses up one, if there is one.
fn take(left: &AtomicU32) -> bool {
    left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok()
}
