//! Issue 9, rows 6 and 11: what others have made beforehand, attached or locked.

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

mod owners {
    use super::*;

    #[tokio::test]
    async fn a_schema_of_another_role_is_refused() {
        let database = OwnDatabase::new().await;
        let (mallory, theirs) = database.role("mallory").await;
        let (app, ours) = database.role("app").await;
        database
            .execute(format!(
                "GRANT CREATE ON DATABASE {} TO {mallory}; GRANT CREATE ON SCHEMA public TO {mallory}",
                database.name
            ))
            .await;
        execute(&theirs, Postgres::schema_sql("cap") + STEAL).await;
        execute(
            &theirs,
            "GRANT USAGE ON SCHEMA cap TO public; GRANT ALL ON ALL TABLES IN SCHEMA cap TO public",
        )
        .await;
        // Superusers belong to every role by what `pg_has_role` says; they are no less careful.
        for pool in [&database.pool, &ours] {
            let error = refused(&storage(pool)).await;
            assert!(error.contains(&mallory) && error.contains("schema_owner"), "{error}");
        }
        let accepted = storage(&ours).schema_owner(&mallory);
        let error = refused(&accepted).await;
        assert!(error.contains("trigger \"steal\" on outbox") && error.contains("allow"), "{error}");
        execute(&database.pool, format!("GRANT {mallory} TO {app}")).await;
        let member = storage(&ours).allow("steal");
        member.initialize().await.unwrap();
        accepted.allow("steal").initialize().await.unwrap();
        execute(
            &database.pool,
            format!("REVOKE {mallory} FROM {app}; ALTER DATABASE {} OWNER TO {mallory}", database.name),
        )
        .await;
        storage(&ours).allow("steal").initialize().await.unwrap();
        let stolen: i64 =
            sqlx::query_scalar("SELECT count(*) FROM public.stolen").fetch_one(&database.pool).await.unwrap();
        assert_eq!(stolen, 0);
    }

    #[tokio::test]
    async fn an_empty_schema_of_another_role_is_refused() {
        let database = OwnDatabase::new().await;
        let (mallory, _) = database.role("mallory").await;
        database.execute(format!("CREATE SCHEMA cap AUTHORIZATION {mallory}")).await;
        let error = refused(&storage(&database.pool)).await;
        assert!(error.contains(&mallory) && error.contains("the schema of"), "{error}");
        let tables: i64 = sqlx::query_scalar("SELECT count(*) FROM pg_class WHERE relname = 'outbox'")
            .fetch_one(&database.pool)
            .await
            .unwrap();
        assert_eq!(tables, 0, "nothing was changed");
    }

    #[tokio::test]
    async fn each_table_view_and_function_has_an_accepted_owner() {
        let database = OwnDatabase::new().await;
        let ours = storage(&database.pool);
        ours.initialize().await.unwrap();
        let (mallory, _) = database.role("mallory").await;
        // The sequence of an identity column cannot have another owner than its table.
        let objects: Vec<String> = sqlx::query_scalar(
            "SELECT format('%s %s', CASE relkind WHEN 'v' THEN 'VIEW' ELSE 'TABLE' END, oid::regclass)
             FROM pg_class WHERE relnamespace = 'cap'::regnamespace AND relkind NOT IN ('i', 'c', 'S')
             UNION ALL SELECT format('FUNCTION %s', oid::regprocedure)
             FROM pg_proc WHERE pronamespace = 'cap'::regnamespace",
        )
        .fetch_all(&database.pool)
        .await
        .unwrap();
        assert!(objects.len() >= 13, "{objects:?}");
        for object in objects {
            database.execute(format!("ALTER {object} OWNER TO {mallory}")).await;
            let error = refused(&ours).await;
            assert!(error.contains(&mallory), "{object}: {error}");
            database.execute(format!("ALTER {object} OWNER TO CURRENT_USER")).await;
        }
        ours.initialize().await.unwrap();
    }

    /// A view in the place of a table would run what its maker likes as soon as it is read.
    #[tokio::test]
    async fn nothing_of_a_foreign_schema_is_read() {
        let database = OwnDatabase::new().await;
        let (mallory, _) = database.role("mallory").await;
        database
            .execute(format!(
                "CREATE SEQUENCE public.ran;
                 CREATE SCHEMA cap AUTHORIZATION {mallory};
                 CREATE VIEW cap.schema_version AS SELECT 1 AS major, nextval('public.ran')::integer AS minor;
                 ALTER VIEW cap.schema_version OWNER TO {mallory}"
            ))
            .await;
        refused(&storage(&database.pool)).await;
        let has_run: bool =
            sqlx::query_scalar("SELECT is_called FROM public.ran").fetch_one(&database.pool).await.unwrap();
        assert!(!has_run);
    }

