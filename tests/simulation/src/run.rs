//! One run of a handler, from its beginning to whatever end it comes to.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use cap_ledger::{End, Event};

use crate::job::name;
use crate::life::Life;

/// One run of a handler. Its first end holds; one that is dropped without any was dropped.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) life: Arc<Life>,
    pub(crate) group: &'static str,
    pub(crate) job: u64,
    number: u64,
    ended: AtomicBool,
}

impl Run {
    /// Notes that a handler begins.
    pub(crate) fn begin(life: &Arc<Life>, group: &'static str, job: u64, number: u64) -> Self {
        let (message, node) = (name(job), life.name.clone());
        life.world.note(Event::Began { message, group: group.to_owned(), node, run: number });
        Self { life: Arc::clone(life), group, job, number, ended: AtomicBool::new(false) }
    }

    /// Notes how it ended, unless that was noted before.
    pub(crate) fn end(&self, how: End) {
        if !self.ended.swap(true, Ordering::Relaxed) {
            let (message, group) = (name(self.job), self.group.to_owned());
            self.life.world.note(Event::Ended { message, group, run: self.number, how });
        }
    }

    /// The effect that this run has, once it has one.
    pub(crate) fn effect(&self, attempt: u32) -> Event {
        Event::effect(&name(self.job), self.group, &self.life.name, attempt)
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        self.end(End::Dropped);
    }
}
