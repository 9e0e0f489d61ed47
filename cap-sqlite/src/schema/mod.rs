//! The tables: their creation and their upgrades.

pub(crate) mod creation;
