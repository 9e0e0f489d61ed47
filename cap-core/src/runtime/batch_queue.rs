//! Batches that form by themselves: what has gathered while the last one was under way goes next. No timer, so a
//! lone item is never delayed.

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// The receiving end of a channel that is emptied in batches.
#[derive(Debug)]
pub(crate) struct Queue<T> {
    receiver: mpsc::Receiver<T>,
    /// Taken from the channel, and too large for the batch that it would have been in.
    next: Option<T>,
}

impl<T> From<mpsc::Receiver<T>> for Queue<T> {
    fn from(receiver: mpsc::Receiver<T>) -> Self {
        Self { receiver, next: None }
    }
}

impl<T> Queue<T> {
    /// Waits for an item and takes what else is there, up to `items` and `bytes`; a larger item is a batch of its own.
    /// Once `drain` is cancelled nothing new gets in, and when the channel is empty `None` says so.
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
        let mut total = size(&first);
        let mut batch = vec![first];
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
        Some(batch)
    }

    async fn first(&mut self, drain: &CancellationToken) -> Option<T> {
        if let Some(item) = drain.run_until_cancelled(self.receiver.recv()).await {
            return item;
        }
        self.receiver.close();
        self.receiver.recv().await
    }
}

/// Cuts a list into parts of at most so many bytes each, in order; a larger item is a part of its own.
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

/// At most so many bytes go in one batch; a larger message goes alone.
pub(crate) const BATCH_BYTES: usize = 8 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_split_keeps_its_order_and_its_bounds() {
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
    async fn a_batch_is_what_has_gathered_within_its_bounds() {
        let (sender, receiver) = mpsc::channel(16);
        for size in [1usize, 2, 3, 90, 10, 1, 500, 5] {
            sender.send(size).await.unwrap();
        }
        let mut queue = Queue::from(receiver);
        let size = |item: &usize| *item;
        let drain = CancellationToken::new();
        assert_eq!(queue.gather(&drain, 3, 100, size).await.unwrap(), [1, 2, 3]);
        assert_eq!(queue.gather(&drain, 3, 100, size).await.unwrap(), [90, 10]);
        assert_eq!(
            queue.gather(&drain, 3, 100, size).await.unwrap(),
            [1],
            "the next one is too large for it"
        );
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
