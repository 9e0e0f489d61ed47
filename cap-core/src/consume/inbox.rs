//! The state that all groups of a bus share on the receiving side.

use std::sync::Arc;

use cap_adapter::{Classify, States};

use super::incoming_hook::IncomingHook;
use crate::handlers::Layer;
use crate::publish::Outbox;
use crate::runtime::engine::Engine;
use crate::runtime::suspect_gate::SuspectGate;

/// The state that all groups of a bus share on the receiving side.
pub(crate) struct Inbox {
    pub(crate) engine: Arc<Engine>,
    /// The outbox for replies and for messages that handlers publish.
    pub(crate) outbox: Arc<Outbox>,
    /// The values that handlers take as `State`.
    pub(crate) states: Arc<States>,
    pub(crate) layers: Arc<[Arc<dyn Layer>]>,
    /// Classifies the errors of handlers without a classifier of their own.
    pub(crate) classify: Option<Classify>,
    pub(crate) hook: IncomingHook,
    pub(crate) suspects: SuspectGate,
}
