//! Messages that wait at the broker: the queues that they wait in, and sending them there.

pub(crate) mod declared_queues;
pub(crate) mod delay_queue;
pub(crate) mod delayer;