    #[tokio::test]
    async fn a_role_with_dml_only_starts_on_the_schema_of_a_dba() {
        let database = OwnDatabase::new().await;
        let (dba, theirs) = database.role("dba").await;
        let (app, ours) = database.role("app").await;
        database.execute(format!("GRANT CREATE ON DATABASE {} TO {dba}", database.name)).await;
        execute(&theirs, Postgres::schema_sql("cap")).await;
        execute(
            &theirs,
            format!(
                "GRANT USAGE ON SCHEMA cap TO {app};
                 GRANT SELECT ON cap.schema_version TO {app};
                 GRANT SELECT, INSERT, UPDATE, DELETE ON cap.outbox, cap.outbox_state, cap.inbox, cap.inbox_state,
                    cap.attempts, cap.nodes TO {app}"
            ),
        )
        .await;
        let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
        let hear = move |number: i64| {
            let _ = tell.send(number);
            async {}
        };
        let cap = Cap::builder()
            .handlers(Handlers::none())
            .storage(storage(&ours).schema_owner(&dba))
            .transport(MemoryTransport::new())
            .configure(|options| options.default_group = "test".into())
            .subscribe("number", hear)
            .start()
            .await
            .unwrap();
        cap.publish("number", &7).await.unwrap();
        assert_eq!(tokio::time::timeout(Duration::from_secs(20), told.recv()).await.unwrap(), Some(7));
        cap.shutdown().await.unwrap();
    }

    /// The statements of docs/security.md, with roles of this test.
    #[tokio::test]
    async fn rights_in_the_docs_are_enough() {
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/security.md");
        let page = std::fs::read_to_string(page).unwrap();
        let database = OwnDatabase::new().await;
        let name = |role: &str| format!("{}_{role}", database.name);
        let blocks: Vec<String> = page
            .split("```sql\n")
            .skip(1)
            .map(|rest| rest.split("```").next().unwrap())
            .map(|sql| sql.replace("cap_owner", &name("owner")))
            .map(|sql| sql.replace("shop", &name("shop")).replace("support", &name("support")))
            .collect();
        assert_eq!(blocks.len(), 2);
        database.execute(&*blocks[0]).await;
        let schema = Postgres::schema_sql("cap").replace("CREATE SCHEMA IF NOT EXISTS \"cap\";", "");
        database.execute(format!("SET ROLE {}; {schema}; RESET ROLE", name("owner"))).await;
        database.execute(&*blocks[1]).await;
        let pool = |role: &str| {
            let options = (*database.pool.connect_options()).clone().username(&name(role));
            PgPool::connect_lazy_with(options.password("of your choice"))
        };
        // Enough for what a bus does: publish, receive, handle in a transaction, fail, retry, park and run again.
        let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
        let (fail, mut failed) = tokio::sync::mpsc::unbounded_channel();
        let cap = Cap::builder()
            .handlers(Handlers::none())
            .storage(storage(&pool("shop")).schema_owner(&name("owner")))
            .transport(MemoryTransport::new())
            .configure(|options| {
                options.default_group = "test".into();
                options.retry = RetryPolicy::fixed(Duration::from_millis(1), 2);
            })
            .on_failed(move |failure| {
                let _ = fail.send((failure.id, failure.error));
                async {}
            })
            .subscribe("number", move |number: i64, _tx: cap_postgres::PgTx| {
                let _ = tell.send(number);
                async move { if number < 0 { Err("negative") } else { Ok(()) } }
            })
            .start()
            .await
            .unwrap();
        cap.publish("number", &7).await.unwrap();
        let heard = async |told: &mut tokio::sync::mpsc::UnboundedReceiver<i64>| {
            tokio::time::timeout(Duration::from_secs(20), told.recv()).await.unwrap()
        };
        assert_eq!(heard(&mut told).await, Some(7));
        cap.publish("number", &-7).await.unwrap();
        assert_eq!((heard(&mut told).await, heard(&mut told).await), (Some(-7), Some(-7)));
        let (id, error) =
            tokio::time::timeout(Duration::from_secs(20), failed.recv()).await.unwrap().unwrap();
        assert_eq!(error, "negative");
        assert!(cap.messages().parked().edit_raw_and_rerun(id, &b"8"[..]).await.unwrap());
        assert_eq!(heard(&mut told).await, Some(8));
        cap.shutdown().await.unwrap();
        for view in ["published", "received"] {
            let count = AssertSqlSafe(format!("SELECT count(\"Content\") FROM cap.{view}"));
            let seen: i64 = sqlx::query_scalar(count).fetch_one(&pool("support")).await.unwrap();
            assert_eq!(seen, 2, "{view}");
        }
        let error = sqlx::raw_sql("DELETE FROM cap.outbox").execute(&pool("support")).await.unwrap_err();
        assert!(error.to_string().contains("permission denied"), "{error}");
    }

    #[tokio::test]
    async fn a_role_with_dml_only_says_how_its_dba_upgrades() {
        let database = OwnDatabase::new().await;
        let (dba, theirs) = database.role("dba").await;
        let (app, ours) = database.role("app").await;
        database.execute(format!("GRANT CREATE ON DATABASE {} TO {dba}", database.name)).await;
        let first = include_str!("../../src/schema/schema.sql").replace("{schema}", "cap");
        execute(&theirs, format!("CREATE SCHEMA cap; {first}")).await;
        execute(
            &theirs,
            format!("GRANT USAGE ON SCHEMA cap TO {app}; GRANT SELECT ON cap.schema_version TO {app}"),
        )
        .await;
        let storage = storage(&ours).schema_owner(&dba);
        let error = refused(&storage).await;
        assert!(error.contains("Postgres::schema_upgrade_sql(\"cap\", 0)"), "{error}");
        execute(&theirs, Postgres::schema_upgrade_sql("cap", 0)).await;
        storage.initialize().await.unwrap();
    }
}

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
