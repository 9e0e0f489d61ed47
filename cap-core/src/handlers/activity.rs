//! Which handlers run at this moment, so that one that blocks its thread can be named.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// How busy one handler is. It costs a message some additions and a look at the clock each time it goes on.
#[derive(Debug, Default)]
pub(crate) struct Activity {
    function: String,
    group: Arc<str>,
    /// Its messages that have begun and not ended.
    running: AtomicUsize,
    /// Those of them that have a thread right now, and do not just wait.
    on_thread: AtomicUsize,
    /// One of them has kept its thread for long since this was looked at last.
    has_blocked: AtomicBool,
}

/// A handler that keeps its thread for so long may be what others wait for.
const LONG: Duration = Duration::from_millis(100);

impl Activity {
    pub(crate) fn of(function: &str, group: &str) -> Arc<Self> {
        Arc::new(Self { function: function.to_owned(), group: group.into(), ..Self::default() })
    }

    /// Runs a handler's future, and counts it meanwhile, also when it is dropped half-way.
    pub(super) async fn follow<T>(&self, handler: impl Future<Output = T>) -> T {
        let _running = Counted::on(&self.running);
        let mut handler = pin!(handler);
        poll_fn(|context| {
            let _on_thread = Counted::on(&self.on_thread);
            let begun = Instant::now();
            let polled = handler.as_mut().poll(context);
            if begun.elapsed() > LONG {
                self.has_blocked.store(true, Ordering::Relaxed);
            }
            polled
        })
        .await
    }
}

/// The handlers that have a thread right now; if none has, those that have kept one for long since this was asked last; if
/// none has done so, all that are running. For people.
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

/// Forgets who has kept a thread for long: nothing had to wait for it.
pub(crate) fn forgive(all: &[Arc<Activity>]) {
    for one in all {
        one.has_blocked.store(false, Ordering::Relaxed);
    }
}

/// One more, until it is dropped.
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
    async fn a_handler_with_a_thread_is_named_before_those_that_wait() {
        let all = [Activity::of("waits", "one"), Activity::of("blocks", "two")];
        assert_eq!(busy(&all), "none");
        let mut waiting = Box::pin(all[0].follow(std::future::pending::<()>()));
        assert!(futures_util::poll!(&mut waiting).is_pending());
        assert_eq!(busy(&all), "waits (group one)");
        assert_eq!(all[1].follow(async { busy(&all) }).await, "blocks (group two)");
        // As long as it takes, and no longer: the time that a thread is kept is what this is about.
        all[1].follow(async { std::thread::sleep(LONG * 2) }).await;
        assert_eq!(busy(&all), "blocks (group two)", "it has ended, and is remembered");
        drop(waiting);
        assert_eq!(busy(&all), "none");
    }
}
