//! Keeps the content of messages out of the log.
//!
//! lapin logs a message that no queue wanted as a warning, with its whole body. It does so on a thread of its own, whose
//! subscriber is set here: whatever was in force where the connection was opened, without that one target.

use std::cell::RefCell;

use tracing::dispatcher::{DefaultGuard, get_default};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::{Interest, set_default};
use tracing::{Dispatch, Event, Metadata, Subscriber};

/// Where lapin logs what was returned to it.
const RETURNED_MESSAGES: &str = "lapin::returned_messages";

thread_local! {
    /// In force until the thread ends.
    static IN_FORCE: RefCell<Option<DefaultGuard>> = const { RefCell::new(None) };
}

/// The subscriber in force here, less what is not to be logged.
#[derive(Clone)]
pub(crate) struct Quiet(Dispatch);

impl Quiet {
    pub(crate) fn current() -> Self {
        Self(get_default(Clone::clone))
    }

    /// Makes it the subscriber of the present thread, for good.
    pub(crate) fn settle_here(self) {
        IN_FORCE.set(Some(set_default(self)));
    }
}

fn is_quiet(metadata: &Metadata<'_>) -> bool {
    metadata.target().starts_with(RETURNED_MESSAGES)
}

/// All but the first three pass everything on.
impl Subscriber for Quiet {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if is_quiet(metadata) { Interest::never() } else { self.0.register_callsite(metadata) }
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        !is_quiet(metadata) && self.0.enabled(metadata)
    }

    /// The subscriber underneath has its own say on the levels of the process, and nothing is asked for beyond it.
    /// Without a word here everything would count as asked for, down to lapin's texts of every frame.
    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::OFF)
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        self.0.new_span(span)
    }

    fn record(&self, span: &Id, values: &Record<'_>) {
        self.0.record(span, values);
    }

    fn record_follows_from(&self, span: &Id, follows: &Id) {
        self.0.record_follows_from(span, follows);
    }

    fn event(&self, event: &Event<'_>) {
        self.0.event(event);
    }

    fn enter(&self, span: &Id) {
        self.0.enter(span);
    }

    fn exit(&self, span: &Id) {
        self.0.exit(span);
    }

    fn clone_span(&self, id: &Id) -> Id {
        self.0.clone_span(id)
    }

    fn try_close(&self, id: Id) -> bool {
        self.0.try_close(id)
    }
}
