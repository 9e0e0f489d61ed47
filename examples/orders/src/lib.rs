//! Holds the example target `orders`: `cargo run --example orders`.

/// The README's program, compiled as a documentation test.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
pub struct Readme;

/// The programs of the page about .NET CAP, compiled as documentation tests.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/dotnet.md")]
pub struct Dotnet;

/// The programs of the page for operators, compiled as documentation tests.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/operating.md")]
pub struct Operating;
