//! The error of a bus that could not start.

use std::fmt;

use thiserror::Error;

use super::storage_error::StorageError;
use super::transport_error::TransportError;

/// The error of a bus that could not start. Every mistake that can be detected before the first message is reported
/// here.
///
/// Its `Debug` output equals its `Display` output, since that is what a `main` that returns it prints.
#[derive(Error)]
#[non_exhaustive]
pub enum StartError {
    /// The builder has no storage.
    #[error("no storage: call .storage(..), for instance with MemoryStorage::new()")]
    NoStorage,
    /// The builder has no transport.
    #[error("no transport: call .transport(..), for instance with MemoryTransport::new()")]
    NoTransport,
    /// The subscriptions contradict each other or need something that is missing. Each problem names its function.
    #[error("the subscriptions cannot be started:{}", bullets(.0))]
    Subscriptions(Vec<String>),
    /// An option is out of its range.
    #[error("option {option} {reason}")]
    Option {
        /// The option's name as in the configuration.
        option: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// The storage is not usable.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The transport is not usable.
    #[error(transparent)]
    Transport(#[from] TransportError),
}

impl fmt::Debug for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn bullets(problems: &[String]) -> String {
    problems.iter().fold(String::new(), |text, problem| text + "\n  - " + problem)
}
