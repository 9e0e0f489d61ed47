//! Trouble with the server, and what is said of it.

use std::time::Duration;

use cap_core::error::{StorageError, StorageErrorKind, error_chain};
use cap_core::monitor::Monitor as _;
use cap_core::storage::{Side, Storage as _, WriteBatch};
use cap_postgres::Postgres;
use sqlx::PgPool;
use sqlx::postgres::PgConnectOptions;
use tokio::task::JoinSet;

use crate::support::{Database, first_lease, held_incoming, outgoing, owner, url};

const SECRET: &str = "hunter2-secret";

fn storage(change: impl FnOnce(PgConnectOptions) -> PgConnectOptions) -> Postgres {
    let options: PgConnectOptions = url().parse().unwrap();
    Postgres::new(PgPool::connect_lazy_with(change(options.password(SECRET))))
}

#[track_caller]
fn check(error: &StorageError, kind: StorageErrorKind, text: &str) {
    let shown = format!("{} / {error:?}", error_chain(error));
    assert_eq!(error.kind(), kind, "{shown}");
    assert!(shown.contains(text), "{shown}");
    assert!(!shown.contains(SECRET), "{shown}");
}

#[tokio::test]
async fn closed_port_is_an_outage() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let error = storage(|options| options.port(port)).initialize().await.unwrap_err();
    check(
        &error,
        StorageErrorKind::Unavailable,
        &format!("checking the connections failed: no connection to 127.0.0.1:{port}"),
    );
}

#[tokio::test]
async fn a_database_or_a_role_that_is_not_there_is_not() {
    let error = storage(|options| options.database("no_such_database")).initialize().await.unwrap_err();
    check(&error, StorageErrorKind::Unusable, "no_such_database");
    let error = storage(|options| options.username("no_such_role")).initialize().await.unwrap_err();
    check(&error, StorageErrorKind::Unusable, "no_such_role");
}

#[tokio::test]
async fn missing_tables_and_rights_are_not() {
    let database = Database::empty();
    let batch = WriteBatch { outgoing: vec![outgoing(1)], ..WriteBatch::default() };
    let error = database.storage.write(&owner("a"), &batch).await.unwrap_err();
    check(&error, StorageErrorKind::Unusable, "writing messages failed: relation");
    let database = Database::new().await;
    let role = format!("role_{}", database.schema);
    database.execute(&format!("CREATE ROLE {role} LOGIN PASSWORD '{SECRET}'")).await;
    let options = (*database.pool.connect_options()).clone().username(&role).password(SECRET);
    let bare = Postgres::new(PgPool::connect_lazy_with(options)).schema(&database.schema);
    let result = bare.write(&owner("a"), &batch).await;
    database.execute(&format!("DROP ROLE {role}")).await;
    check(&result.unwrap_err(), StorageErrorKind::Unusable, "permission denied");
}

#[tokio::test]
async fn bad_url_is_reported_without_its_password() {
    for url in [
        format!("postgres://user:{SECRET}@host:notaport/db"),
        format!("nonsense {SECRET}"),
        format!("postgres://user@host/db?port={SECRET}"),
        format!("postgres://user:{SECRET}#@host/db"),
    ] {
        let error = Postgres::connect_lazy(&url).unwrap_err();
        check(&error, StorageErrorKind::Unusable, "the URL cannot be read");
    }
    let fine = Postgres::connect_lazy(&format!("postgres://user:{SECRET}@host/db")).unwrap();
    assert!(!format!("{fine:?}").contains(SECRET));
}

#[tokio::test]
async fn a_connection_that_the_server_ended_is_replaced() {
    let database = Database::new().await;
    database.publish(vec![outgoing(1)]).await;
    // Our connections are known by what they last did.
    let ended = database
        .count(&format!(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
             WHERE application_name = 'cap' AND query LIKE '%{}%' AND pid <> pg_backend_pid()",
            database.schema
        ))
        .await;
    assert!(ended > 0);
    let mut tries = 0;
    let batch = WriteBatch { outgoing: vec![outgoing(2)], ..WriteBatch::default() };
    while let Err(error) = database.storage.write(&owner("a"), &batch).await {
        assert!(error.is_unavailable(), "{error}");
        tries += 1;
        assert!(tries < 5, "{error}");
    }
}

#[tokio::test]
async fn the_applications_pool_cannot_starve_the_bus() {
    let database = Database::new().await;
    let mut all = Vec::new();
    while let Ok(connection) = tokio::time::timeout(Duration::from_millis(300), database.pool.acquire()).await
    {
        all.push(connection.unwrap());
    }
    assert_eq!(all.len(), 4);
    let batch = WriteBatch { outgoing: vec![outgoing(1)], ..WriteBatch::default() };
    database.storage.write(&owner("a"), &batch).await.unwrap();
    assert_eq!(database.claim(Side::Outbox).await.len(), 1);
    drop(all);
}

#[tokio::test]
async fn bus_follows_new_connect_options_of_the_pool() {
    let options: PgConnectOptions = url().parse().unwrap();
    let pool = PgPool::connect_lazy_with(options.clone().database("no_such_database"));
    let database = Database::on(pool);
    let error = database.storage.initialize().await.unwrap_err();
    assert!(error.to_string().contains("no_such_database"), "{error}");
    database.pool.set_connect_options(options);
    database.storage.initialize().await.unwrap();
    assert_eq!(database.storage.counts().await.unwrap(), []);
}

#[tokio::test]
async fn waiting_operators_do_not_block_the_bus() {
    let database = Database::new().await;
    database.receive(vec![held_incoming(1)]).await;
    let mut other = database.pool.begin().await.unwrap();
    let lock = database.sql("LOCK TABLE {s}.outbox");
    sqlx::query(lock).execute(&mut *other).await.unwrap();
    let storage = database.storage.clone().connections(2);
    let mut lists = JoinSet::new();
    for _ in 0..2 {
        let storage = storage.clone();
        lists.spawn(async move { storage.get(Side::Outbox, 1).await });
    }
    let waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = '{s}.outbox'::regclass";
    while database.count(waiting).await < 2 {
        tokio::task::yield_now().await;
    }
    assert_eq!(storage.renew(&owner("a"), Side::Inbox, &[first_lease(1)]).await.unwrap(), [true]);
    other.rollback().await.unwrap();
    while let Some(found) = lists.join_next().await {
        assert!(found.unwrap().unwrap().is_none());
    }
}
