//! Issue 9, rows 6 and 11: what others have made beforehand, attached or locked.

mod owners;

use std::time::Duration;

use cap_core::error::{StorageError, StorageErrorKind};
use cap_core::prelude::*;
use cap_core::storage::{NodeRequest, Storage as _};
use cap_postgres::Postgres;
use sqlx::{AssertSqlSafe, PgPool};

use crate::support::{OwnDatabase, held, owner};

fn storage(pool: &PgPool) -> Postgres {
    Postgres::new(pool.clone()).schema("cap").connections(2)
}

async fn execute(pool: &PgPool, text: impl Into<String>) {
    sqlx::raw_sql(AssertSqlSafe(text.into())).execute(pool).await.unwrap();
}

async fn refused(storage: &Postgres) -> String {
    let error = storage.initialize().await.unwrap_err();
    assert_eq!(error.kind(), StorageErrorKind::Unusable, "{error}");
    error.to_string()
}

/// A trigger that copies what is published to a table of its maker's.
const STEAL: &str = "
    CREATE TABLE public.stolen (body bytea);
    CREATE FUNCTION public.steal() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS
        $$ BEGIN INSERT INTO public.stolen VALUES (NEW.body); RETURN NEW; END $$;
    CREATE TRIGGER steal BEFORE INSERT ON cap.outbox FOR EACH ROW EXECUTE FUNCTION public.steal();";

mod attached {
    use super::*;

    /// What is attached, by which SQL, and its name.
    const ATTACHED: [(&str, &str, &str); 15] = [
        ("trigger", STEAL, "steal"),
        (
            "trigger",
            "CREATE FUNCTION public.t() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
             CREATE TRIGGER seen AFTER UPDATE ON cap.inbox_state FOR EACH STATEMENT EXECUTE FUNCTION public.t()",
            "seen",
        ),
        ("rule", "CREATE RULE copy AS ON INSERT TO cap.inbox DO ALSO NOTIFY copied", "copy"),
        ("policy", "CREATE POLICY mine ON cap.outbox USING (true)", "mine"),
        ("row security", "ALTER TABLE cap.nodes ENABLE ROW LEVEL SECURITY", "nodes"),
        (
            "constraint",
            "ALTER TABLE cap.attempts ADD CONSTRAINT short CHECK (length(error) < 1000000)",
            "short",
        ),
        (
            "constraint",
            "CREATE TABLE public.notes (id bigint, CONSTRAINT keeps FOREIGN KEY (id) REFERENCES cap.outbox (id))",
            "keeps",
        ),
        ("inheritance", "CREATE TABLE public.more () INHERITS (cap.inbox)", "more"),
        ("generated column", "ALTER TABLE cap.outbox ADD size integer GENERATED ALWAYS AS (octet_length(body)) STORED", "size"),
        ("default", "ALTER TABLE cap.outbox ADD extra integer DEFAULT (pg_backend_pid())", "extra"),
        (
            "default",
            "CREATE FUNCTION public.seven() RETURNS integer LANGUAGE sql AS 'SELECT 7';
             ALTER TABLE cap.inbox_state ALTER reruns SET DEFAULT public.seven()",
            "reruns",
        ),
        (
            "default",
            "CREATE SEQUENCE public.numbers; ALTER TABLE cap.attempts ADD serial bigint DEFAULT nextval('public.numbers')",
            "serial",
        ),
        (
            "type of column",
            "CREATE DOMAIN public.word AS text CHECK (length(VALUE) > 0); ALTER TABLE cap.nodes ADD remark public.word",
            "remark",
        ),
        (
            "index",
            "CREATE FUNCTION public.first(text) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT left($1, 1)';
             CREATE INDEX by_first ON cap.outbox (public.first(headers))",
            "by_first",
        ),
        ("trigger", "CREATE FUNCTION public.v() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$;
             CREATE TRIGGER through INSTEAD OF INSERT ON cap.published FOR EACH ROW EXECUTE FUNCTION public.v()", "through"),
    ];

    #[tokio::test]
    async fn it_is_refused_by_name_unless_it_is_allowed() {
        let database = OwnDatabase::new().await;
        let plain = storage(&database.pool);
        plain.initialize().await.unwrap();
        let mut all = plain.clone();
        for (what, sql, name) in ATTACHED {
            database.execute(sql).await;
            let error = refused(&all).await;
            assert!(error.contains(&format!("{what} \"{name}\"")), "{what} {name}: {error}");
            all = all.allow(name);
            all.initialize().await.map_err(|error| format!("{what} {name}: {error}")).unwrap();
        }
        let error = refused(&plain).await;
        for (what, _, name) in ATTACHED {
            assert!(error.contains(&format!("{what} \"{name}\"")), "{what} {name}: {error}");
        }
        // What is allowed does not make the schema unusable.
        all.write(&owner("a"), &WriteBatchOf(1).batch()).await.unwrap();
    }

    struct WriteBatchOf(i64);

    impl WriteBatchOf {
        fn batch(&self) -> cap_core::storage::WriteBatch {
            cap_core::storage::WriteBatch { outgoing: vec![held(self.0)], ..Default::default() }
        }
    }

    /// What operators add for themselves and runs nothing is nobody's business.
    #[tokio::test]
    async fn what_runs_nothing_is_accepted() {
        let database = OwnDatabase::new().await;
        storage(&database.pool).initialize().await.unwrap();
        database
            .execute(
                "CREATE INDEX by_name ON cap.outbox (name);
                 CREATE INDEX by_length ON cap.outbox (octet_length(body));
                 ALTER TABLE cap.outbox ADD remark text DEFAULT 'none';
                 CREATE TABLE cap.own (id bigint);
                 CREATE VIEW cap.latest AS SELECT * FROM cap.outbox",
            )
            .await;
        storage(&database.pool).initialize().await.unwrap();
    }
}

mod locks {
    use super::*;

