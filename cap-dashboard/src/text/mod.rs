//! What the pages say, in each language; numbers and times as people read them.

mod language;
mod numbers;
mod times;
mod words;

pub(crate) use language::Language;
pub(crate) use numbers::{Amount, bytes, grouped, short};
pub(crate) use times::{Stamp, cap_time, iso};
pub(crate) use words::Text;
