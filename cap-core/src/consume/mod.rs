//! From the broker's delivery to the handler's outcome: the inbox side.

mod arrivals;
mod broker_retry;
mod callback;
mod circuit_breaking;
mod completion;
mod consumer;
mod executor;
mod in_flight;
mod inbox_row;
mod incoming_hook;
mod rejected_rows;
mod retry_decision;
mod suspects;

pub(crate) use consumer::{Consumption, GroupChannels, run_consumer};
pub(crate) use executor::{GroupGauge, run_group};
pub(crate) use in_flight::Intake;
pub(crate) use incoming_hook::IncomingHook;
