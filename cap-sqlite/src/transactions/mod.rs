//! Transactions of the application: published in, or as the argument of a handler.

pub(crate) mod cap_transaction;
mod handler_commit;
mod open_transaction;
mod plain_transaction;
pub(crate) mod sqlite_tx;
