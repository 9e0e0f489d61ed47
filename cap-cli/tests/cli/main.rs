//! The command line as a process: on files of SQLite, and on a real PostgreSQL (`DATABASE_URL`) and RabbitMQ (`AMQP_URL`).

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says what went wrong by failing")]

mod broker;
mod contexts;
mod messages;
mod postgres;
mod publishing;
mod schema;
mod support;
