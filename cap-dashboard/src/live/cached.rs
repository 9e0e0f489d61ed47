//! A value that costs something to find out, kept for a while.

use std::future::Future;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

/// A value that is found out at most once in a time. All who ask meanwhile wait for the first.
#[derive(Debug)]
pub(crate) struct Cached<T> {
    lasts: Duration,
    value: Mutex<Option<(Instant, T)>>,
}

impl<T: Clone> Cached<T> {
    pub(crate) fn new(lasts: Duration) -> Self {
        Self { lasts, value: Mutex::new(None) }
    }

    /// The value, found out by `ask` if there is none or it is too old. An error is not kept.
    pub(crate) async fn get<E>(&self, ask: impl Future<Output = Result<T, E>>) -> Result<T, E> {
        let mut value = self.value.lock().await;
        if let Some((_, kept)) = value.as_ref().filter(|(at, _)| at.elapsed() < self.lasts) {
            return Ok(kept.clone());
        }
        let fresh = ask.await?;
        *value = Some((Instant::now(), fresh.clone()));
        Ok(fresh)
    }
}
