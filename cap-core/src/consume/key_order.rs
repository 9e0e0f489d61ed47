//! The messages of a group that wait: for an earlier message with the same key, or for a free place.

use std::collections::{HashMap, VecDeque};

use super::received::Received;

/// The messages of a group that wait. For each key one message runs at a time, in the order of arrival.
#[derive(Debug, Default)]
pub(super) struct KeyOrder {
    /// The keys whose message is running now, each with the messages that wait for it.
    keys: HashMap<String, VecDeque<Received>>,
    /// Messages that are ready to run.
    ready: VecDeque<Received>,
    /// How many messages wait, for their keys or for a circuit's probe.
    waiting: usize,
}

impl KeyOrder {
    /// Takes a key for a message. Returns the message if it may run; otherwise it waits until the key is free.
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

    /// Counts a message that waits outside of this struct, for a circuit's probe.
    pub(super) fn waits_elsewhere(&mut self) {
        self.waiting += 1;
    }

    /// Makes messages ready that have waited outside of this struct.
    pub(super) fn release(&mut self, waited: VecDeque<Received>) {
        self.waiting -= waited.len();
        self.ready.extend(waited);
    }

    /// Puts a message in front of all others that are ready.
    pub(super) fn first(&mut self, received: Received) {
        self.ready.push_front(received);
    }

    /// Takes the next message that is ready.
    pub(super) fn next(&mut self) -> Option<Received> {
        self.ready.pop_front()
    }

    /// How many messages wait for their keys or for a probe.
    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }

    /// How many messages wait or are ready.
    pub(super) fn len(&self) -> usize {
        self.waiting + self.ready.len()
    }
}
