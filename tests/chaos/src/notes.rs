//! What a node writes down of what it does, so that its death loses none of it.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use cap_ledger::{End, Entry, Event, Ledger};

use crate::clock::now;

/// A file of events. Each is written in one call and is then in the kernel's hands.
#[derive(Debug, Clone)]
pub(crate) struct Notes {
    file: Arc<File>,
    node: Arc<str>,
}

impl Notes {
    pub(crate) fn open(path: &Path, node: &str) -> Self {
        let file = OpenOptions::new().create(true).append(true).open(path).expect("notes can be written");
        Self { file: Arc::new(file), node: node.into() }
    }

    pub(crate) fn node(&self) -> &str {
        &self.node
    }

    pub(crate) fn note(&self, event: Event) {
        let line = Ledger::write_line(&Entry { at: now(), event });
        (&*self.file).write_all(line.as_bytes()).expect("notes can be written");
    }

    /// Notes that a handler begins; how it ends is noted by what becomes of the [`Run`].
    pub(crate) fn begin(&self, message: &str, group: &str) -> Run {
        let number = fastrand::u64(..);
        let (message, group) = (message.to_owned(), group.to_owned());
        let node = self.node.to_string();
        self.note(Event::Began { message: message.clone(), group: group.clone(), node, run: number });
        Run { notes: self.clone(), message, group, number, ended: false }
    }
}

/// A handler at work. Dropped without a word, it was dropped.
#[derive(Debug)]
pub(crate) struct Run {
    notes: Notes,
    message: String,
    group: String,
    number: u64,
    ended: bool,
}

impl Run {
    pub(crate) fn end(mut self, how: End) {
        self.ended = true;
        self.say(how);
    }

    fn say(&self, how: End) {
        let (message, group) = (self.message.clone(), self.group.clone());
        self.notes.note(Event::Ended { message, group, run: self.number, how });
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        if !self.ended {
            self.say(End::Dropped);
        }
    }
}
