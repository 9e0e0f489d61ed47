//! Batches that form by themselves: what has gathered while the last one was under way goes next. No timer, so a
//! lone item is never delayed.

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Waits for an item and takes what else is there, up to `items` and about `bytes`. Once `drain` is cancelled
/// nothing new gets in, and when the channel is empty `None` says so.
///
/// Cancel safe: an item is taken only when the call completes.
pub(crate) async fn gather<T>(
    queue: &mut mpsc::Receiver<T>,
    drain: &CancellationToken,
    items: usize,
    bytes: usize,
    size: impl Fn(&T) -> usize,
) -> Option<Vec<T>> {
    let first = if let Some(item) = drain.run_until_cancelled(queue.recv()).await {
        item?
    } else {
        queue.close();
        queue.recv().await?
    };
    let mut batch = vec![first];
    fill(&mut batch, queue, items, bytes, size);
    Some(batch)
}

/// Takes what else is there, up to `items` and about `bytes` in all.
pub(crate) fn fill<T>(
    batch: &mut Vec<T>,
    queue: &mut mpsc::Receiver<T>,
    items: usize,
    bytes: usize,
    size: impl Fn(&T) -> usize,
) {
    let mut total: usize = batch.iter().map(&size).sum();
    while batch.len() < items && total < bytes {
        match queue.try_recv() {
            Ok(item) => {
                total += size(&item);
                batch.push(item);
            }
            Err(_) => break,
        }
    }
}

/// About so many bytes go in one batch; a larger message goes alone or closes one.
pub(crate) const BATCH_BYTES: usize = 8 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_batch_is_what_has_gathered_within_its_bounds() {
        let (sender, mut queue) = mpsc::channel(16);
        for size in [1usize, 2, 3, 90, 20, 5] {
            sender.send(size).await.unwrap();
        }
        let size = |item: &usize| *item;
        let drain = CancellationToken::new();
        assert_eq!(gather(&mut queue, &drain, 3, 100, size).await.unwrap(), [1, 2, 3]);
        assert_eq!(gather(&mut queue, &drain, 3, 100, size).await.unwrap(), [90, 20]);
        assert_eq!(gather(&mut queue, &drain, 3, 100, size).await.unwrap(), [5]);
        sender.send(7).await.unwrap();
        drain.cancel();
        assert_eq!(gather(&mut queue, &drain, 3, 100, size).await.unwrap(), [7]);
        assert!(sender.send(8).await.is_err() || queue.is_closed());
        assert!(gather(&mut queue, &drain, 3, 100, size).await.is_none());
    }
}
