//! From the broker's delivery to the handler's outcome: the inbox side.

mod arrivals;
mod at_broker;
mod consumer;
mod ending;
mod entry;
mod executor;
mod foreign;
mod intake;
mod outcome;
mod pausing;
mod refused;
mod suspects;

pub(crate) use consumer::{Consumption, GroupChannels, run_consumer};
pub(crate) use executor::{GroupGauge, run_group};
pub(crate) use foreign::IncomingHook;
pub(crate) use intake::Intake;
