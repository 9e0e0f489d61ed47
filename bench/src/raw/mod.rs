//! The servers alone: what the broker passes on without a database, what the database takes without a broker.

pub(crate) mod consume;
pub(crate) mod insert;
pub(crate) mod pipe;
