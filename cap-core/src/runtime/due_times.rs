//! When the next row of one side becomes due, as far as this process knows, so that nobody polls for it.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::storage::{Side, Wake};

/// The earliest due time that this process has heard of on each side, and the wish to look at once.
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

/// What has ended a wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Woken {
    /// Rows that this process has heard of.
    ByWork,
    /// The time that was given.
    ByTime,
}

impl DueTimes {
    /// Notes that a row becomes due after this time.
    pub(crate) fn note(&self, side: Side, after: Duration) {
        let Some(at) = Instant::now().checked_add(after) else { return };
        let soonest = self.soonest(side);
        let mut noted = soonest.at.lock().unwrap_or_else(PoisonError::into_inner);
        if noted.is_none_or(|noted| at < noted) {
            *noted = Some(at);
            soonest.sooner.notify_one();
        }
    }

    /// Forgets what was noted, right before the store is asked: it tells of everything that was stored by then.
    pub(crate) fn forget(&self, side: Side) {
        *self.soonest(side).at.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Waits until a noted time, this time at the latest, or until someone wants a look at once.
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
    async fn the_soonest_of_all_times_ends_the_wait() {
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
