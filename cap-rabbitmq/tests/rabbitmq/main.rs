//! The transport on a real RabbitMQ. One program, since each would link a broker client of its own.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

mod conformance;
mod dead_letters;
mod delays;
mod found;
mod hostile;
mod logging;
mod logins;
mod outages;
mod receiving;
mod sending;
mod settings;
mod support;
mod tls;
mod wire;
