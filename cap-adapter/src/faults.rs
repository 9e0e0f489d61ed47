//! Where tests get hold of a message's path: named points at which a process can be stopped, and rules that can be
//! broken on purpose to see a test catch it.
//!
//! Without the features `fault-points` and `sabotage` all of this is nothing, and compiles to nothing. Neither
//! feature belongs in a program that does real work; `sabotage` refuses to be built in release.

#[cfg(all(feature = "sabotage", not(debug_assertions)))]
compile_error!(
    "the feature `sabotage` breaks cap's promises on purpose; it is for tests and never for a release"
);

/// Reports that a point of the path was reached. With the feature `fault-points`, a process that was told through
/// `CAP_STOP_AT=point:count` says so on its standard output when it gets there for the count-th time, and waits
/// there for good, to be killed.
#[allow(clippy::unused_async, reason = "without the feature it has nothing to wait for")]
pub async fn point(name: &str) {
    #[cfg(feature = "fault-points")]
    stop::at(name).await;
    #[cfg(not(feature = "fault-points"))]
    let _ = name;
}

/// Whether a rule is broken on purpose: with the feature `sabotage`, the one named by `CAP_SABOTAGE`.
#[must_use]
pub fn sabotaged(rule: &str) -> bool {
    #[cfg(feature = "sabotage")]
    {
        static BROKEN: std::sync::LazyLock<Option<String>> =
            std::sync::LazyLock::new(|| std::env::var("CAP_SABOTAGE").ok());
        BROKEN.as_deref() == Some(rule)
    }
    #[cfg(not(feature = "sabotage"))]
    {
        let _ = rule;
        false
    }
}

/// Has the ids that this thread makes follow tokio's time, which a test may have paused, from now on: with the
/// feature `fault-points`. What the same test does twice then has the same ids, in the same order.
pub fn ids_follow_tokios_time() {
    #[cfg(feature = "fault-points")]
    virtual_time::START.set(Some(tokio::time::Instant::now()));
}

/// The moment to make an id of, where a test has said so.
pub(crate) fn virtual_ms() -> Option<u64> {
    #[cfg(feature = "fault-points")]
    {
        let start = virtual_time::START.get()?;
        // As if the test had begun a second after our ids begin to count.
        u64::try_from(start.elapsed().as_millis()).ok()?.checked_add(1000)
    }
    #[cfg(not(feature = "fault-points"))]
    None
}

#[cfg(feature = "fault-points")]
mod virtual_time {
    use std::cell::Cell;

    use tokio::time::Instant;

    thread_local! {
        pub(super) static START: Cell<Option<Instant>> = const { Cell::new(None) };
    }
}

#[cfg(feature = "fault-points")]
mod stop {
    use std::io::Write;
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    struct Stop {
        point: String,
        count: u64,
    }

    static STOP: LazyLock<Option<Stop>> = LazyLock::new(|| {
        let text = std::env::var("CAP_STOP_AT").ok()?;
        let (point, count) = text.split_once(':').unwrap_or((&text, "1"));
        Some(Stop { point: point.to_owned(), count: count.parse().unwrap_or(1) })
    });
    static REACHED: AtomicU64 = AtomicU64::new(0);

    #[allow(clippy::unused_async, reason = "it waits by standing still")]
    pub(super) async fn at(name: &str) {
        if let Some(stop) = &*STOP
            && stop.point == name
            && REACHED.fetch_add(1, Ordering::SeqCst) + 1 == stop.count
        {
            let mut out = std::io::stdout();
            let _ = writeln!(out, "stopped at {name}");
            let _ = out.flush();
            // The whole process must stand still, not only this task: the parent kills it now.
            loop {
                std::thread::park();
            }
        }
    }
}
