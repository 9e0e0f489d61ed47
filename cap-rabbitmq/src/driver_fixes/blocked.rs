//! Waits for the end of `connection.blocked`.
//!
//! **Works around:** each of lapin's connection events reaches only one of those who listen, so that several callers
//! cannot wait for the end of a block by event.
//! **Can go when** every listener gets every event.

use std::time::Duration;

use tokio::time::{Instant, sleep};

/// How often a blocked connection is looked at.
const POLL: Duration = Duration::from_millis(50);

/// Waits while the connection is blocked. `false` if it still is at the deadline.
pub(crate) async fn wait_while(deadline: Instant, is_blocked: impl Fn() -> bool) -> bool {
    while is_blocked() {
        if Instant::now() >= deadline {
            return false;
        }
        sleep(POLL).await;
    }
    true
}
