//! The delay queues that need not be declared again, and those that are avoided.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use lapin::types::ShortString;

use crate::connection::link::Link;

/// More queues than this are not remembered; they are declared again.
const REMEMBERED: usize = 10_000;

/// The delay queues that are known to be there, as one connection has declared or found them.
#[derive(Debug, Default)]
pub(crate) struct DeclaredQueues {
    known: Mutex<OneLink>,
    /// Those that confirm no messages, on any connection. Their names end with their day, so there are few.
    silent: Mutex<HashSet<ShortString>>,
}

#[derive(Debug, Default)]
struct OneLink {
    link: Weak<Link>,
    queues: HashSet<ShortString>,
}

impl DeclaredQueues {
    pub(crate) fn contains(&self, link: &Arc<Link>, queue: &ShortString) -> bool {
        let known = self.lock();
        known.is_of(link) && known.queues.contains(queue)
    }

    pub(crate) fn remember(&self, link: &Arc<Link>, queue: &ShortString) {
        let mut known = self.lock();
        if !known.is_of(link) || known.queues.len() >= REMEMBERED {
            *known = OneLink { link: Arc::downgrade(link), queues: HashSet::new() };
        }
        known.queues.insert(queue.clone());
    }

    pub(crate) fn forget(&self, queue: &ShortString) {
        self.lock().queues.remove(queue);
    }

    pub(crate) fn is_silent(&self, queue: &ShortString) -> bool {
        self.silent.lock().unwrap_or_else(PoisonError::into_inner).contains(queue)
    }

    /// Adds a queue that confirms nothing. `true` if it is new.
    pub(crate) fn add_silent(&self, queue: &ShortString) -> bool {
        let mut silent = self.silent.lock().unwrap_or_else(PoisonError::into_inner);
        if silent.len() >= REMEMBERED {
            silent.clear();
        }
        silent.insert(queue.clone())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, OneLink> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl OneLink {
    fn is_of(&self, link: &Arc<Link>) -> bool {
        std::ptr::eq(self.link.as_ptr(), Arc::as_ptr(link))
    }
}
