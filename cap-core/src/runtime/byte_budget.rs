//! The bytes of received messages that a group holds in memory, from their receipt to the end of their handlers.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

/// A group's share of [`receive_bytes`](crate::CapOptions::receive_bytes).
///
/// How large a message is is known only once it is there. Whoever wants one waits until there is room for one as large as
/// the largest of the last ones, so that the room is exceeded only by what is larger than that.
#[derive(Debug)]
pub(crate) struct Room {
    share: usize,
    held: AtomicUsize,
    expected: AtomicUsize,
    freed: Notify,
}

impl Room {
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
    pub(crate) fn hold(self: &Arc<Self>, bytes: usize) -> Held {
        self.held.fetch_add(bytes, Ordering::AcqRel);
        Held { room: Arc::clone(self), bytes }
    }
}

/// Bytes of a [`Room`] that a message takes.
#[derive(Debug)]
pub(crate) struct Held {
    room: Arc<Room>,
    bytes: usize,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.room.held.fetch_sub(self.bytes, Ordering::AcqRel);
        self.room.freed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn opens_once_less_is_held_than_it_has() {
        let room = Room::new(100);
        assert_eq!(room.opens().await, 100);
        let (small, large) = (room.hold(40), room.hold(300));
        assert_eq!(room.free(), None);
        let mut opens = Box::pin(room.opens());
        assert!(opens.as_mut().now_or_never().is_none());
        drop(small);
        assert!(opens.as_mut().now_or_never().is_none(), "300 of 100 are held still");
        drop(large);
        assert_eq!(opens.await, 100);
    }

    #[tokio::test]
    async fn waits_for_room_for_one_more_of_the_last_size() {
        let room = Room::new(100);
        room.expect(60);
        let first = room.hold(60);
        let mut opens = Box::pin(room.opens());
        assert!(opens.as_mut().now_or_never().is_none(), "40 are free");
        drop(first);
        assert_eq!(opens.await, 100);
        // What is larger than all of it comes alone.
        room.expect(1000);
        assert_eq!(room.opens().await, 100);
        let _one = room.hold(1);
        assert!(room.opens().now_or_never().is_none());
        room.expect(10);
        assert_eq!(room.opens().await, 99);
    }
}
