//! What the pages and the API read and do: a storage, a filter, and deadlines.

mod filter;
mod fingerprint;
mod recorder;
mod source;
mod storage_metrics;

pub(crate) use filter::{Filter, encoded, status_name};
pub(crate) use fingerprint::common_part;
pub use fingerprint::fingerprint;
pub(crate) use recorder::Recorder;
pub(crate) use source::{Data, within};
pub use storage_metrics::{Sample, StorageMetrics};
