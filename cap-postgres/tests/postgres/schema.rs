//! How the tables come into being, and where they must not.

use cap_core::error::StorageErrorKind;
use cap_core::storage::Storage as _;
use cap_postgres::Postgres;

use crate::support::{Database, outgoing, url};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn eight_nodes_may_start_at_once() {
    let database = Database::empty();
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            let storage = Postgres::new(database.pool.clone()).schema(&database.schema).connections(1);
            tokio::spawn(async move { storage.initialize().await })
        })
        .collect();
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    assert_eq!(database.count("SELECT count(*) FROM {s}.schema_version WHERE minor = 0").await, 1);
    database.publish(vec![outgoing(1)]).await;
    database.storage.initialize().await.unwrap();
    assert_eq!(database.count("SELECT count(*) FROM {s}.outbox").await, 1);
}

#[tokio::test]
async fn any_name_may_be_a_schema() {
    for name in ["Mixed Case", "o\"; DROP SCHEMA public; --", "ünï'code {schema} $cap$"] {
        let database = Database::named(&format!("{name} {:08x}", fastrand::u32(..)));
        database.storage.check().unwrap();
        database.storage.initialize().await.unwrap();
        database.publish(vec![outgoing(1)]).await;
        assert_eq!(database.text("SELECT \"StatusName\"::text FROM {s}.published").await, "Scheduled");
    }
}

#[tokio::test]
async fn a_name_that_no_schema_can_have_is_found_before_the_start() {
    let pool = sqlx::PgPool::connect_lazy(&url()).unwrap();
    let error = Postgres::new(pool).schema("a\nb").check().unwrap_err();
    assert_eq!(error.kind(), StorageErrorKind::Unusable);
    assert!(error.to_string().contains("control character"), "{error}");
}

#[tokio::test]
async fn the_tables_of_dot_net_cap_are_refused_and_left_alone() {
    let database = Database::empty();
    database.execute("CREATE SCHEMA {s}; CREATE TABLE {s}.received (\"Id\" bigint PRIMARY KEY)").await;
    let error = database.storage.initialize().await.unwrap_err();
    assert_eq!(error.kind(), StorageErrorKind::Unusable);
    assert!(error.to_string().contains(".NET CAP"), "{error}");
    let tables = "SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = '{s}'";
    let tables = tables.replace("{s}", &database.schema);
    assert_eq!(database.count(&tables).await, 2, "one table and its key");
}

#[tokio::test]
async fn newer_major_version_is_refused_newer_minor_is_not() {
    let database = Database::new().await;
    database.execute("INSERT INTO {s}.schema_version (major, minor) VALUES (1, 7)").await;
    database.storage.initialize().await.unwrap();
    database.execute("INSERT INTO {s}.schema_version (major, minor) VALUES (2, 0)").await;
    let error = database.storage.initialize().await.unwrap_err();
    assert_eq!(error.kind(), StorageErrorKind::Unusable);
    assert!(error.to_string().contains("version 2.0"), "{error}");
}

#[tokio::test]
async fn the_printed_sql_makes_the_same_schema() {
    let database = Database::empty();
    database.execute(&Postgres::schema_sql(&database.schema)).await;
    database.storage.initialize().await.unwrap();
    assert_eq!(database.count("SELECT count(*) FROM {s}.schema_version WHERE minor = 0").await, 1);
    database.publish(vec![outgoing(1)]).await;
}

#[tokio::test]
async fn a_role_that_may_only_use_the_tables_can_start() {
    let database = Database::new().await;
    let role = format!("role_{}", database.schema);
    database
        .execute(&format!("CREATE ROLE {role} LOGIN PASSWORD 'own'; GRANT USAGE ON SCHEMA {{s}} TO {role}"))
        .await;
    database.execute(&format!("GRANT ALL ON ALL TABLES IN SCHEMA {{s}} TO {role}")).await;
    let options = (*database.pool.connect_options()).clone().username(&role).password("own");
    let pool = sqlx::PgPool::connect_lazy_with(options);
    let result = Postgres::new(pool).schema(&database.schema).initialize().await;
    database.execute(&format!("DROP OWNED BY {role}; DROP ROLE {role}")).await;
    result.unwrap();
}

/// The tables as 010ce59 makes them, with a node and a message in them, and its statements on the tables as they are now.
#[tokio::test]
async fn an_older_minor_version_is_brought_up_to_date() {
    let database = Database::empty();
    database.execute("CREATE SCHEMA {s}").await;
    database.execute(&include_str!("../../src/schema/schema.sql").replace("{schema}", "{s}")).await;
    let node =
        "INSERT INTO {s}.nodes (worker, node, lease_until) VALUES (3, 'older', now() + interval '1 hour')";
    database.execute(node).await;
    database.publish(vec![outgoing(1)]).await;
    database.storage.initialize().await.unwrap();
    assert_eq!(
        database.count("SELECT count(*) FROM {s}.nodes WHERE succeeded_expire_after IS NULL").await,
        1
    );
    database.publish(vec![outgoing(2)]).await;
    assert_eq!(database.count("SELECT count(*) FROM {s}.published").await, 2);
    database.execute("DELETE FROM {s}.nodes WHERE worker = 3 AND node = 'older'").await;
}
