//! The schema: its creation, its upgrades, and who owns it.

pub(crate) mod creation;
pub(crate) mod lock_holders;
pub(crate) mod ownership;
pub(crate) mod scripts;
