//! What is logged, for tests that look at it.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use tracing_subscriber::EnvFilter;

/// The log of the present thread, and of the connections that are opened from it, from `INFO` on. For tests that run in one
/// thread.
#[derive(Debug, Clone, Default)]
pub struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    /// Has this thread's log go here until the guard is dropped.
    #[must_use]
    pub fn here() -> (Self, impl Drop) {
        let log = Self::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_env_filter(EnvFilter::new("info"))
            .with_writer(move || writer.clone())
            .with_ansi(false)
            .finish();
        (log, tracing_subscriber::util::SubscriberInitExt::set_default(subscriber))
    }

    /// The lines that have one of these texts, such as ` WARN `.
    #[must_use]
    pub fn lines(&self, levels: &[&str]) -> Vec<String> {
        let bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let text = String::from_utf8_lossy(&bytes);
        let wanted = |line: &&str| levels.iter().any(|level| line.contains(level));
        text.lines().filter(wanted).map(str::to_owned).collect()
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
