//! Which file it is.

use std::fmt;
use std::path::PathBuf;

/// The path of a database file, as errors show it.
#[derive(Debug, Clone)]
pub(crate) struct Target(pub(crate) PathBuf);

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.display().fmt(f)
    }
}
