//! Messages to insert, and the results of that.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use super::identity::Identity;
use super::row::Reason;
use crate::message::Message;

/// A message to insert into the outbox.
#[derive(Debug, Clone)]
pub struct NewOutgoing {
    /// The row's id, unique and increasing.
    pub id: i64,
    /// The message. It always has a `cap-msg-id` and a `cap-msg-name`.
    pub message: Arc<Message>,
    /// The time until it is due; `None` for at once. With a delay the row is [`Status::Delayed`](crate::storage::Status::Delayed).
    pub delay: Option<Duration>,
    /// Whether the inserting node leases the row at once, with epoch 1. Otherwise the row has epoch 0 and any node
    /// may claim it when it is due. Never set together with a delay.
    pub held: bool,
}

/// A message to insert into the inbox.
#[derive(Debug, Clone)]
pub struct NewIncoming {
    /// The row's id, unique and increasing.
    pub id: i64,
    /// The full name of the receiving group.
    pub group: Arc<str>,
    /// The message as received. It may lack the headers for id and name.
    pub message: Arc<Message>,
    /// What to insert it as.
    pub entry: Entry,
    /// Its identity besides message id and group.
    pub identity: Identity,
}

impl NewIncoming {
    /// Whether the inserting node leases the row, with epoch 1.
    #[doc(hidden)]
    #[must_use]
    pub fn is_leased(&self) -> bool {
        matches!(self.entry, Entry::Scheduled { held: true } | Entry::Parked { notify: true, .. })
    }

    /// The message id under which the row is stored, and which is unique in its group; `None` if the message has none.
    #[must_use]
    pub fn stored_message_id(&self) -> Option<Cow<'_, str>> {
        let id = self.message.id()?;
        match self.own_message_id() {
            Some(own) if self.identity.apart => Some(Cow::Owned(own)),
            _ => Some(Cow::Borrowed(id)),
        }
    }

    /// Like [`Identity::own_message_id`], for this message.
    #[must_use]
    pub fn own_message_id(&self) -> Option<String> {
        self.identity.own_message_id(self.message.id()?)
    }
}

/// How a received message enters the inbox.
#[derive(Debug, Clone)]
pub enum Entry {
    /// For its handler; `held` as in [`NewOutgoing::held`].
    Scheduled {
        /// Whether the inserting node leases the row at once.
        held: bool,
    },
    /// Parked, with [`Status::Failed`](crate::storage::Status::Failed): it cannot be handled as it is.
    Parked {
        /// Why.
        reason: Reason,
        /// The error text.
        error: String,
        /// How long to keep it.
        keep: Duration,
        /// Whether an operator is still to be notified, as with `Failed`.
        notify: bool,
    },
}

/// The result of an insert.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stored {
    /// The row was inserted.
    New,
    /// A row with this message id (outbox), or this message id and group (inbox), existed before, and nothing was
    /// changed. In the inbox it has the same [digest](Identity::digest), or one of the two has none; or this message
    /// was stored [apart](Identity::apart) before. Messages without an id never collide.
    Duplicate,
    /// Only in the inbox: another message with a different digest has this message id in this group, and [keeps
    /// it](crate::storage::Meeting::Conflict). Nothing was changed. Never returned for a message that is stored
    /// [apart](Identity::apart).
    Conflict,
}
