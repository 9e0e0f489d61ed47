//! Trouble with the file, and what is said of it.

use std::path::Path;
use std::time::Duration;

use cap_core::error::{StorageError, StorageErrorKind, error_chain};
use cap_core::message::Message;
use cap_core::monitor::Monitor as _;
use cap_core::storage::{NewOutgoing, Side, Storage as _, WriteBatch};
use cap_sqlite::Sqlite;
use sqlx::SqlitePool;
use sqlx::sqlite::SqliteConnectOptions;

use crate::support::{Database, Folder, ids, message, outgoing, owner};

#[track_caller]
fn check(error: &StorageError, kind: StorageErrorKind, text: &str) {
    let shown = error_chain(error);
    assert_eq!(error.kind(), kind, "{shown}");
    assert!(shown.contains(text), "{shown}");
}

fn batch(id: i64) -> WriteBatch {
    WriteBatch { outgoing: vec![outgoing(id)], ..WriteBatch::default() }
}

#[tokio::test]
async fn a_folder_that_is_not_there_is_named() {
    let folder = Folder::new();
    let path = folder.0.join("missing").join("shop.db");
    let error = Sqlite::open(&path).initialize().await.unwrap_err();
    check(&error, StorageErrorKind::Unusable, &path.display().to_string());
    check(&error, StorageErrorKind::Unusable, "the folder must be there");
}

#[tokio::test]
async fn a_file_that_is_something_else_is_not_touched() {
    let folder = Folder::new();
    let path = folder.0.join("letter.txt");
    let letter = "Dear Sir or Madam, ".repeat(100);
    std::fs::write(&path, &letter).unwrap();
    let error = Sqlite::open(&path).initialize().await.unwrap_err();
    check(&error, StorageErrorKind::Unusable, "not a database");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), letter);
}

#[tokio::test]
async fn database_in_memory_is_refused() {
    let pool = SqlitePool::connect_lazy("sqlite::memory:").unwrap();
    let error = Sqlite::new(pool).initialize().await.unwrap_err();
    check(&error, StorageErrorKind::Unusable, "MemoryStorage");
}

#[tokio::test]
async fn a_path_is_always_a_file() {
    let folder = Folder::new();
    for name in [":memory:", "file:x?mode=memory", "a ? b # c % d"] {
        let path = folder.0.join(name);
        Sqlite::open(&path).initialize().await.unwrap();
        assert!(Path::exists(&path), "{name}");
    }
    let here = std::env::current_dir().unwrap();
    for name in [":memory:", "file:x?mode=memory"] {
        let shown = format!("{:?}", Sqlite::open(name));
        assert!(shown.contains(&*here.join(name).to_string_lossy()), "{shown}");
    }
}

#[tokio::test]
async fn read_only_pool_is_refused() {
    let database = Database::new().await;
    let options = SqliteConnectOptions::new().filename(&database.path).read_only(true);
    let storage = Sqlite::new(SqlitePool::connect_lazy_with(options));
    let error = storage.write(&owner("a"), &batch(1)).await.unwrap_err();
    check(&error, StorageErrorKind::Unusable, "must be allowed to write");
}

#[tokio::test]
async fn missing_tables_are_not_an_outage() {
    let database = Database::empty();
    let error = database.storage.write(&owner("a"), &batch(1)).await.unwrap_err();
    check(&error, StorageErrorKind::Unusable, "writing messages failed: no such table");
}

#[tokio::test]
async fn damaged_file_is_reported() {
    let database = Database::new().await;
    database.publish((1..=200).map(outgoing).collect()).await;
    database.execute("PRAGMA wal_checkpoint(TRUNCATE)").await;
    let mut bytes = std::fs::read(&database.path).unwrap();
    // The first page, which tells of the tables, stays as it is.
    bytes[4096..].fill(0x5a);
    std::fs::write(&database.path, bytes).unwrap();
    let error = Sqlite::open(&database.path).write(&owner("a"), &batch(1000)).await.unwrap_err();
    check(&error, StorageErrorKind::Unusable, "malformed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn full_disk_is_an_outage_and_loses_nothing() {
    let database = Database::new().await;
    let options = (*database.pool.connect_options()).clone();
    // About a hundred pages more than the empty tables have.
    let full = Sqlite::new(SqlitePool::connect_lazy_with(options.pragma("max_page_count", "120")));
    let mut stored = Vec::new();
    let error = loop {
        let id = i64::try_from(stored.len()).unwrap() + 1;
        let large = Message { body: vec![b'x'; 20_000].into(), ..(*message(&id.to_string())).clone() };
        let new = NewOutgoing { message: large.into(), ..outgoing(id) };
        let batch = WriteBatch { outgoing: vec![outgoing(1000 + id), new], ..WriteBatch::default() };
        match full.write(&owner("a"), &batch).await {
            Ok(_) => stored.extend([id]),
            Err(error) => break error,
        }
        assert!(stored.len() < 100, "it never fills up");
    };
    check(&error, StorageErrorKind::Unavailable, "work waits until there is room");
    // Reading goes on, and nothing of what failed is there.
    let rows = full.list(&cap_core::monitor::Query::new(Side::Outbox)).await.unwrap();
    assert_eq!(rows.len(), stored.len() * 2);
    // When somebody has made room, work goes on.
    let half: Vec<i64> = stored.iter().copied().step_by(2).collect();
    assert_eq!(full.delete(Side::Outbox, &half, cap_core::monitor::Among::All).await.unwrap(), half);
    full.write(&owner("a"), &batch(6000)).await.unwrap();
    assert_eq!(database.text("PRAGMA integrity_check").await, "ok");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lock_of_another_session_is_waited_for() {
    let database = Database::new().await;
    let blocker = database.pool.begin_with("BEGIN IMMEDIATE").await.unwrap();
    let storage = database.storage.clone();
    let writing = tokio::spawn(async move { storage.write(&owner("a"), &batch(1)).await });
    // Reading waits for nobody.
    assert!(ids(&database.claim(Side::Outbox).await).is_empty());
    blocker.rollback().await.unwrap();
    writing.await.unwrap().unwrap();
    assert_eq!(ids(&database.claim(Side::Outbox).await), [1]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lock_that_stays_is_an_outage() {
    let database = Database::new().await;
    let blocker = database.pool.begin_with("BEGIN IMMEDIATE").await.unwrap();
    let error = database.storage.write(&owner("a"), &batch(1)).await.unwrap_err();
    check(&error, StorageErrorKind::Unavailable, "database is locked");
    blocker.rollback().await.unwrap();
    database.storage.write(&owner("a"), &batch(1)).await.unwrap();
}

#[tokio::test]
async fn the_applications_pool_cannot_starve_the_bus() {
    let database = Database::new().await;
    let mut all = Vec::new();
    while let Ok(connection) = tokio::time::timeout(Duration::from_millis(300), database.pool.acquire()).await
    {
        all.push(connection.unwrap());
    }
    assert_eq!(all.len(), 10);
    database.publish(vec![outgoing(1)]).await;
    assert_eq!(database.claim(Side::Outbox).await.len(), 1);
    drop(all);
}
