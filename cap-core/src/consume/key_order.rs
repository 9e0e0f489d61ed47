//! Which messages of a group wait: for the one before them under the same key, or for a free place.

use std::collections::{HashMap, VecDeque};

use super::received::Received;

/// The messages of a group that wait. Under each key one message runs at a time, in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct KeyOrder {
    /// Keys under which a message runs now, and the messages that wait for each.
    keys: HashMap<String, VecDeque<Received>>,
    /// Messages that need wait no longer.
    ready: VecDeque<Received>,
    /// How many messages wait, for their keys or for a circuit's probe.
    waiting: usize,
}

impl KeyOrder {
    /// Takes a key for a message, which is given back if it may run; otherwise it waits until the key is free.
    pub(super) fn take(&mut self, key: String, received: Received) -> Option<Received> {
        if let Some(waiting) = self.keys.get_mut(&key) {
            waiting.push_back(received);
            self.waiting += 1;
            return None;
        }
        self.keys.insert(key, VecDeque::new());
        Some(received)
    }

    /// Frees a key for the next message.
    pub(super) fn free(&mut self, key: Option<String>) {
        if let Some(key) = key
            && let Some(waiting) = self.keys.get_mut(&key)
        {
            match waiting.pop_front() {
                Some(next) => {
                    self.waiting -= 1;
                    self.ready.push_back(next);
                }
                None => drop(self.keys.remove(&key)),
            }
        }
    }

    /// Counts one that waits elsewhere.
    pub(super) fn waits_elsewhere(&mut self) {
        self.waiting += 1;
    }

    /// Those that have waited elsewhere need wait no longer.
    pub(super) fn release(&mut self, waited: VecDeque<Received>) {
        self.waiting -= waited.len();
        self.ready.extend(waited);
    }

    /// One that is to run before all others.
    pub(super) fn first(&mut self, received: Received) {
        self.ready.push_front(received);
    }

    /// The next that need not wait.
    pub(super) fn next(&mut self) -> Option<Received> {
        self.ready.pop_front()
    }

    /// How many wait for their keys, or for a probe.
    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }

    /// How many are here in all.
    pub(super) fn len(&self) -> usize {
        self.waiting + self.ready.len()
    }
}
