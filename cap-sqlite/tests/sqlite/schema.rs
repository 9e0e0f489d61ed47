//! How the tables come into being, and where they must not.

use cap_core::error::StorageErrorKind;
use cap_core::storage::Storage as _;
use cap_sqlite::Sqlite;

use crate::support::{Database, outgoing, owner};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn eight_nodes_may_start_at_once_on_a_new_file() {
    for _ in 0..5 {
        let database = Database::empty();
        let tasks: Vec<_> = (0..8)
            .map(|node| {
                // Each knows the file by another path: as another process, it does not take turns with the others.
                let folder = database.path.with_file_name(node.to_string());
                std::fs::create_dir(&folder).unwrap();
                let storage = Sqlite::open(folder.join("..").join("shop.db"));
                tokio::spawn(async move { storage.initialize().await })
            })
            .collect();
        for task in tasks {
            task.await.unwrap().unwrap();
        }
        assert_eq!(database.count("SELECT count(*) FROM cap_schema_version WHERE minor = 0").await, 1);
        database.publish(vec![outgoing(1)]).await;
        database.storage.initialize().await.unwrap();
        assert_eq!(database.count("SELECT count(*) FROM cap_outbox").await, 1);
    }
}

#[tokio::test]
async fn the_file_is_in_wal_mode_and_every_commit_on_the_disk() {
    let database = Database::new().await;
    assert_eq!(database.text("PRAGMA journal_mode").await, "wal");
    assert_eq!(database.count("PRAGMA synchronous").await, 2, "FULL");
}

#[tokio::test]
async fn two_prefixes_are_two_storages() {
    let database = Database::new().await;
    let other = database.storage.clone().table_prefix("Shop2_");
    other.check().unwrap();
    other.initialize().await.unwrap();
    database.publish(vec![outgoing(1)]).await;
    assert_eq!(database.count("SELECT count(*) FROM cap_outbox").await, 1);
    assert_eq!(database.count("SELECT count(*) FROM Shop2_outbox").await, 0);
}

#[tokio::test]
async fn a_hostile_prefix_is_found_before_the_start_and_does_nothing() {
    let database = Database::new().await;
    database.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY)").await;
    for prefix in ["x; DROP TABLE orders; --", "\"", "a b", "", "{prefix}", "sqlite_"] {
        let storage = database.storage.clone().table_prefix(prefix);
        let error = storage.check().unwrap_err();
        assert_eq!(error.kind(), StorageErrorKind::Unusable);
        assert!(error.to_string().contains("the tables' prefix"), "{error}");
        // Even if nobody has asked.
        let _ = storage.initialize().await;
        let batch = cap_core::storage::WriteBatch { outgoing: vec![outgoing(1)], ..Default::default() };
        let _ = storage.write(&owner("a"), &batch).await;
    }
    assert_eq!(database.count("SELECT count(*) FROM orders").await, 0);
}

#[tokio::test]
async fn foreign_tables_are_refused_and_not_changed() {
    for table in ["cap_received", "CAP_Outbox", "cap_signals"] {
        let database = Database::empty();
        database.execute(&format!("CREATE TABLE {table} (id INTEGER PRIMARY KEY)")).await;
        let error = database.storage.initialize().await.unwrap_err();
        assert_eq!(error.kind(), StorageErrorKind::Unusable);
        assert!(error.to_string().contains("choose another prefix"), "{error}");
        assert_eq!(database.count("SELECT count(*) FROM sqlite_schema").await, 1);
    }
}

#[tokio::test]
async fn newer_major_version_is_refused_newer_minor_is_not() {
    let database = Database::new().await;
    database.execute("INSERT INTO cap_schema_version (major, minor) VALUES (1, 7)").await;
    database.storage.initialize().await.unwrap();
    database.execute("INSERT INTO cap_schema_version (major, minor) VALUES (2, 0)").await;
    let error = database.storage.initialize().await.unwrap_err();
    assert_eq!(error.kind(), StorageErrorKind::Unusable);
    assert!(error.to_string().contains("version 2.0"), "{error}");
}

#[tokio::test]
async fn the_printed_sql_makes_the_same_tables() {
    let (database, other) = (Database::empty(), Database::new().await);
    database.execute(&Sqlite::schema_sql("cap_")).await;
    database.storage.initialize().await.unwrap();
    let tables = "SELECT group_concat(sql, ';' ORDER BY name) FROM sqlite_schema";
    assert_eq!(database.text(tables).await, other.text(tables).await);
    database.publish(vec![outgoing(1)]).await;
}

