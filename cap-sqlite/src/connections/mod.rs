//! Connections to the file: turns to write, sessions, and the mode of new files.

pub(crate) mod file;
pub(crate) mod file_mode;
pub(crate) mod pools;
pub(crate) mod session;
pub(crate) mod target;
