//! Credentials that change while the bus runs (issue 8, row 7).

use std::sync::{Arc, Mutex};
use std::time::Duration;

use cap_core::error::StorageErrorKind;
use cap_core::prelude::*;
use cap_core::storage::Storage as _;
use cap_postgres::{Credentials, PgTx, Postgres};
use sqlx::PgPool;
use sqlx::postgres::PgConnectOptions;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::support::{Database, url};

const LIMIT: Duration = Duration::from_secs(60);

/// The URL of the tests with a user that is not there.
fn nobodys_url() -> String {
    let (scheme, rest) = url().split_once("://").map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
    let place = rest.rsplit_once('@').map_or(rest.clone(), |(_, place)| place.to_owned());
    format!("{scheme}://cap_no_such_role@{place}")
}

async fn whoami(tx: &mut PgTx) -> String {
    sqlx::query_scalar("SELECT session_user::text").fetch_one(&mut **tx).await.unwrap()
}

/// Two roles, of which one follows the other: each is the only one that may log in.
struct Roles {
    names: [String; 2],
    database: Database,
}

impl Roles {
    async fn new() -> Self {
        let database = Database::new().await;
        let names = ["one", "two"].map(|name| format!("{}_{name}", database.schema));
        for name in &names {
            database
                .execute(&format!("CREATE ROLE {name} NOLOGIN SUPERUSER PASSWORD 'secret-of-{name}'"))
                .await;
        }
        Self { names, database }
    }

    async fn let_in(&self, which: usize) {
        let (new, old) = (&self.names[which], &self.names[1 - which]);
        self.database
            .execute(&format!(
                "ALTER ROLE {new} LOGIN; ALTER ROLE {old} NOLOGIN;
                 SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{old}'"
            ))
            .await;
    }

    async fn drop(self) {
        for name in &self.names {
            self.database.execute(&format!("DROP ROLE {name}")).await;
        }
    }
}

#[tokio::test]
async fn provider_is_asked_at_each_connect() {
    for direct in [false, true] {
        let roles = Roles::new().await;
        roles.let_in(0).await;
        let current = Arc::new(Mutex::new(roles.names[0].clone()));
        let asked = Arc::clone(&current);
        let provider = move || {
            let name = asked.lock().unwrap().clone();
            async move { Ok::<_, std::io::Error>(Credentials::new(&name, format!("secret-of-{name}"))) }
        };
        let storage = if direct {
            Postgres::new(roles.database.pool.clone()).direct(&nobodys_url())
        } else {
            Postgres::connect_lazy(&nobodys_url()).unwrap()
        };
        let storage = storage.credentials(provider).schema(&roles.database.schema);
        let pool = storage.pool().clone();
        let (done, mut seen) = mpsc::unbounded_channel();
        let handler = move |_n: i64, mut tx: PgTx| {
            let done = done.clone();
            async move {
                let _ = done.send(whoami(&mut tx).await);
            }
        };
        let cap = Cap::builder()
            .handlers(Handlers::none())
            .storage(storage)
            .transport(MemoryTransport::new())
            .configure(|options| options.default_group = "books".into())
            .subscribe("book", handler)
            .start()
            .await
            .unwrap();
        for (which, name) in roles.names.clone().into_iter().enumerate() {
            if which == 1 {
                current.lock().unwrap().clone_from(&name);
                roles.let_in(1).await;
            }
            timeout(LIMIT, cap.publish("book", &1_i64)).await.unwrap().unwrap();
            let seen = timeout(LIMIT, seen.recv()).await.unwrap().unwrap();
            if !direct {
                assert_eq!(seen, name, "a handler's transaction");
                let mut tx = timeout(LIMIT, cap_postgres::begin(&cap, &pool)).await.unwrap().unwrap();
                let who: String =
                    sqlx::query_scalar("SELECT session_user::text").fetch_one(&mut *tx).await.unwrap();
                assert_eq!(who, name);
            }
            let ours = format!(
                "SELECT count(*) FROM pg_stat_activity WHERE usename = '{name}' AND application_name = 'cap'"
            );
            assert!(roles.database.count(&ours).await > 0, "the bus's own connections");
        }
        cap.shutdown().await.unwrap();
        if !direct {
            pool.close().await;
        }
        drop(cap);
        roles
            .database
            .execute(&format!(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename IN ('{}', '{}')",
                roles.names[0], roles.names[1]
            ))
            .await;
        roles.drop().await;
    }
}

#[tokio::test]
async fn provider_that_fails_panics_or_hangs_is_an_outage() {
    let storage = || Postgres::connect_lazy(&url()).unwrap();
    let failing = storage().credentials(|| async { Err::<Credentials, _>("vault is sealed") });
    let panicking =
        storage().credentials(|| async { if true { panic!("hunter2") } else { Err("unreachable") } });
    let hanging =
        storage().credentials(|| async { std::future::pending::<Result<Credentials, String>>().await });
    for (storage, text) in [
        (failing, "provider failed: vault is sealed"),
        (panicking, "provider panicked"),
        (hanging, "no answer within 5s"),
    ] {
        let error = timeout(LIMIT, storage.initialize()).await.unwrap().unwrap_err();
        assert_eq!(error.kind(), StorageErrorKind::Unavailable);
        assert!(error.to_string().contains(text) && !error.to_string().contains("hunter2"), "{error}");
    }
    assert!(!format!("{:?}", Credentials::new("me", "hunter2")).contains("hunter2"));
}

/// Without a provider the bus follows its pool, as ever.
#[tokio::test]
async fn without_a_provider_the_pools_options_are_followed() {
    let roles = Roles::new().await;
    roles.let_in(0).await;
    let options: PgConnectOptions = url().parse().unwrap();
    let as_role = |name: &str| options.clone().username(name).password(&format!("secret-of-{name}"));
    let pool = PgPool::connect_lazy_with(as_role(&roles.names[0]));
    let storage = Postgres::new(pool.clone()).schema(&roles.database.schema);
    storage.initialize().await.unwrap();
    pool.set_connect_options(as_role(&roles.names[1]));
    roles.let_in(1).await;
    let batch =
        cap_core::storage::WriteBatch { outgoing: vec![crate::support::outgoing(1)], ..Default::default() };
    let mut tries = 0;
    while let Err(error) = storage.write(&crate::support::owner("a"), &batch).await {
        assert!(error.is_unavailable(), "{error}");
        tries += 1;
        assert!(tries < 5, "{error}");
    }
    drop(storage);
    roles
        .database
        .execute(&format!(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{}'",
            roles.names[1]
        ))
        .await;
    roles.drop().await;
}
