//! The scenarios through cap's public interface.

pub(crate) mod backlog;
mod bus;
pub(crate) mod handlers;
pub(crate) mod idle;
pub(crate) mod old_rows;
pub(crate) mod publish;
