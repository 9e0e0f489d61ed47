//! What a message is made of: headers, body, id and topic. Knows nothing of storages and brokers.

mod envelope;
pub mod headers;
mod id;
mod id_clock;
pub mod message_id;
mod name_error;
mod topic;
mod trace;

pub use envelope::Message;
pub use headers::Headers;
pub use id::{IdGenerator, MAX_WORKER, MessageId};
#[doc(hidden)]
pub use id_clock::{IdClock, SystemIdClock};
#[doc(inline)]
pub use name_error::NameError;
pub use topic::{MAX_NAME_LENGTH, TopicPattern, validate_group, validate_topic};
#[doc(hidden)]
pub use trace::{copy_trace, is_trace_parent};
