//! What goes on beside the messages: expiry, worker ids, the shared key, and work of other processes.

pub(crate) mod expiry;
pub(crate) mod polling;
pub(crate) mod shared_key;
pub(crate) mod worker_id;
