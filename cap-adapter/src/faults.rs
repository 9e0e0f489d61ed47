//! Where tests get hold of a message's path: named points at which a process can be stopped.
//!
//! Only with `--cfg cap_fault_points`, which this repository's `.cargo/config.toml` gives; without it all of this compiles to
//! nothing. It is no feature, since any dependency of a service could switch that on.

/// Reports that a point of the path was reached. With `--cfg cap_fault_points`, a process that was told through
/// `CAP_STOP_AT=point:count` says so on its standard output when it gets there for the count-th time, and waits
/// there for good, to be killed.
#[allow(clippy::unused_async, reason = "without the cfg it has nothing to wait for")]
pub async fn point(name: &str) {
    #[cfg(cap_fault_points)]
    stop::at(name).await;
    #[cfg(not(cap_fault_points))]
    let _ = name;
}

/// Has the ids that this thread makes follow tokio's time, which a test may have paused, from now on: with
/// `--cfg cap_fault_points`. What the same test does twice then has the same ids, in the same order.
pub fn ids_follow_tokios_time() {
    #[cfg(cap_fault_points)]
    virtual_time::START.set(Some(tokio::time::Instant::now()));
}

/// The moment to make an id of, where a test has said so.
pub(crate) fn virtual_ms() -> Option<u64> {
    #[cfg(cap_fault_points)]
    {
        let start = virtual_time::START.get()?;
        // As if the test had begun a second after our ids begin to count.
        u64::try_from(start.elapsed().as_millis()).ok()?.checked_add(1000)
    }
    #[cfg(not(cap_fault_points))]
    None
}

#[cfg(cap_fault_points)]
mod virtual_time {
    use std::cell::Cell;

    use tokio::time::Instant;

    thread_local! {
        pub(super) static START: Cell<Option<Instant>> = const { Cell::new(None) };
    }
}

#[cfg(cap_fault_points)]
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
