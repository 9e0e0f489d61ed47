//! Holds the example target `compensation`: `cargo run --example compensation`.

/// The programs of the page about retries, compiled as documentation tests.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/retries.md")]
pub struct Retries;
