//! Waiting, but never for ever.

use std::future::Future;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

/// What a test waits for happens within milliseconds; only a machine under heavy load needs many seconds.
const LIMIT: Duration = Duration::from_secs(60);

/// Waits for something that happens soon.
pub async fn soon<T>(what: impl Future<Output = T>) -> T {
    timeout(LIMIT, what).await.expect("it should have happened long ago")
}

/// Waits for what a handler tells the test.
pub async fn heard<T>(told: &mut mpsc::Receiver<T>) -> T {
    soon(told.recv()).await.expect("whoever tells should be there still")
}

/// Asks again and again until the answer is there: for what announces itself by no event.
pub async fn until<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + LIMIT;
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(Instant::now() < deadline, "{what} did not happen within {LIMIT:?}");
        sleep(Duration::from_millis(20)).await;
    }
}
