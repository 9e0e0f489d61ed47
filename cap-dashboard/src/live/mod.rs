//! The numbers that change while one looks: one reader for all who look.

mod cached;
mod history;
mod reader;

pub(crate) use history::{COUNTED, History, bounded};
pub(crate) use reader::{LiveReader, Reading, Sample};
