//! The trace context of a handled message, in what its handler publishes.

use crate::message::Headers;
use crate::message::headers::names;

/// The trace goes on.
pub(super) fn copy_trace(from: &Headers, to: &mut Headers) {
    for name in [names::TRACE_PARENT, names::TRACE_STATE, names::BAGGAGE] {
        if let Some(value) = from.get(name) {
            to.insert(name, value);
        }
    }
}
