//! Fault injection for tests: named points in a message's path at which a process can be stopped.
//!
//! Only with `--cfg cap_fault_points`, which this repository's `.cargo/config.toml` gives; without it all of this
//! compiles to nothing. It is not a feature, since any dependency of a service could enable that.

/// Reports that a point of the path was reached. With `--cfg cap_fault_points` and `CAP_STOP_AT=point:count`, the
/// process prints a line when it reaches the point for the count-th time, and then waits there forever, to be killed.
#[allow(clippy::unused_async, reason = "without the cfg it has nothing to wait for")]
pub async fn point(name: &str) {
    #[cfg(cap_fault_points)]
    stop::at(name).await;
    #[cfg(not(cap_fault_points))]
    let _ = name;
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
