//! What goes on beside the messages: expiry, worker ids, the shared key, wake-ups, and the end of plain transactions.

pub(crate) mod commit_lookup;
pub(crate) mod expiry;
pub(crate) mod notify;
pub(crate) mod shared_key;
pub(crate) mod worker_id;
