//! How a command fails, and the exit code that says so.

use cap_core::error::{PublishError, StorageError, TransportError};

/// The exit code of wrong arguments or settings.
pub(crate) const USAGE: u8 = 2;

/// Why a command failed. No text of it holds a connection string.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// 1: it was tried and did not succeed.
    #[error("{0}")]
    Failed(String),
    /// 2: arguments, the configuration file, or what they say together.
    #[error("{0}")]
    Usage(String),
    /// 3: what was named does not exist.
    #[error("{0}")]
    NotFound(String),
    /// 4: something needs attention.
    #[error("{0}")]
    Unhealthy(String),
    /// 5: an act on production was not confirmed.
    #[error("{0}")]
    NotConfirmed(String),
    /// 6: the deadline has passed, and what was begun goes on.
    #[error("{0}")]
    Deadline(String),
}

impl Failure {
    /// The exit code.
    pub(crate) fn code(&self) -> u8 {
        match self {
            Self::Failed(_) => 1,
            Self::Usage(_) => USAGE,
            Self::NotFound(_) => 3,
            Self::Unhealthy(_) => 4,
            Self::NotConfirmed(_) => 5,
            Self::Deadline(_) => 6,
        }
    }
}

impl From<StorageError> for Failure {
    fn from(error: StorageError) -> Self {
        Self::Failed(redacted(&error.to_string()))
    }
}

impl From<TransportError> for Failure {
    fn from(error: TransportError) -> Self {
        Self::Failed(redacted(&error.to_string()))
    }
}

impl From<PublishError> for Failure {
    fn from(error: PublishError) -> Self {
        let text = redacted(&error.to_string());
        match error {
            PublishError::Name(_) | PublishError::Header { .. } | PublishError::TooLarge { .. } => {
                Self::Usage(text)
            }
            _ => Self::Failed(text),
        }
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::Failed(error.to_string())
    }
}

/// A text without anything that follows `://` in a word, because a connection string may stand there.
pub(crate) fn redacted(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        out.push_str(before);
        out.push_str("...");
        let ends = |c: char| c.is_whitespace() || matches!(c, '\'' | '"' | '`' | '<' | '>' | ',' | ';');
        rest = &after[after.find(ends).unwrap_or(after.len())..];
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_an_address_is_left() {
        for (text, expected) in [
            ("no postgres://u:s3cret@h/db here", "no postgres://... here"),
            ("'amqp://u:s3cret@h' found", "'amqp://...' found"),
            ("amqp://u:s3cret@a,b", "amqp://...,b"),
            ("plain", "plain"),
            ("", ""),
        ] {
            assert_eq!(redacted(text), expected);
        }
    }
}
