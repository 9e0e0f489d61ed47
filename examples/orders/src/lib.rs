//! Holds the example target `orders`: `cargo run --example orders`.

/// The README's program, compiled as a documentation test.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
pub struct Readme;
