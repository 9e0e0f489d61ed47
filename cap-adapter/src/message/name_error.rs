//! The error of a name.

use thiserror::Error;

/// A topic or a group has a name that no broker or storage accepts.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{kind} {name:?} {reason}")]
pub struct NameError {
    kind: &'static str,
    name: String,
    reason: String,
}

impl NameError {
    pub(crate) fn new(kind: &'static str, name: &str, reason: impl Into<String>) -> Self {
        // A name out of bounds may be a megabyte long; the error need not be.
        let mut name: String = name.chars().take(210).collect();
        if name.len() > 208 {
            name.push('…');
        }
        Self { kind, name, reason: reason.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_error_stays_short() {
        let error = NameError::new("topic", &"y".repeat(1_000_000), "is long");
        assert!(error.to_string().len() < 300);
    }
}
