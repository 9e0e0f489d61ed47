//! Transactions of the application: published in, or as the argument of a handler.

mod application_connections;
pub(crate) mod cap_transaction;
mod handler_commit;
pub(crate) mod pg_tx;
mod plain_transaction;
