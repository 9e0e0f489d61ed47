//! Sends messages and waits for the broker's confirms.

pub(crate) mod amqp_message;
pub(crate) mod batch;
pub(crate) mod channel;
pub(crate) mod publisher;
pub(crate) mod report;
