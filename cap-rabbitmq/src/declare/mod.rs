//! What a bus declares on the broker, or joins as it finds it: the exchange, and the queues of its groups.

pub(crate) mod exchange;
pub(crate) mod group_queue;
pub(crate) mod stream_check;
pub(crate) mod topology;
