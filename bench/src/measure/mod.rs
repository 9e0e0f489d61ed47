//! What is measured of a round.

pub(crate) mod cpu;
pub(crate) mod meter;
pub(crate) mod reading;
