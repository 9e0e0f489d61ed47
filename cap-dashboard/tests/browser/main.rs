//! The pages in a real browser: Debian's chromium, over chromedriver. Without them the tests say that they were left out.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test says what went wrong by failing, and that it was left out"
)]

mod chrome;
mod pages;
mod reachable;
mod site;
