//! What a test notes: plain data, each event one line of text.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What a group is promised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[allow(clippy::struct_excessive_bools, reason = "promises are given one by one")]
pub struct Group {
    /// Its effects happen once for each message, whatever dies.
    pub once: bool,
    /// Its handler runs again only after a failure, the death of a node, or trouble of one.
    pub again_only_with_cause: bool,
    /// Messages of one key are handled one after the other, in the order in which a node received them.
    pub ordered: bool,
    /// An operator is notified of each message that has failed for good.
    pub notices: bool,
    /// How many attempts the retry policy allows; `None` where that is not checked.
    pub attempts: Option<u32>,
}

impl Group {
    /// A group whose effects are promised once.
    #[must_use]
    pub fn once() -> Self {
        Self { once: true, ..Self::plain() }
    }

    /// A group whose handler runs again only with a cause.
    #[must_use]
    pub fn plain() -> Self {
        Self { once: false, again_only_with_cause: true, ordered: false, notices: false, attempts: None }
    }
}

/// What a caller was told of its publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Told {
    /// It is stored, or committed: every group sees it.
    Stored,
    /// Its transaction was rolled back: nobody sees it.
    RolledBack,
    /// It was not accepted: nobody sees it.
    Refused,
    /// Nobody knows. Either every group sees it or none does. What a publish without any word counts as, too.
    Unknown,
}

/// How a run of a handler ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum End {
    /// It succeeded, and with a transaction: that was committed.
    Succeeded,
    /// It failed, and that counts as an attempt.
    Failed,
    /// It said that no attempt can succeed.
    Permanent,
    /// It called its work off, or its transaction was rolled back since the lease was lost: no attempt.
    CalledOff,
    /// It was dropped while it ran: a time-out, a shutdown, a death.
    Dropped,
}

/// What the store says of a message after the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Final {
    /// Done.
    Succeeded,
    /// Every attempt has failed.
    Exhausted,
    /// It failed for good for another reason than the number of attempts.
    Failed,
    /// A delayed message that was cancelled.
    CalledOff,
    /// It still waits for something: a retry, its time, a node, an operator to be told.
    Unfinished,
}

/// One thing that happened.
///
/// Messages, groups and nodes are named by the test; a node that is restarted gets a new name. A publish is noted
/// before it is tried, so that one whose process dies is known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// What a group is promised. The group with the empty name is the outbox: its runs are sends.
    Group {
        /// The group.
        group: String,
        /// Its promises.
        promised: Group,
    },
    /// A message is about to be published.
    Publish {
        /// The message.
        message: String,
        /// Each group that should see it, with what the handler's success brings about: an answer, a message.
        groups: BTreeMap<String, Vec<String>>,
        /// What its order goes by.
        key: Option<String>,
        /// No handler may begin before this moment.
        due: Option<u64>,
    },
    /// What came of that.
    Told {
        /// The message.
        message: String,
        /// What the caller was told.
        told: Told,
    },
    /// A delayed message is about to be cancelled (not sure), or was, and the caller was told that it was in time.
    CalledOff {
        /// The message.
        message: String,
        /// Whether the caller was told so.
        sure: bool,
    },
    /// A node received the message and stored it. Only order needs it.
    Received {
        /// The message.
        message: String,
        /// For this group.
        group: String,
        /// Here.
        node: String,
    },
    /// A handler begins.
    Began {
        /// The message.
        message: String,
        /// The group.
        group: String,
        /// Here.
        node: String,
        /// The run: a number that no other run has.
        run: u64,
    },
    /// A handler has ended. The last word on a run holds.
    Ended {
        /// The message.
        message: String,
        /// The group.
        group: String,
        /// The run.
        run: u64,
        /// How.
        how: End,
    },
    /// A handler's effect, once it is there for all to see.
    Effect {
        /// The message.
        message: String,
        /// The group.
        group: String,
        /// Who brought it about.
        node: String,
        /// Which attempt it was, from 1.
        attempt: u32,
    },
    /// Something that a handler's success brings about was seen.
    FollowUp {
        /// The message that was handled.
        message: String,
        /// The group that handled it.
        group: String,
        /// Which of the things that were announced with the publish.
        what: String,
        /// Its own message id: two of them are two follow-ups, one seen twice is one.
        id: String,
    },
    /// The broker refused the message, and that counts as an attempt to send it.
    SendRefused {
        /// The message.
        message: String,
    },
    /// The store refused to take the message as it was received, or what became of it: it may then be given up for that
    /// alone.
    StoreRefused {
        /// The message.
        message: String,
        /// The group; empty for the outbox.
        group: String,
    },
    /// An operator was told that the message has failed for good.
    Notice {
        /// The message.
        message: String,
        /// The group; empty for the outbox.
        group: String,
        /// Who told.
        node: String,
    },
    /// A node is dead: what it had in hand may be done again.
    Died {
        /// The node.
        node: String,
    },
    /// A node is in such trouble that it may lose leases.
    Trouble {
        /// The node.
        node: String,
    },
    /// The node is out of it, and knows which leases it has lost.
    Recovered {
        /// The node.
        node: String,
    },
    /// What the store says at the end. A message that it does not know (any more) has no such line.
    Stands {
        /// The message.
        message: String,
        /// The group; empty for the outbox.
        group: String,
        /// Where it stands.
        state: Final,
    },
}

impl Event {
    /// A publish to these groups, with nothing more to say.
    #[must_use]
    pub fn publish(message: &str, groups: &[&str]) -> Self {
        let groups = groups.iter().map(|group| ((*group).to_owned(), Vec::new())).collect();
        Self::Publish { message: message.to_owned(), groups, key: None, due: None }
    }

    /// An effect.
    #[must_use]
    pub fn effect(message: &str, group: &str, node: &str, attempt: u32) -> Self {
        Self::Effect { message: message.to_owned(), group: group.to_owned(), node: node.to_owned(), attempt }
    }

    /// The message that it is about; `None` for what concerns a group or a node.
    #[must_use]
    pub fn message(&self) -> Option<&str> {
        match self {
            Self::Publish { message, .. }
            | Self::Told { message, .. }
            | Self::CalledOff { message, .. }
            | Self::Received { message, .. }
            | Self::Began { message, .. }
            | Self::Ended { message, .. }
            | Self::Effect { message, .. }
            | Self::FollowUp { message, .. }
            | Self::SendRefused { message }
            | Self::StoreRefused { message, .. }
            | Self::Notice { message, .. }
            | Self::Stands { message, .. } => Some(message),
            Self::Group { .. } | Self::Died { .. } | Self::Trouble { .. } | Self::Recovered { .. } => None,
        }
    }
}
