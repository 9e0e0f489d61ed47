//! The bytes of received messages that a group holds in memory, from their receipt to the end of their handlers.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

/// A group's share of [`receive_bytes`](crate::CapOptions::receive_bytes).
///
/// How large a message is is known only once it is there. Whoever wants one waits until there is budget for one as large as
/// the largest of the last ones, so that the budget is exceeded only by what is larger than that.
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

    /// How many bytes it has in all.
    pub(crate) fn share(&self) -> usize {
        self.share
    }

    /// How many bytes are free, if another message is likely to fit.
    pub(crate) fn free(&self) -> Option<usize> {
        let free = self.share.saturating_sub(self.held.load(Ordering::Acquire));
        let expected = self.expected.load(Ordering::Relaxed).clamp(1, self.share);
        Some(free).filter(|free| *free >= expected)
    }

    /// Waits until another message is likely to fit, and gives back how many bytes are free. Cancel safe: nothing is taken.
    pub(crate) async fn opens(&self) -> usize {
        loop {
            // Made before the look, so that what is freed in between ends the wait.
            let freed = self.freed.notified();
            match self.free() {
                Some(free) => return free,
                None => freed.await,
            }
        }
    }

    /// Says how large the last messages were at most.
    pub(crate) fn expect(&self, bytes: usize) {
        self.expected.store(bytes, Ordering::Relaxed);
    }

    /// Takes bytes, whether they are free or not, until what is given back is dropped.
    pub(crate) fn reserve(self: &Arc<Self>, bytes: usize) -> Reserved {
        self.held.fetch_add(bytes, Ordering::AcqRel);
        Reserved { budget: Arc::clone(self), bytes }
    }
}

/// Bytes of a [`ByteBudget`] that a message takes.
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
    async fn opens_once_less_is_held_than_it_has() {
        let budget = ByteBudget::new(100);
        assert_eq!(budget.opens().await, 100);
        let (small, large) = (budget.reserve(40), budget.reserve(300));
        assert_eq!(budget.free(), None);
        let mut opens = Box::pin(budget.opens());
        assert!(opens.as_mut().now_or_never().is_none());
        drop(small);
        assert!(opens.as_mut().now_or_never().is_none(), "300 of 100 are held still");
        drop(large);
        assert_eq!(opens.await, 100);
    }

    #[tokio::test]
    async fn waits_for_room_for_one_more_of_the_last_size() {
        let budget = ByteBudget::new(100);
        budget.expect(60);
        let first = budget.reserve(60);
        let mut opens = Box::pin(budget.opens());
        assert!(opens.as_mut().now_or_never().is_none(), "40 are free");
        drop(first);
        assert_eq!(opens.await, 100);
        // What is larger than all of it comes alone.
        budget.expect(1000);
        assert_eq!(budget.opens().await, 100);
        let _one = budget.reserve(1);
        assert!(budget.opens().now_or_never().is_none());
        budget.expect(10);
        assert_eq!(budget.opens().await, 99);
    }
}
