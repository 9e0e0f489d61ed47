//! Where events are gathered, from this process and from others.

use serde::{Deserialize, Serialize};

use crate::event::{Event, Group};
use crate::report::Report;

/// An event with its moment. Any clock and any unit will do, as long as all that write to one ledger share it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// When.
    pub at: u64,
    /// What.
    pub event: Event,
}

/// Everything that happened in a run.
#[derive(Debug, Clone, Default)]
pub struct Ledger {
    entries: Vec<Entry>,
}

/// A line that no ledger wrote.
#[derive(Debug, thiserror::Error)]
#[error("line {number} of the ledger cannot be read: {source}: {line}")]
pub struct LedgerError {
    number: usize,
    line: String,
    #[source]
    source: serde_json::Error,
}

impl Ledger {
    /// Says what a group is promised.
    pub fn group(&mut self, group: &str, promised: Group) {
        self.note(0, Event::Group { group: group.to_owned(), promised });
    }

    /// Notes an event. Events of one moment keep the order in which they were noted.
    pub fn note(&mut self, at: u64, event: Event) {
        self.entries.push(Entry { at, event });
    }

    /// Takes in what others have noted.
    pub fn extend(&mut self, entries: impl IntoIterator<Item = Entry>) {
        self.entries.extend(entries);
    }

    /// Everything noted so far.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// An event as a line of text, with its end of line: write it in one call, so that a process that is killed
    /// leaves whole lines and at most a part of the last.
    #[must_use]
    pub fn write_line(entry: &Entry) -> String {
        // Maps with text keys, texts and numbers always serialize.
        let mut line = serde_json::to_string(entry).unwrap_or_default();
        line.push('\n');
        line
    }

    /// Takes in lines of text. A last line without its end was cut off by a death and is passed over.
    ///
    /// # Errors
    ///
    /// [`LedgerError`] for the first line that is no event. What stands before it is taken in.
    pub fn read_lines(&mut self, text: &str) -> Result<(), LedgerError> {
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        for (number, line) in (1..).zip(whole.lines()).filter(|(_, line)| !line.is_empty()) {
            let entry = serde_json::from_str(line);
            self.entries.push(entry.map_err(|source| LedgerError {
                number,
                line: line.to_owned(),
                source,
            })?);
        }
        Ok(())
    }

    /// Judges the run.
    #[must_use]
    pub fn judge(&self) -> Report {
        let mut entries: Vec<&Entry> = self.entries.iter().collect();
        entries.sort_by_key(|entry| entry.at);
        Report::of(&entries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_survive_a_death_in_the_middle_of_one() {
        let one = Entry { at: 1, event: Event::publish("m\n1", &["a", "b"]) };
        let two = Entry { at: 2, event: Event::effect("m\n1", "a", "node", 1) };
        let text = Ledger::write_line(&one) + &Ledger::write_line(&two);
        let mut ledger = Ledger::default();
        ledger.read_lines(&text[..text.len() - 3]).unwrap();
        assert_eq!(ledger.entries(), std::slice::from_ref(&one));
        ledger.read_lines("").unwrap();
        ledger.read_lines(&text).unwrap();
        assert_eq!(ledger.entries(), [one.clone(), one, two]);
    }

    #[test]
    fn a_line_that_is_no_event_is_named() {
        let error = Ledger::default().read_lines("{}\n").unwrap_err().to_string();
        assert!(error.starts_with("line 1 of the ledger"), "{error}");
    }

    #[test]
    fn files_of_several_processes_are_put_in_order() {
        let mut ledger = Ledger::default();
        ledger.note(30, Event::effect("m", "g", "b", 1));
        ledger.note(10, Event::publish("m", &["g"]));
        assert!(ledger.judge().is_clean());
    }
}
