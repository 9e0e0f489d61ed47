//! Everything between a delivery from the broker and the outcome of its handler: the inbox side of the engine.

mod arrivals;
mod broker_retry;
mod callback;
mod circuit_breaking;
mod completion;
mod consumer;
mod ended;
mod executor;
mod group_inbox;
mod inbox;
mod inbox_row;
mod incoming_hook;
mod key_order;
mod received;
mod rejected_rows;
mod retry_copy;
mod retry_decision;
mod suspects;

pub(crate) use consumer::run_consumer;
pub(crate) use executor::{GroupGauge, run_group};
pub(crate) use group_inbox::{GroupChannels, GroupInbox};
pub(crate) use inbox::Inbox;
pub(crate) use incoming_hook::IncomingHook;
pub(crate) use received::Received;
