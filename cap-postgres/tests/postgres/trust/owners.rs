//! Schemas and tables of other roles.

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
    execute(&theirs, "GRANT USAGE ON SCHEMA cap TO public; GRANT ALL ON ALL TABLES IN SCHEMA cap TO public")
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
    let (id, error) = tokio::time::timeout(Duration::from_secs(20), failed.recv()).await.unwrap().unwrap();
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
    let first = include_str!("../../../src/schema/schema.sql").replace("{schema}", "cap");
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
