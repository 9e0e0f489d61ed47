//! The cases that every [`Storage`] must pass, by what they are about. [`storage_suite!`](crate::storage_suite)
//! makes tests of them all.

pub mod actions;
pub mod audit;
pub mod claim;
pub mod complete;
pub mod crowd;
pub mod expire;
pub mod identity;
pub mod insert;
pub mod lag;
pub mod lease;
pub mod monitor;
mod node;
pub mod nodes;
pub mod rerun;
pub mod search;
pub mod suspect;
pub mod waiting;

use cap_adapter::monitor::Monitor;
use cap_adapter::storage::Storage;

/// A fresh, empty storage, of which several processes have handles.
pub trait StorageFixture: Send + Sync + 'static {
    /// The storage under test.
    type Storage: Storage + Monitor;

    /// A handle on the storage as one more process would have it, with connections of its own. The suite calls
    /// [`initialize`](Storage::initialize) on it.
    fn open(&self) -> impl Future<Output = Self::Storage> + Send;

    /// Whether [`listen`](Storage::listen) tells of what other processes do. A storage that cannot says `false`, and
    /// the case for it passes without having asked. Default: it does.
    fn signals(&self) -> bool {
        true
    }

    /// Whether the storage can claim a row before it is due; see [`claim_waiting`](Storage::claim_waiting). A storage that
    /// cannot says `false`, and the cases for it pass without having asked. Default: it can.
    fn claims_waiting(&self) -> bool {
        true
    }

    /// Whether the storage notes that handlers of suspects start; see [`mark_started`](Storage::mark_started). A storage that
    /// does not says `false`, and the cases for it pass without having asked. Default: it does.
    fn marks_starts(&self) -> bool {
        true
    }

    /// Whether the storage reports [lags](Monitor::lags). If not, the cases about them pass without a check.
    fn reports_lags(&self) -> bool {
        true
    }

    /// Whether the storage keeps acts of operators; see [`Monitor::record`]. A storage that does not says `false`, and the case
    /// for it passes without having asked. Default: it does.
    fn keeps_acts(&self) -> bool {
        true
    }

    /// Removes the storage when the case is over, whether it passed or not. Default: nothing to remove.
    fn cleanup(self) -> impl Future<Output = ()> + Send
    where
        Self: Sized,
    {
        async {}
    }
}
