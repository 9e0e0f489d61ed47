//! Holds the quickstart, which is the example target `quickstart`: `cargo run --example quickstart`.
