//! Batching without a timer: a batch is whatever has queued up while the previous one was being processed, so a lone
//! item is never delayed.

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// The receiving end of a channel that is emptied in batches.
#[derive(Debug)]
pub(crate) struct Queue<T> {
    receiver: mpsc::Receiver<T>,
    /// An item that was received but was too large for the batch in progress; it starts the next one.
    next: Option<T>,
}

impl<T> From<mpsc::Receiver<T>> for Queue<T> {
    fn from(receiver: mpsc::Receiver<T>) -> Self {
        Self { receiver, next: None }
    }
}

impl<T> Queue<T> {
    /// Waits for an item and takes whatever else is queued, up to `items` and `bytes`; a larger item is a batch of its
    /// own. Once `drain` is cancelled the channel is closed to new items; returns `None` when it is empty.
    ///
    /// Cancel safe: an item is taken only when the call completes.
    pub(crate) async fn gather(
        &mut self,
        drain: &CancellationToken,
        items: usize,
        bytes: usize,
        size: impl Fn(&T) -> usize,
    ) -> Option<Vec<T>> {
        let first = match self.next.take() {
            Some(first) => first,
            None => self.first(drain).await?,
        };
        let mut batch = vec![first];
        self.add_queued(&mut batch, items, bytes, size);
        Some(batch)
    }

    /// Adds to a batch what has been queued meanwhile, within the same limits.
    pub(crate) fn add_queued(
        &mut self,
        batch: &mut Vec<T>,
        items: usize,
        bytes: usize,
        size: impl Fn(&T) -> usize,
    ) {
        let mut total: usize = batch.iter().map(&size).sum();
        if self.next.is_some() {
            return;
        }
        while batch.len() < items
            && let Ok(item) = self.receiver.try_recv()
        {
            total += size(&item);
            if total > bytes {
                self.next = Some(item);
                break;
            }
            batch.push(item);
        }
    }

    async fn first(&mut self, drain: &CancellationToken) -> Option<T> {
        if let Some(item) = drain.run_until_cancelled(self.receiver.recv()).await {
            return item;
        }
        self.receiver.close();
        self.receiver.recv().await
    }
}

/// Splits a list into parts of at most `bytes` bytes each, in order; a larger item is a part of its own.
pub(crate) fn split<T>(items: Vec<T>, bytes: usize, size: impl Fn(&T) -> usize) -> Vec<Vec<T>> {
    if items.iter().map(&size).sum::<usize>() <= bytes {
        return if items.is_empty() { Vec::new() } else { vec![items] };
    }
    let (mut parts, mut part, mut total) = (Vec::new(), Vec::new(), 0);
    for item in items {
        let size = size(&item);
        if !part.is_empty() && total + size > bytes {
            parts.push(std::mem::take(&mut part));
            total = 0;
        }
        total += size;
        part.push(item);
    }
    parts.push(part);
    parts
}

/// The most bytes in one batch; a larger message is a batch of its own.
pub(crate) const BATCH_BYTES: usize = 8 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn split_keeps_the_order_and_the_byte_limit() {
        let split = |sizes: &[usize]| split(sizes.to_vec(), 10, |size| *size);
        assert_eq!(split(&[]), Vec::<Vec<usize>>::new());
        assert_eq!(split(&[10]), [[10]]);
        assert_eq!(split(&[1, 2, 7]), [vec![1, 2, 7]]);
        assert_eq!(
            split(&[1, 2, 8, 2, 25, 3, 7, 1]),
            [vec![1, 2], vec![8, 2], vec![25], vec![3, 7], vec![1]]
        );
        assert_eq!(split(&[25, 26]), [[25], [26]]);
    }

    #[tokio::test]
    async fn gather_takes_what_is_queued_within_the_limits() {
        let (sender, receiver) = mpsc::channel(16);
        for size in [1usize, 2, 3, 90, 10, 1, 500, 5] {
            sender.send(size).await.unwrap();
        }
        let mut queue = Queue::from(receiver);
        let size = |item: &usize| *item;
        let drain = CancellationToken::new();
        assert_eq!(queue.gather(&drain, 3, 100, size).await.unwrap(), [1, 2, 3]);
        assert_eq!(queue.gather(&drain, 3, 100, size).await.unwrap(), [90, 10]);
        assert_eq!(queue.gather(&drain, 3, 100, size).await.unwrap(), [1], "the next item does not fit");
        assert_eq!(queue.gather(&drain, 3, 100, size).await.unwrap(), [500], "alone");
        assert_eq!(queue.gather(&drain, 3, 100, size).await.unwrap(), [5]);
        for size in [99usize, 7] {
            sender.send(size).await.unwrap();
        }
        assert_eq!(queue.gather(&drain, 3, 100, size).await.unwrap(), [99]);
        drain.cancel();
        assert_eq!(queue.gather(&drain, 3, 100, size).await.unwrap(), [7]);
        assert!(queue.gather(&drain, 3, 100, size).await.is_none());
        assert!(sender.send(8).await.is_err());
    }
}
