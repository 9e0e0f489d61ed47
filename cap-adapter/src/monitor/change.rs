//! What an operator changes, and in which messages.

use bytes::Bytes;

use crate::message::Message;
use crate::message::headers::names;

/// Which of the named rows an action applies to.
///
/// Another operator may act between the listing and the action. A storage checks the row again under its lock, in the
/// transaction of the action, so that of two operators who re-run the same failure only one does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Among {
    /// All of them, whatever their state.
    All,
    /// Those that are [`Status::Failed`](crate::storage::Status::Failed) at that moment.
    Failed,
}

/// The changes that an operator makes to stored messages when re-running them. The default changes nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Change {
    /// A line with operator, action and time, which is added to the header `cap-audit`. That header is never sent.
    pub audit: Option<String>,
    /// The new body.
    pub body: Option<Bytes>,
}

impl Change {
    /// The number of lines kept in the header `cap-audit`, the latest ones.
    pub const AUDIT_LINES: usize = 20;

    /// Whether there is no change.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.audit.is_none() && self.body.is_none()
    }

    /// The message after the change. Storages replace the old one by it.
    #[must_use]
    pub fn apply(&self, message: &Message) -> Message {
        let mut changed = message.clone();
        if let Some(line) = &self.audit {
            let line = line.replace(['\n', '\0'], " ");
            let before = message.headers.get(names::AUDIT);
            let mut lines: Vec<&str> = before.into_iter().flat_map(str::lines).collect();
            lines.push(&line);
            let first = lines.len().saturating_sub(Self::AUDIT_LINES);
            changed.headers.insert(names::AUDIT, lines[first..].join("\n"));
        }
        if let Some(body) = &self.body {
            changed.body = body.clone();
        }
        changed
    }
}
