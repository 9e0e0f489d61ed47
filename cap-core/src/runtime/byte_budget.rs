//! The limit on the bytes of received messages that a group keeps in memory, from receipt until their handlers have
//! finished.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

/// A group's share of [`receive_bytes`](crate::CapOptions::receive_bytes).
///
/// The size of a message is known only after it has been received. A receiver therefore waits until there is room for a
/// message as large as the largest of the most recent ones, so that only a message larger than that exceeds the budget.
#[derive(Debug)]
pub(crate) struct ByteBudget {
    share: usize,
    held: AtomicUsize,
    expected: AtomicUsize,
    freed: Notify,
}

impl ByteBudget {
    pub(crate) fn new(share: usize) -> Arc<Self> {
        let (held, expected) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Arc::new(Self { share: share.max(1), held, expected, freed: Notify::new() })
    }

    /// The size of the whole budget, in bytes.
    pub(crate) fn share(&self) -> usize {
        self.share
    }

    /// Returns how many bytes are free, or `None` if another message is unlikely to fit.
    pub(crate) fn free(&self) -> Option<usize> {
        let free = self.share.saturating_sub(self.held.load(Ordering::Acquire));
        let expected = self.expected.load(Ordering::Relaxed).clamp(1, self.share);
        Some(free).filter(|free| *free >= expected)
    }

    /// Waits until another message is likely to fit, and returns how many bytes are free. Cancel safe: it reserves
    /// nothing.
    pub(crate) async fn opens(&self) -> usize {
        loop {
            // Registered before the check, so that bytes freed between the two wake us.
            let freed = self.freed.notified();
            match self.free() {
                Some(free) => return free,
                None => freed.await,
            }
        }
    }

    /// Sets the size that the next message is expected to have: that of the largest recent one.
    pub(crate) fn expect(&self, bytes: usize) {
        self.expected.store(bytes, Ordering::Relaxed);
    }

    /// Reserves bytes, whether or not they are free, until the returned guard is dropped.
    pub(crate) fn reserve(self: &Arc<Self>, bytes: usize) -> Reserved {
        self.held.fetch_add(bytes, Ordering::AcqRel);
        Reserved { budget: Arc::clone(self), bytes }
    }
}

/// The bytes of a [`ByteBudget`] that messages occupy; dropping it frees them.
#[derive(Debug)]
pub(crate) struct Reserved {
    budget: Arc<ByteBudget>,
    bytes: usize,
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.budget.held.fetch_sub(self.bytes, Ordering::AcqRel);
        self.budget.freed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn opens_once_less_than_the_share_is_reserved() {
        let budget = ByteBudget::new(100);
        assert_eq!(budget.opens().await, 100);
        let (small, large) = (budget.reserve(40), budget.reserve(300));
        assert_eq!(budget.free(), None);
        let mut opens = Box::pin(budget.opens());
        assert!(opens.as_mut().now_or_never().is_none());
        drop(small);
        assert!(opens.as_mut().now_or_never().is_none(), "300 of 100 are still reserved");
        drop(large);
        assert_eq!(opens.await, 100);
    }

    #[tokio::test]
    async fn waits_for_room_for_one_more_of_the_expected_size() {
        let budget = ByteBudget::new(100);
        budget.expect(60);
        let first = budget.reserve(60);
        let mut opens = Box::pin(budget.opens());
        assert!(opens.as_mut().now_or_never().is_none(), "40 are free");
        drop(first);
        assert_eq!(opens.await, 100);
        // A message larger than the whole budget is received when nothing else is reserved.
        budget.expect(1000);
        assert_eq!(budget.opens().await, 100);
        let _one = budget.reserve(1);
        assert!(budget.opens().now_or_never().is_none());
        budget.expect(10);
        assert_eq!(budget.opens().await, 99);
    }
}
