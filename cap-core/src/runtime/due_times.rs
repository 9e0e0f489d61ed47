//! When the next row of each side becomes due, as far as this process knows, so that the claims need not poll.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::storage::{Side, Wake};

/// The earliest due time that this process knows of on each side, and requests to claim at once.
#[derive(Debug, Default)]
pub(crate) struct DueTimes {
    pub(crate) wake: Wake,
    outbox: Soonest,
    inbox: Soonest,
}

#[derive(Debug, Default)]
struct Soonest {
    at: Mutex<Option<Instant>>,
    sooner: Notify,
}

/// Why a wait has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Woken {
    /// A row is due, or was announced.
    ByWork,
    /// The given deadline has passed.
    ByTime,
}

impl DueTimes {
    /// Records that a row becomes due after this time.
    pub(crate) fn note(&self, side: Side, after: Duration) {
        let Some(at) = Instant::now().checked_add(after) else { return };
        let soonest = self.soonest(side);
        let mut noted = soonest.at.lock().unwrap_or_else(PoisonError::into_inner);
        if noted.is_none_or(|noted| at < noted) {
            *noted = Some(at);
            soonest.sooner.notify_one();
        }
    }

    /// Clears the recorded due time. Call it right before claiming: the claim sees every row stored by then, whereas a
    /// row that is recorded while the claim runs must not be cleared.
    pub(crate) fn forget(&self, side: Side) {
        *self.soonest(side).at.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Waits until the recorded due time, until `latest`, or until someone requests a claim at once, whichever comes
    /// first.
    pub(crate) async fn wait(&self, side: Side, latest: Instant) -> Woken {
        let soonest = self.soonest(side);
        loop {
            let noted = *soonest.at.lock().unwrap_or_else(PoisonError::into_inner);
            let (until, woken) = match noted {
                Some(noted) if noted <= latest => (noted, Woken::ByWork),
                _ => (latest, Woken::ByTime),
            };
            let reached = async {
                if until > Instant::now() {
                    tokio::time::sleep_until(until).await;
                }
            };
            // Biased: a request to claim at once comes first. All arms only wait, so that dropping one loses nothing.
            tokio::select! {
                biased;
                () = self.wake.woken(side) => return Woken::ByWork,
                () = reached => return woken,
                () = soonest.sooner.notified() => {}
            }
        }
    }

    fn soonest(&self, side: Side) -> &Soonest {
        match side {
            Side::Outbox => &self.outbox,
            Side::Inbox => &self.inbox,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[tokio::test(start_paused = true)]
    async fn wait_ends_at_the_earliest_due_time() {
        let due = Arc::new(DueTimes::default());
        let start = Instant::now();
        let seconds = Duration::from_secs;
        let waiting = tokio::spawn({
            let due = Arc::clone(&due);
            async move { due.wait(Side::Outbox, start + seconds(100)).await }
        });
        tokio::task::yield_now().await;
        due.note(Side::Outbox, seconds(50));
        due.note(Side::Outbox, seconds(20));
        due.note(Side::Outbox, seconds(70));
        due.note(Side::Inbox, seconds(1));
        assert_eq!(waiting.await.unwrap(), Woken::ByWork);
        assert_eq!(start.elapsed(), seconds(20));
        due.forget(Side::Outbox);
        due.wake.wake(Side::Outbox);
        assert_eq!(due.wait(Side::Outbox, start + seconds(100)).await, Woken::ByWork);
        assert_eq!(start.elapsed(), seconds(20));
        assert_eq!(due.wait(Side::Outbox, start + seconds(100)).await, Woken::ByTime);
        assert_eq!(start.elapsed(), seconds(100));
    }
}
