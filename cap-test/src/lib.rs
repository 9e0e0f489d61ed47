//! Tests for services that use cap.
//!
//! A [`TestBus`] starts a service's own bus inside the test, on the embedded storage and broker. The test publishes, waits
//! until the bus is [settled](TestBus::settled), and looks at what was [published](TestBus::published),
//! [handled](TestBus::handled) and [parked](TestBus::parked). Time passes as in reality and, with
//! [`TestBus::advance`], as fast as the test wants: retries, delays, leases and timeouts follow. A message that is parked,
//! or a handler that panics, fails the test unless the test expects it. There are no globals: tests run in parallel.
//!
//! ```
//! use std::sync::Arc;
//! use std::sync::atomic::{AtomicBool, Ordering};
//! use std::time::Duration;
//!
//! use cap_core::prelude::*;
//! use cap_test::TestBus;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! // The service: it charges a card, and fails while the bank is closed.
//! let bank_is_open = Arc::new(AtomicBool::new(false));
//! let open = Arc::clone(&bank_is_open);
//! let service = Cap::builder().handlers(Handlers::none()).subscribe("card.charge", move |order: u64| {
//!     let open = open.load(Ordering::Relaxed);
//!     async move { if open { Ok(Reply(order)) } else { Err("the bank is closed") } }
//! });
//!
//! // The test.
//! let bus = TestBus::start(service).await;
//! bus.publish("card.charge", &7).callback("card.charged").await.expect("stored");
//! bus.settled().await;
//! assert_eq!(bus.published("card.charged").count().await, 0);
//!
//! bank_is_open.store(true, Ordering::Relaxed);
//! bus.advance(Duration::from_mins(4)).await;
//! let charged = bus.handled("card.charge").one::<u64>().await;
//! assert_eq!(charged.failed_attempts, 3);
//! assert_eq!(bus.published("card.charged").one::<u64>().await.payload, 7);
//! # }
//! ```
//!
//! A single handler is called without a bus by a [`HandlerCall`]. Outages, lost confirmations and duplicates are made to
//! happen by [`Faults`].

#![allow(
    clippy::panic,
    clippy::missing_panics_doc,
    reason = "a failed expectation fails the test, and a test fails by a panic"
)]

mod clock;
mod faults;
mod faulty_storage;
mod faulty_transport;
mod handler_call;
mod observer;
mod quiet;
mod record;
mod records;
mod story;
mod test_bus;
mod traffic;
mod world;

pub use faults::Faults;
pub use handler_call::{Handled, HandlerCall};
pub use record::Record;
pub use records::Records;
pub use test_bus::TestBus;
