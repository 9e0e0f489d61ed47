//! Payloads as text: JSON that is never read into numbers, and masks.

mod highlight;
mod json_text;
mod masks;
mod shown;

pub(crate) use highlight::{Piece, pieces};
pub(crate) use json_text::{compact, is_json, pretty};
pub(crate) use masks::MASK;
pub use masks::Masks;
pub(crate) use shown::{Body, Shown};
