//! Everything that works around lapin, the AMQP client underneath.
//!
//! The head of each file says what it works around, and when it can go. After an update of lapin, read them.

pub(crate) mod blocked;
pub(crate) mod broker_version;
pub(crate) mod channel_numbers;
pub(crate) mod dial;
pub(crate) mod executor;
pub(crate) mod expected_closes;
pub(crate) mod frame_fields;
pub(crate) mod identity_check;
pub(crate) mod log_filter;
pub(crate) mod open_channels;
pub(crate) mod returned_messages;
pub(crate) mod sanitize;
pub(crate) mod socket;
pub(crate) mod unwritten;
