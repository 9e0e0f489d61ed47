//! The clock of a test: tokio's, which runs with real time and which the test can set forward.
//!
//! tokio's paused clock would jump to the next timer whenever the runtime is idle, also while a handler waits for a real
//! database, whose timeouts would then fire at once. So here it moves only by a ticker, a millisecond for each real one,
//! and by [`Clock::advance`].

use std::cell::RefCell;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::task::JoinHandle;

/// One step of the ticker, and of everything that waits in this crate.
const TICK: Duration = Duration::from_millis(1);

thread_local! {
    // A current-thread runtime has one clock, which several buses of a test share. It is not a global: another test runs
    // on another thread.
    static OF_THIS_THREAD: RefCell<Weak<Clock>> = const { RefCell::new(Weak::new()) };
}

/// The clock of the runtime of this test.
#[derive(Debug)]
pub(crate) struct Clock {
    ticker: Option<JoinHandle<()>>,
}

impl Clock {
    /// The clock of this thread's runtime, which is paused by the first call.
    pub(crate) fn of_this_test() -> Arc<Self> {
        OF_THIS_THREAD.with_borrow_mut(|shared| {
            shared.upgrade().unwrap_or_else(|| {
                let clock = Arc::new(Self::start());
                *shared = Arc::downgrade(&clock);
                clock
            })
        })
    }

    fn start() -> Self {
        if Handle::current().runtime_flavor() != RuntimeFlavor::CurrentThread {
            return Self { ticker: None };
        }
        tokio::time::pause();
        let ticker = tokio::spawn(async {
            loop {
                tick().await;
                tokio::time::advance(TICK).await;
            }
        });
        Self { ticker: Some(ticker) }
    }

    /// Sets the clock forward. Timers that are due fire when the test waits next.
    pub(crate) async fn advance(&self, by: Duration) {
        assert!(
            self.ticker.is_some(),
            "the clock cannot be advanced on a multi-thread runtime: use #[tokio::test] without a flavor"
        );
        tokio::time::advance(by).await;
    }
}

impl Drop for Clock {
    fn drop(&mut self) {
        if let Some(ticker) = &self.ticker {
            ticker.abort();
            // The runtime outlives the bus, and its time must not stand still for the rest of the test.
            if Handle::try_current().is_ok() {
                tokio::time::resume();
            }
        }
    }
}

/// Waits for a millisecond of real time, whatever the clock of the runtime says. While the thread of it sleeps, tokio
/// does not move a paused clock by itself.
pub(crate) async fn tick() {
    // It fails only when the runtime shuts down.
    let _ = tokio::task::spawn_blocking(|| std::thread::sleep(TICK)).await;
}