    fn request() -> NodeRequest {
        NodeRequest {
            node: "a".into(),
            worker: None,
            lease: Duration::from_secs(30),
            succeeded_expire_after: Duration::from_hours(24),
        }
    }

    /// The keys of the advisory locks of versions before.
    fn key(purpose: &str) -> i64 {
        let bytes = ["cap", purpose, "cap"].into_iter().flat_map(|part| part.bytes().chain([0]));
        let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        i64::from_ne_bytes(hash.to_ne_bytes())
    }

    #[tokio::test]
    async fn role_that_may_only_connect_blocks_no_start() {
        let database = OwnDatabase::new().await;
        let (_, theirs) = database.role("mallory").await;
        let mut holding = theirs.acquire().await.unwrap();
        for purpose in ["schema", "nodes"] {
            sqlx::query("SELECT pg_advisory_lock($1)")
                .bind(key(purpose))
                .execute(&mut *holding)
                .await
                .unwrap();
        }
        let storage = storage(&database.pool);
        storage.initialize().await.unwrap();
        storage.join(&request()).await.unwrap();
        drop(holding);
    }

    #[track_caller]
    fn assert_named(error: &StorageError, role: &str) {
        assert!(error.is_unavailable(), "{error}");
        let text = error.to_string();
        assert!(text.contains("is locked by process") && text.contains(role), "{text}");
    }

    #[tokio::test]
    async fn who_keeps_the_schema_from_being_created_is_named() {
        let database = OwnDatabase::new().await;
        let (mallory, theirs) = database.role("mallory").await;
        database.execute(format!("GRANT CREATE ON DATABASE {} TO {mallory}", database.name)).await;
        let mut open = theirs.begin().await.unwrap();
        sqlx::raw_sql("CREATE SCHEMA cap").execute(&mut *open).await.unwrap();
        let error = storage(&database.pool).initialize().await.unwrap_err();
        assert_named(&error, &mallory);
        open.rollback().await.unwrap();
        storage(&database.pool).initialize().await.unwrap();
    }

    #[tokio::test]
    async fn who_keeps_a_node_from_joining_is_named() {
        let database = OwnDatabase::new().await;
        let storage = storage(&database.pool);
        storage.initialize().await.unwrap();
        let mut open = database.pool.begin().await.unwrap();
        sqlx::raw_sql("INSERT INTO cap.nodes VALUES (0, 'b', now())").execute(&mut *open).await.unwrap();
        assert_named(&storage.join(&request()).await.unwrap_err(), "role");
        open.rollback().await.unwrap();
        assert_eq!(storage.join(&request()).await.unwrap(), 0);
    }

    /// Two that start at the same moment are given two numbers, and one schema.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn many_nodes_join_at_once_without_a_lock() {
        let database = OwnDatabase::new().await;
        let tasks: Vec<_> = (0..12)
            .map(|index| {
                let storage = Postgres::new(database.pool.clone()).schema("cap").connections(1);
                tokio::spawn(async move {
                    storage.initialize().await?;
                    storage.join(&NodeRequest { node: format!("n{index}").into(), ..request() }).await
                })
            })
            .collect();
        let mut workers = std::collections::HashSet::new();
        for task in tasks {
            workers.insert(task.await.unwrap().unwrap());
        }
        assert_eq!(workers.len(), 12);
    }
}
