//! The storage, and the bus of this process if there is one.

use std::future::Future;
use std::time::Duration;

use cap_core::error::StorageError;
use cap_core::{Cap, Messages, Operator};

use super::recorder::Recorder;
use crate::request::Problem;

/// How long the storage may take for one request.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The storage, and the bus of this process if there is one.
#[derive(Debug, Clone)]
pub(crate) struct Data {
    pub(crate) operator: Operator,
    pub(crate) bus: Option<Cap>,
    /// The name of the broker, if it is known.
    pub(crate) broker: Option<String>,
    /// The metrics that the application itself records.
    pub(crate) recorder: Option<Recorder>,
}

impl Data {
    pub(crate) fn messages(&self) -> Messages {
        self.operator.messages()
    }
}

/// Awaits the storage for a limited time.
pub(crate) async fn within<T>(
    call: impl Future<Output = Result<T, StorageError>> + Send,
) -> Result<T, Problem> {
    match tokio::time::timeout(TIMEOUT, call).await {
        Ok(result) => result.map_err(Problem::from),
        Err(_) => Err(Problem::StorageSlow),
    }
}
