//! The metrics that the application itself records.

use std::fmt;
use std::sync::Arc;

/// Renders the metrics that the application itself records.
#[derive(Clone)]
pub(crate) struct Recorder(Arc<dyn Fn() -> String + Send + Sync>);

impl Recorder {
    pub(crate) fn new(render: impl Fn() -> String + Send + Sync + 'static) -> Self {
        Self(Arc::new(render))
    }

    pub(crate) fn render(&self) -> String {
        (self.0)()
    }
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Recorder")
    }
}
