//! The numbers that change while one looks: one reader for all who look.

mod reader;

pub(crate) use reader::{LiveReader, Reading, Sample};
