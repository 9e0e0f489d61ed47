//! Tracks which handlers are running, so that a handler that blocks its thread can be named in the log.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// How busy one handler is. The cost is a few atomic additions and reading the clock for each poll.
#[derive(Debug, Default)]
pub(crate) struct Activity {
    function: String,
    group: Arc<str>,
    /// How many messages it is handling.
    running: AtomicUsize,
    /// How many of them are being polled right now and so occupy a thread.
    on_thread: AtomicUsize,
    /// Whether a poll has taken long since this was last read.
    has_blocked: AtomicBool,
}

/// A poll that takes longer than this is reported as blocking its thread.
const LONG_POLL: Duration = Duration::from_millis(100);

impl Activity {
    pub(crate) fn of(function: &str, group: &str) -> Arc<Self> {
        Arc::new(Self { function: function.to_owned(), group: group.into(), ..Self::default() })
    }

    /// Runs a handler's future and counts it meanwhile. The counts are also right if the future is dropped half-way.
    pub(super) async fn follow<T>(&self, handler: impl Future<Output = T>) -> T {
        let _running = Counted::on(&self.running);
        let mut handler = pin!(handler);
        poll_fn(|context| {
            let _on_thread = Counted::on(&self.on_thread);
            let begun = Instant::now();
            let polled = handler.as_mut().poll(context);
            if begun.elapsed() > LONG_POLL {
                self.has_blocked.store(true, Ordering::Relaxed);
            }
            polled
        })
        .await
    }
}

/// Names the handlers that occupy a thread right now; if there are none, those that have blocked their thread since the
/// last call; if there are none either, all that are running. For log lines.
pub(crate) fn busy(all: &[Arc<Activity>]) -> String {
    let those = |is_busy: fn(&Activity) -> bool| {
        let busy = all.iter().filter(|one| is_busy(one));
        busy.map(|one| format!("{} (group {})", one.function, one.group)).collect::<Vec<_>>().join(", ")
    };
    let names = [
        those(|one| one.on_thread.load(Ordering::Relaxed) > 0),
        those(|one| one.has_blocked.swap(false, Ordering::Relaxed)),
        those(|one| one.running.load(Ordering::Relaxed) > 0),
    ];
    names.into_iter().find(|names| !names.is_empty()).unwrap_or_else(|| "none".to_owned())
}

/// Clears the records of handlers that have blocked their thread, since no renewal was late because of it.
pub(crate) fn clear_blocked(all: &[Arc<Activity>]) {
    for one in all {
        one.has_blocked.store(false, Ordering::Relaxed);
    }
}

/// Increments a counter until it is dropped.
struct Counted<'a>(&'a AtomicUsize);

impl<'a> Counted<'a> {
    fn on(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn busy_names_handlers_on_a_thread_before_waiting_ones() {
        let all = [Activity::of("waits", "one"), Activity::of("blocks", "two")];
        assert_eq!(busy(&all), "none");
        let mut waiting = Box::pin(all[0].follow(std::future::pending::<()>()));
        assert!(futures_util::poll!(&mut waiting).is_pending());
        assert_eq!(busy(&all), "waits (group one)");
        assert_eq!(all[1].follow(async { busy(&all) }).await, "blocks (group two)");
        // A real sleep: blocking the thread is what this tests.
        all[1].follow(async { std::thread::sleep(LONG_POLL * 2) }).await;
        assert_eq!(busy(&all), "blocks (group two)", "it has finished, but is still recorded");
        drop(waiting);
        assert_eq!(busy(&all), "none");
    }
}
