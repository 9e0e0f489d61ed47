//! The channels of a connection that may still be open.
//!
//! **Works around:** lapin closes a channel that was dropped in its own time. It reports that by no event, and logs it as
//! an error of the connection if the connection is closed first.
//! **Can go when** closing a connection waits for its channels, or dropped channels can be awaited.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use lapin::{Channel, ChannelStatus};
use tokio::time::sleep;

/// How often the channels are looked at.
const POLL: Duration = Duration::from_millis(5);

/// The channels that were open when they were last looked at.
#[derive(Default)]
pub(crate) struct OpenChannels(Mutex<Vec<ChannelStatus>>);

impl OpenChannels {
    pub(crate) fn note(&self, channel: &Channel) {
        let mut channels = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        channels.retain(is_open);
        channels.push(channel.status().clone());
    }

    /// Waits until all are closed, or the connection cannot be used any more.
    pub(crate) async fn all_closed(&self, is_usable: impl Fn() -> bool) {
        while is_usable() && self.any_open() {
            sleep(POLL).await;
        }
    }

    fn any_open(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().any(is_open)
    }
}

fn is_open(channel: &ChannelStatus) -> bool {
    channel.connected() || channel.closing()
}
