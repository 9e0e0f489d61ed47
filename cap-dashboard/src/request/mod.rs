//! What a request says, and what may be wrong with it.

mod params;
mod problem;

pub(crate) use params::Params;
pub(crate) use problem::{Problem, add_headers, api_error};
