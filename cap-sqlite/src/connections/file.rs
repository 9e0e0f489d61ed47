//! What all handles of this process on one database file share: turns to write, and the buses to wake.
//!
//! Neither is needed for things to be right, only for them to be quick and fair: another process, or a handle that knows
//! the file by another path, is kept out by SQLite's own lock and learns of work by looking.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use cap_adapter::storage::{Side, Wake};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::database::error::Fault;

/// How long a writer waits for its turn.
const TURN_TIMEOUT: Duration = Duration::from_secs(10);

/// The files that are in use.
static FILES: Mutex<BTreeMap<PathBuf, Weak<File>>> = Mutex::new(BTreeMap::new());

/// A database file, as this process uses it.
#[derive(Debug)]
pub(crate) struct File {
    /// One permit, given out in the order of asking. SQLite's own lock knows no order: among many who poll for it, one
    /// may never get it.
    turns: Arc<Semaphore>,
    listeners: Mutex<Listeners>,
}

#[derive(Debug, Default)]
struct Listeners {
    next: u64,
    wakes: BTreeMap<u64, Wake>,
}

/// The right to write, until it is dropped.
#[derive(Debug)]
pub(crate) struct Turn(
    #[allow(dead_code, reason = "it is kept until it is dropped, and not read")] OwnedSemaphorePermit,
);

impl File {
    /// The file of this path.
    pub(crate) fn of(path: &Path) -> Arc<Self> {
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let mut files = lock(&FILES);
        if let Some(file) = files.get(&path).and_then(Weak::upgrade) {
            return file;
        }
        files.retain(|_, file| file.strong_count() > 0);
        let file = Arc::new(Self { turns: Arc::new(Semaphore::new(1)), listeners: Mutex::default() });
        files.insert(path, Arc::downgrade(&file));
        file
    }

    /// Waits for the right to write.
    pub(crate) async fn turn(&self) -> Result<Turn, Fault> {
        match timeout(TURN_TIMEOUT, Arc::clone(&self.turns).acquire_owned()).await {
            Ok(Ok(permit)) => Ok(Turn(permit)),
            Ok(Err(_)) | Err(_) => Err(Fault::Unavailable(format!(
                "other transactions of this process have been writing for {TURN_TIMEOUT:?}"
            ))),
        }
    }

    /// Wakes every bus of this process: rows may have become due.
    pub(crate) fn wake(&self, side: Side) {
        for wake in lock(&self.listeners).wakes.values() {
            wake.wake(side);
        }
    }

    /// Has a bus woken until what is returned is dropped.
    pub(crate) fn listen(self: Arc<Self>, wake: Wake) -> Listening {
        let mut listeners = lock(&self.listeners);
        let key = listeners.next;
        listeners.next += 1;
        listeners.wakes.insert(key, wake);
        drop(listeners);
        Listening { file: self, key }
    }
}

/// A bus that listens.
#[derive(Debug)]
pub(crate) struct Listening {
    file: Arc<File>,
    key: u64,
}

impl Drop for Listening {
    fn drop(&mut self) {
        lock(&self.file.listeners).wakes.remove(&self.key);
    }
}

/// These locks guard plain data that no panic leaves half-changed.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_one_file_as_long_as_it_is_used() {
        let file = File::of(Path::new("some/shop.db"));
        let absolute = std::env::current_dir().unwrap().join("some/shop.db");
        assert!(Arc::ptr_eq(&file, &File::of(&absolute)));
        assert!(!Arc::ptr_eq(&file, &File::of(Path::new("other/shop.db"))));
        drop(file);
        let _other = File::of(Path::new("other/shop.db"));
        assert!(!lock(&FILES).contains_key(&absolute), "nothing is kept of a file that is not in use");
    }

    #[tokio::test]
    async fn a_bus_is_woken_as_long_as_it_listens() {
        let file = File::of(Path::new("woken/shop.db"));
        let wake = Wake::default();
        let listening = Arc::clone(&file).listen(wake.clone());
        file.wake(Side::Inbox);
        wake.woken(Side::Inbox).await;
        drop(listening);
        file.wake(Side::Inbox);
        assert!(lock(&file.listeners).wakes.is_empty());
    }
}
