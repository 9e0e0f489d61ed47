//! Keeps lapin's own lines out of the log, unless the target `lapin` is enabled at `DEBUG`; and then still the content of
//! messages, and expected closings of channels.
//!
//! **Works around:** lapin logs each broken connection and each failed attempt to connect with several errors, although it
//! returns them as errors too, and the bus logs an outage once.
//!
//! **Works around:** lapin logs a message that no queue wanted as a warning, with its whole body; and it logs as an error
//! that the broker closed a channel, even where that is [one of the answers](super::expected_closes). It does so on a
//! thread of its own. There the subscriber is the one of the place where the connection was opened, without these events.
//! **Can go when** lapin logs neither bodies nor errors that it returns anyway.

use std::cell::RefCell;
use std::fmt;

use tracing::dispatcher::{DefaultGuard, get_default};
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::{Interest, set_default};
use tracing::{Dispatch, Event, Level, Metadata, Subscriber};

use crate::driver_fixes::expected_closes::ExpectedCloses;

/// What the targets of all of lapin's lines begin with.
const LAPIN: &str = "lapin";
/// Where lapin logs what was returned to it.
const RETURNED_MESSAGES: &str = "lapin::returned_messages";
/// Where lapin logs that the broker closed a channel, with the channel's number in this field.
const CHANNELS: &str = "lapin::channel";
const CHANNEL_FIELD: &str = "channel";

thread_local! {
    /// Active until the thread ends.
    static ACTIVE: RefCell<Option<DefaultGuard>> = const { RefCell::new(None) };
}

/// The current subscriber, without the events that are not to be logged.
#[derive(Debug, Clone)]
pub(crate) struct LogFilter {
    inner: Dispatch,
    expected: ExpectedCloses,
    /// Whether lapin's own lines are wanted.
    shows_lapin: bool,
}

impl LogFilter {
    pub(crate) fn current(expected: &ExpectedCloses) -> Self {
        let shows_lapin = tracing::enabled!(target: "lapin", Level::DEBUG);
        Self { inner: get_default(Clone::clone), expected: expected.clone(), shows_lapin }
    }

    fn is_dropped(&self, metadata: &Metadata<'_>) -> bool {
        let target = metadata.target();
        target.starts_with(RETURNED_MESSAGES) || !self.shows_lapin && target.starts_with(LAPIN)
    }

    fn is_expected(&self, event: &Event<'_>) -> bool {
        let metadata = event.metadata();
        if *metadata.level() != Level::ERROR || metadata.target() != CHANNELS {
            return false;
        }
        let mut number = ChannelNumber(None);
        event.record(&mut number);
        number.0.is_some_and(|channel| self.expected.contains(channel))
    }

    /// Makes it the subscriber of this thread, for as long as the thread lives.
    pub(crate) fn install(self) {
        ACTIVE.set(Some(set_default(self)));
    }
}

/// Reads the number of the channel that an event is about.
struct ChannelNumber(Option<u16>);

impl Visit for ChannelNumber {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == CHANNEL_FIELD {
            self.0 = format!("{value:?}").parse().ok();
        }
    }
}

/// Apart from the first three methods and `event`, everything is passed on.
impl Subscriber for LogFilter {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if self.is_dropped(metadata) { Interest::never() } else { self.inner.register_callsite(metadata) }
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        !self.is_dropped(metadata) && self.inner.enabled(metadata)
    }

    /// The subscriber underneath contributes its own maximum to that of the process, and nothing is wanted beyond it. With
    /// the default, every level would count as wanted, down to lapin's text of each frame.
    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::OFF)
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        self.inner.new_span(span)
    }

    fn record(&self, span: &Id, values: &Record<'_>) {
        self.inner.record(span, values);
    }

    fn record_follows_from(&self, span: &Id, follows: &Id) {
        self.inner.record_follows_from(span, follows);
    }

    fn event(&self, event: &Event<'_>) {
        if !self.is_expected(event) {
            self.inner.event(event);
        }
    }

    fn enter(&self, span: &Id) {
        self.inner.enter(span);
    }

    fn exit(&self, span: &Id) {
        self.inner.exit(span);
    }

    fn clone_span(&self, id: &Id) -> Id {
        self.inner.clone_span(id)
    }

    fn try_close(&self, id: Id) -> bool {
        self.inner.try_close(id)
    }
}
