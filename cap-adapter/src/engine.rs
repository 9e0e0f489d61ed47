//! Internals of these types that the engine needs. Exempt from semantic versioning.

pub use crate::error::ShortTypeName;
pub use crate::handler::{DeliveryParts, StorageView};
pub use crate::identity::OWN_ID_PREFIX;
pub use crate::message::{copy_trace, is_trace_parent};
pub use crate::panics::{caught, panic_text};
