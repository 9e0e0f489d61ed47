//! A channel in confirm mode, for one batch at a time.

use std::sync::Arc;

use lapin::Channel;

use crate::connection::link::Link;
use crate::driver_fixes::unwritten::Unwritten;

/// A channel for one batch at a time.
pub(crate) struct PublishChannel {
    pub(crate) lapin: Channel,
    pub(crate) link: Arc<Link>,
    pub(crate) unwritten: Unwritten,
}

impl PublishChannel {
    pub(crate) fn new(lapin: Channel, link: Arc<Link>) -> Self {
        Self { lapin, link, unwritten: Unwritten::default() }
    }

    pub(crate) fn is_usable(&self) -> bool {
        self.lapin.status().connected() && self.link.is_usable()
    }
}

impl Drop for PublishChannel {
    fn drop(&mut self) {
        if !self.unwritten.is_empty() {
            self.link.cut();
        }
    }
}

impl std::fmt::Debug for PublishChannel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PublishChannel").field("channel", &self.lapin.id()).finish_non_exhaustive()
    }
}
