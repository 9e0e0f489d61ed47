//! A handle for operators that needs a storage and no bus.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::messages::Messages;
use super::operated_storage::OperatedStorage;
use super::operator_publish::OperatorPublish;
use crate::error::StorageError;
use crate::monitor::{Act, BoundedCounts, Lag, Monitor};
use crate::runtime::options::CapOptions;
use crate::storage::{Storage, Wake};

/// The most rows of a kind that [`Operator::waiting`] counts.
const ROWS_COUNTED: u32 = 10_000;

/// The operator's API over a storage, without a bus: the same [`messages`](Self::messages) as [`Cap`](crate::Cap) has.
///
/// It joins no nodes, and neither handles nor sends messages: what it makes due is processed by the nodes that share the
/// storage. Only [`publish`](Self::publish) claims a worker id, until the message is stored. It is for dashboards, command lines and scripts. A process that has a bus gets one from
/// [`Cap::operator`](crate::Cap::operator). It is cheap to clone.
///
/// ```
/// use cap_core::Operator;
/// use cap_core::memory::MemoryStorage;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), cap_core::error::StorageError> {
/// let operator = Operator::open(MemoryStorage::new()).await?;
/// for row in operator.messages().parked().list().await? {
///     println!("{} {}: {:?}", row.id, row.name, row.last_error);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Operator {
    storage: OperatedStorage,
}

impl Operator {
    /// Opens a storage for operators. Selections start with the messages of version `v1`, the default of
    /// [`CapOptions::version`]; see [`version`](Self::version).
    ///
    /// # Errors
    ///
    /// Invalid settings, a storage that is unreachable, or one that needs operator action. A schema that is missing or older
    /// is created or upgraded, as at the start of a bus.
    pub async fn open(storage: impl Storage + Monitor) -> Result<Self, StorageError> {
        storage.check()?;
        storage.initialize().await?;
        let options = CapOptions::default();
        let storage = OperatedStorage {
            naming: None,
            storage: Arc::new(storage),
            version: options.version.as_str().into(),
            keep_cancelled: options.failed_expire_after,
            wake: Wake::default(),
        };
        Ok(Self { storage })
    }

    pub(crate) fn new(storage: OperatedStorage) -> Self {
        Self { storage }
    }

    /// Sets the version whose messages selections start with, as in [`CapOptions::version`].
    #[must_use]
    pub fn version(mut self, version: impl Into<String>) -> Self {
        self.storage.version = version.into().into();
        self
    }

    /// Sets how long cancelled messages are kept. Default: that of [`CapOptions::failed_expire_after`].
    #[must_use]
    pub fn keep_cancelled(mut self, keep: Duration) -> Self {
        self.storage.keep_cancelled = keep;
        self
    }

    /// The stored messages: find and inspect them, fix, re-run or delete them.
    pub fn messages(&self) -> Messages {
        Messages::new(self.storage.clone())
    }

    /// The audit: what operators did to messages through [`Messages`], newest first, of all nodes; with `before` only acts with
    /// a smaller number. The storage keeps acts for [90 days](crate::monitor::NewAct::KEPT_FOR).
    ///
    /// # Errors
    ///
    /// Those of the storage.
    pub async fn acts(&self, before: Option<i64>, limit: usize) -> Result<Vec<Act>, StorageError> {
        self.storage.acts(before, limit).await
    }

    /// A message to publish through the outbox: a node that shares the storage sends it. The topic is used as given, without
    /// a topic prefix. The body is sent unchanged; services expect JSON. Nothing happens until
    /// [`store`](OperatorPublish::store) is called.
    pub fn publish(&self, topic: impl Into<String>, body: impl Into<Bytes>) -> OperatorPublish {
        OperatorPublish::new(self.storage.clone(), topic.into(), body.into())
    }

    /// The display name of the storage, such as `PostgreSQL`.
    #[must_use]
    pub fn storage_name(&self) -> &'static str {
        self.storage.name()
    }

    /// How many messages have a state row, by side, group and status, at a cost that does not grow with their number: at most
    /// 10,000 rows of each kind are counted. `None` if the storage is reachable but counting takes too long.
    ///
    /// # Errors
    ///
    /// Those of the storage.
    pub async fn waiting(&self) -> Result<Option<BoundedCounts>, StorageError> {
        self.storage.bounded_counts(ROWS_COUNTED).await
    }

    /// The lag of the outbox and of each group, of all nodes and bus versions: how long the oldest message has been due
    /// without a node that works on it. Outbox and groups in which nothing waits are left out. `None` if the storage cannot
    /// tell. The cost grows with the number of groups, not with the number of messages.
    ///
    /// # Errors
    ///
    /// Those of the storage.
    pub async fn lags(&self) -> Result<Option<Vec<Lag>>, StorageError> {
        self.storage.lags().await
    }
}

impl fmt::Debug for Operator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Operator")
            .field("storage", &self.storage.name())
            .field("version", &self.storage.version)
            .finish_non_exhaustive()
    }
}
