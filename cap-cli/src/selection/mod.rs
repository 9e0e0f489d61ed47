//! Which messages a command is about.

mod filter;
mod shape;
mod status;

pub(crate) use filter::{Filter, SideArgs};
pub(crate) use shape::{body, message, side_name, status_name, summary};
