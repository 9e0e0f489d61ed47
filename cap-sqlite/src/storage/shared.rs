//! What all clones of a storage share, from its first use.

use crate::connections::pools::Connections;
use crate::storage::statements::Statements;

/// What is made at the first use, and then shared by all clones.
pub(crate) struct Shared {
    pub(crate) connections: Connections,
    pub(crate) statements: Statements,
}
