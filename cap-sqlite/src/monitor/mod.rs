//! What operators see and change: lists, single messages, attempts, re-runs, deletions, counts, lags.

pub(crate) mod audit;
pub(crate) mod change_messages;
pub(crate) mod counts;
pub(crate) mod find_messages;
pub(crate) mod lags;
mod message_row;
pub(crate) mod search;
