//! Internals of these types that the engine needs. Exempt from semantic versioning.

pub use crate::error::ShortTypeName;
pub use crate::handler::{DeliveryParts, StorageView};
pub use crate::message::{copy_trace, is_trace_parent};
pub use crate::panics::{caught, panic_text};
pub use crate::storage::OWN_ID_PREFIX;
