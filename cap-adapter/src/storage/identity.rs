//! Which received messages are the same: by message id, group and content.

use std::fmt;

use sha2::{Digest as _, Sha256};

use super::row::{Reason, Status};

/// The prefix of the message ids of rows that are stored [apart](Identity::apart). Received messages with such an id
/// are rejected, so that a sender cannot occupy it in advance.
pub const OWN_ID_PREFIX: &str = "cap-conflict:";

/// A fingerprint of a message as it was received: the first 128 bits of SHA-256 over its topic, its body and, with
/// the option `user_in_identity`, the user verified by the broker.
///
/// Headers are not part of it, since a sender may send a message again with a different send time. Later changes by
/// an operator do not change it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest([u8; 16]);

impl Digest {
    /// The digest of a message.
    #[must_use]
    pub fn of(topic: &str, body: &[u8], user: Option<&str>) -> Self {
        let mut hash = Sha256::new();
        for part in [topic.as_bytes(), body].into_iter().chain(user.map(str::as_bytes)) {
            // Each part is prefixed by its length, so that no two messages with different parts have the same input.
            hash.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_le_bytes());
            hash.update(part);
        }
        Self(first_half(hash))
    }

    /// Reads a digest from its stored bytes; `None` if they are not a digest.
    #[must_use]
    pub fn from_stored(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// The bytes to store.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({})", hex(&self.0))
    }
}

fn first_half(hash: Sha256) -> [u8; 16] {
    let mut half = [0; 16];
    half.copy_from_slice(&hash.finalize()[..16]);
    half
}

fn hex(bytes: &[u8]) -> String {
    use fmt::Write as _;
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        // A String takes everything.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// What identifies a received message besides its message id and group.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Identity {
    /// The digest of the content. `None` matches any digest, since rows of older nodes have none.
    pub digest: Option<Digest>,
    /// Whether the message is stored under a generated id, because another message has its own: see
    /// [`own_message_id`](Self::own_message_id). The headers keep the original id.
    pub apart: bool,
}

impl Identity {
    /// The identity of a message that is stored under its own id.
    #[must_use]
    pub fn new(digest: Digest) -> Self {
        Self { digest: Some(digest), apart: false }
    }

    /// The generated id for a message whose own id belongs to another message. It is the same for every delivery, so
    /// that the message is stored once. `None` without a digest.
    #[must_use]
    pub fn own_message_id(&self, message_id: &str) -> Option<String> {
        let mut hash = Sha256::new();
        hash.update(message_id.as_bytes());
        hash.update(self.digest?.as_bytes());
        Some(format!("{OWN_ID_PREFIX}{}", hex(&first_half(hash))))
    }
}

/// The existing inbox row with the message id and group of a received message.
#[derive(Debug, Clone, Copy)]
pub struct Holder {
    /// Its digest.
    pub digest: Option<Digest>,
    /// Its status.
    pub status: Status,
    /// Why.
    pub reason: Option<Reason>,
    /// How many attempts have failed.
    pub attempts: u32,
    /// How many times an operator has re-run it.
    pub reruns: u32,
    /// How many times it was claimed; a row that was inserted as leased starts at 1.
    pub epoch: i32,
}

/// What a storage does with a message if another row has its id and group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meeting {
    /// It is a duplicate: nothing is stored.
    Same,
    /// The row was parked on receipt and never handled. The new message takes over its message id; the row keeps
    /// everything else.
    TakesOver,
    /// The row was handled or will be: nothing is stored, and the result is
    /// [`Stored::Conflict`](crate::storage::Stored::Conflict).
    Conflict,
}

impl Holder {
    /// Decides what happens to a message that arrives under this row's id.
    #[must_use]
    pub fn meets(&self, newcomer: &Identity) -> Meeting {
        match (self.digest, newcomer.digest) {
            (Some(held), Some(new)) if held != new => {}
            _ => return Meeting::Same,
        }
        if self.was_never_handled() { Meeting::TakesOver } else { Meeting::Conflict }
    }

    /// Whether it was parked on receipt and no handler ever ran on it. A row that was claimed again after its first
    /// lease may have been handled by a node that died, so it does not count.
    fn was_never_handled(&self) -> bool {
        // Finding that a body cannot be decoded counts as an attempt.
        let counted = u32::from(self.reason == Some(Reason::Undecodable));
        self.status == Status::Failed
            && self.reason.is_some_and(Reason::is_of_receipt)
            && self.attempts <= counted
            && self.reruns == 0
            && self.epoch <= 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digest_tells_topic_body_and_user_apart() {
        let all = [
            Digest::of("a", b"bc", None),
            Digest::of("ab", b"c", None),
            Digest::of("", b"abc", None),
            Digest::of("abc", b"", None),
            Digest::of("a", b"bc", Some("")),
            Digest::of("a", b"bc", Some("mallory")),
            Digest::of("a", b"b", Some("c")),
        ];
        for (place, one) in all.iter().enumerate() {
            assert!(all[..place].iter().all(|other| other != one), "{one:?}");
        }
        assert_eq!(Digest::from_stored(all[0].as_bytes()), Some(all[0]));
        assert_eq!(Digest::from_stored(b"short"), None);
    }

    #[test]
    fn digest_is_the_same_in_every_version() {
        // Rows of other nodes are compared with it.
        assert_eq!(format!("{:?}", Digest::of("order.placed", b"{}", None)), KNOWN);
        let own = Identity::new(Digest::of("order.placed", b"{}", None)).own_message_id("m1").unwrap();
        assert!(own.starts_with(OWN_ID_PREFIX) && own.len() == OWN_ID_PREFIX.len() + 32, "{own}");
    }

    const KNOWN: &str = "Digest(9c9ad41d6739f3168e4c4e5c08ceca9d)";

    #[test]
    fn only_a_row_that_was_never_handled_gives_way() {
        let (one, other) = (Digest::of("t", b"1", None), Digest::of("t", b"2", None));
        let parked = Holder {
            digest: Some(one),
            status: Status::Failed,
            reason: Some(Reason::NoSubscriber),
            attempts: 0,
            reruns: 0,
            epoch: 1,
        };
        let meets = |holder: Holder| holder.meets(&Identity::new(other));
        assert_eq!(meets(parked), Meeting::TakesOver);
        assert_eq!(
            meets(Holder { reason: Some(Reason::Undecodable), attempts: 1, ..parked }),
            Meeting::TakesOver
        );
        assert_eq!(parked.meets(&Identity::new(one)), Meeting::Same);
        assert_eq!(parked.meets(&Identity::default()), Meeting::Same);
        assert_eq!(meets(Holder { digest: None, ..parked }), Meeting::Same);
        for handled in [
            Holder { attempts: 1, ..parked },
            Holder { reruns: 1, ..parked },
            Holder { epoch: 2, ..parked },
            Holder { status: Status::Scheduled, reason: None, ..parked },
            Holder { status: Status::Succeeded, reason: None, ..parked },
            Holder { reason: Some(Reason::Exhausted), ..parked },
            Holder { reason: Some(Reason::Permanent), ..parked },
            Holder { reason: Some(Reason::IdConflict), ..parked },
            Holder { reason: None, ..parked },
        ] {
            assert_eq!(meets(handled), Meeting::Conflict, "{handled:?}");
        }
    }
}
