//! Receives and acknowledges messages.

pub(crate) mod acknowledgements;
pub(crate) mod body;
pub(crate) mod consumer;
pub(crate) mod incoming_headers;
pub(crate) mod prefetch_window;
pub(crate) mod x_death;