/// The tables as 010ce59 makes them, with a node and a message in them, and its statements on the tables as they are now.
#[tokio::test]
async fn an_older_minor_version_is_brought_up_to_date() {
    let database = Database::empty();
    database.execute(&include_str!("../../src/schema/schema.sql").replace("{prefix}", "cap_")).await;
    let node = "INSERT INTO cap_nodes (worker, node, lease_until) VALUES (3, 'older', (unixepoch() + 3600) * 1000000)";
    database.execute(node).await;
    database.publish(vec![outgoing(1)]).await;
    database.storage.initialize().await.unwrap();
    assert_eq!(
        database.count("SELECT count(*) FROM cap_nodes WHERE succeeded_expire_after IS NULL").await,
        1
    );
    database.publish(vec![outgoing(2)]).await;
    assert_eq!(database.count("SELECT count(*) FROM cap_published").await, 2);
    database.execute("DELETE FROM cap_nodes WHERE worker = 3 AND node = 'older'").await;
}

/// Issue 9, row 17.
#[cfg(unix)]
mod file_modes {
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::Path;

    use cap_core::storage::Storage as _;
    use cap_sqlite::Sqlite;
    use sqlx::SqlitePool;
    use sqlx::sqlite::SqliteConnectOptions;

    use crate::support::{Database, Folder, outgoing};

    fn modes(path: &Path) -> Vec<(String, u32)> {
        let folder = std::fs::read_dir(path.parent().unwrap()).unwrap().map(Result::unwrap);
        let mut modes: Vec<_> = folder
            .map(|file| {
                let name = file.file_name().to_string_lossy().into_owned();
                (name, file.metadata().unwrap().permissions().mode() & 0o777)
            })
            .collect();
        modes.sort();
        modes
    }

    #[tokio::test]
    async fn files_of_ours_are_their_owners_alone() {
        let database = Database::new().await;
        database.publish(vec![outgoing(1)]).await;
        let modes = modes(&database.path);
        let names: Vec<&str> = modes.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["shop.db", "shop.db-shm", "shop.db-wal"]);
        assert!(modes.iter().all(|(_, mode)| *mode == 0o600), "{modes:?}");
    }

    #[tokio::test]
    async fn so_are_those_that_a_pool_has_created_for_the_bus() {
        let folder = Folder::new();
        let path = folder.0.join("shop.db");
        let options = SqliteConnectOptions::new().filename(&path).create_if_missing(true);
        let pool = SqlitePool::connect_lazy_with(options.journal_mode(sqlx::sqlite::SqliteJournalMode::Wal));
        let storage = Sqlite::new(pool);
        storage.initialize().await.unwrap();
        let modes = modes(&path);
        assert!(modes.iter().all(|(_, mode)| *mode == 0o600), "{modes:?}");
    }

    #[tokio::test]
    async fn a_file_that_is_there_keeps_its_mode() {
        let folder = Folder::new();
        let path = folder.0.join("shop.db");
        std::fs::write(&path, "").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        let storage = Sqlite::open(&path);
        storage.initialize().await.unwrap();
        let modes = modes(&path);
        assert!(modes.iter().all(|(_, mode)| *mode == 0o640), "{modes:?}");
    }
}

/// Issue 8, row 16.
#[tokio::test]
async fn an_exclusive_locking_mode_is_named() {
    let folder = crate::support::Folder::new();
    let options = sqlx::sqlite::SqliteConnectOptions::new()
        .filename(folder.0.join("shop.db"))
        .create_if_missing(true)
        .busy_timeout(std::time::Duration::from_millis(10))
        .journal_mode(sqlx::sqlite::SqliteJournalMode::Wal)
        .locking_mode(sqlx::sqlite::SqliteLockingMode::Exclusive);
    let pool = sqlx::SqlitePool::connect_lazy_with(options);
    let error = cap_sqlite::Sqlite::new(pool.clone()).initialize().await.unwrap_err();
    assert_eq!(error.kind(), StorageErrorKind::Unusable, "{error}");
    assert!(error.to_string().contains("locking_mode=EXCLUSIVE"), "{error}");
}
