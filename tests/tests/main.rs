//! The main job and everything that may come in its way, over a real RabbitMQ and a real PostgreSQL.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "what goes wrong here is what the tests are for"
)]

mod annotated;
mod bad_input;
mod blocked;
mod broker_retries;
mod crashes;
mod delays;
mod dotnet_options;
mod dotnet_recording;
mod encodings;
mod expiry;
mod full_queue;
mod hostile;
mod identity;
mod interop_lapin;
mod interop_pika;
mod lost_answers;
mod main_job;
mod memory;
mod nodes;
mod orders;
mod outages;
mod pairs;
mod parked;
mod quiet;
mod refused;
mod retries;
mod retry_copies;
mod shutdown;
mod start;
mod transactions;
mod trust;
