//! Pauses between retries of something that is unavailable: doubling, bounded, with jitter.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

/// Doubling pauses from 50 ms to 5 s, each shortened by up to half at random.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    tries: u32,
}

impl Backoff {
    const FIRST: Duration = Duration::from_millis(50);
    const LIMIT: Duration = Duration::from_secs(5);

    pub(crate) fn next(&mut self) -> Duration {
        let pause = Self::FIRST.saturating_mul(1 << self.tries.min(10)).min(Self::LIMIT);
        self.tries += 1;
        pause.mul_f64(1.0 - 0.5 * fastrand::f64())
    }

    pub(crate) fn reset(&mut self) {
        self.tries = 0;
    }

    /// Waits for the next pause. Returns `false` if it was cancelled meanwhile.
    pub(crate) async fn wait(&mut self, cancelled: &CancellationToken) -> bool {
        let pause = self.next();
        cancelled.run_until_cancelled(tokio::time::sleep(pause)).await.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_limit_until_reset() {
        let mut backoff = Backoff::default();
        let first = backoff.next();
        assert!(first >= Duration::from_millis(25) && first <= Duration::from_millis(50));
        let last = (0..1000).map(|_| backoff.next()).last().unwrap();
        assert!(last >= Duration::from_millis(2500) && last <= Duration::from_secs(5));
        backoff.reset();
        assert!(backoff.next() <= Duration::from_millis(50));
    }
}
