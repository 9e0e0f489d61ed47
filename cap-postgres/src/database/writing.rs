//! What all statements of one call have in common.

use cap_adapter::storage::Owner;

use crate::database::encoding::Encoding;

/// The parts of a call that do not change from row to row.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Writing<'a> {
    /// The node that writes.
    pub(crate) owner: &'a Owner,
    /// The channel on which work for other nodes is announced.
    pub(crate) channel: &'a str,
    /// Whether the statement that leaves work announces it. Not within a transaction of the application, whose commit would
    /// wait for all others that announce something.
    pub(crate) announces: bool,
    /// The encoding of the database.
    pub(crate) encoding: &'a Encoding,
    /// Whether statements are prepared under names, to be used again.
    pub(crate) prepared: bool,
}
