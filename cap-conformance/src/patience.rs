//! Waiting for something to become true, with a deadline that only a broken adapter meets.

use std::time::Duration;

use tokio::time::{Instant, sleep};

/// How long a case waits for what must happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Asks again until there is an answer.
pub(crate) async fn eventually<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(Instant::now() < deadline, "waited {PATIENCE:?} in vain: {what}");
        sleep(Duration::from_millis(20)).await;
    }
}

/// Waits for a future that must end.
pub(crate) async fn in_time<T>(what: &str, future: impl Future<Output = T>) -> T {
    let outcome = tokio::time::timeout(PATIENCE, future).await;
    outcome.unwrap_or_else(|_elapsed| panic!("waited {PATIENCE:?} in vain: {what}"))
}
