//! Issue 9, row 16: a PostgreSQL with TLS, and whom the storage trusts.

use std::path::PathBuf;

use cap_core::UnverifiedTransport;
use cap_core::error::StorageErrorKind;
use cap_core::prelude::*;
use cap_core::storage::Storage as _;
use cap_postgres::Postgres;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{AssertSqlSafe, PgPool};

use crate::logging::Log;
use crate::private::Private;

/// A private server that speaks TLS, with a certificate for `localhost` of an authority that nobody else knows.
struct TlsServer {
    private: Private,
    /// Of the authority.
    root: PathBuf,
}

impl TlsServer {
    async fn start() -> Self {
        let private = Private::start(&["postgres"]).await;
        let mut authority = CertificateParams::new(Vec::new()).unwrap();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &authority).unwrap();
        let root = std::env::temp_dir().join(format!("cap-test-{:016x}.pem", fastrand::u64(..)));
        std::fs::write(&root, authority.pem()).unwrap();
        let admin = PgPool::connect(&private.urls[0]).await.unwrap();
        // The server writes them itself: they have to be its own, and the key readable for nobody else.
        for (file, text) in [("server.crt", certificate.pem()), ("server.key", key.serialize_pem())] {
            let lines = text.lines().map(|line| format!("('{line}')")).collect::<Vec<_>>().join(", ");
            let copy = format!("COPY (VALUES {lines}) TO PROGRAM 'umask 077; cat > {file}'");
            sqlx::raw_sql(AssertSqlSafe(copy)).execute(&admin).await.unwrap();
        }
        sqlx::raw_sql("ALTER SYSTEM SET ssl = on").execute(&admin).await.unwrap();
        sqlx::raw_sql("SELECT pg_reload_conf()").execute(&admin).await.unwrap();
        let server = Self { private, root };
        let encrypted = async {
            while PgPool::connect(&server.url("localhost", "require")).await.is_err() {
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(30), encrypted).await.unwrap();
        server
    }

    fn url(&self, host: &str, mode: &str) -> String {
        let url = self.private.urls[0].replace("127.0.0.1", host);
        assert!(url.contains(host), "{url}");
        format!("{url}?sslmode={mode}")
    }

    fn url_with_root(&self, host: &str, mode: &str) -> String {
        format!("{}&sslrootcert={}", self.url(host, mode), self.root.display())
    }
}

impl Drop for TlsServer {
    fn drop(&mut self) {
        drop(std::fs::remove_file(&self.root));
    }
}

fn storage(url: &str) -> Postgres {
    let options = PgPoolOptions::new().max_connections(2).acquire_timeout(std::time::Duration::from_secs(5));
    Postgres::new(options.connect_lazy(url).unwrap()).schema("cap").connections(2)
}

#[tokio::test]
async fn only_a_server_that_is_who_it_says_is_connected_to() {
    let server = TlsServer::start().await;
    let verified = server.url_with_root("localhost", "verify-full");
    storage(&verified).initialize().await.unwrap();
    // Each connection of ours is encrypted, through the pool's options and at an address of their own.
    let in_plain = PgPool::connect(&server.url("127.0.0.1", "disable")).await.unwrap();
    for storage in [storage(&verified), storage(&server.url("127.0.0.1", "disable")).direct(&verified)] {
        storage.check().unwrap();
        let builder = Cap::builder().handlers(Handlers::none()).storage(storage);
        let cap = builder.transport(cap_core::memory::MemoryTransport::new()).start().await.unwrap();
        cap.health().await;
        let ours: Vec<(String, bool)> = sqlx::query_as(
            "SELECT a.application_name, s.ssl FROM pg_stat_activity AS a JOIN pg_stat_ssl AS s USING (pid) \
             WHERE a.backend_type = 'client backend' AND a.application_name LIKE 'cap%'",
        )
        .fetch_all(&in_plain)
        .await
        .unwrap();
        assert!(!ours.is_empty() && ours.iter().all(|(_, encrypted)| *encrypted), "{ours:?}");
        cap.shutdown().await.unwrap();
    }

    for (url, reason) in [
        // The certificate is for another name.
        (server.url_with_root("127.0.0.1", "verify-full"), "not valid for name"),
        // The authority is known to nobody.
        (server.url("localhost", "verify-full"), "UnknownIssuer"),
    ] {
        let error = storage(&url).initialize().await.unwrap_err();
        assert_eq!(error.kind(), StorageErrorKind::Unusable, "{error}");
        assert!(error.to_string().contains(reason), "{error}");
    }
    // Who only verifies the authority takes any name.
    storage(&server.url_with_root("127.0.0.1", "verify-ca")).initialize().await.unwrap();
}

#[tokio::test]
async fn unencrypted_connection_to_another_host_is_logged() {
    for (mode, in_plain) in [
        ("disable", true),
        ("allow", true),
        ("prefer", true),
        ("require", false),
        ("verify-ca", false),
        ("verify-full", false),
    ] {
        let url = format!("postgres://u:s3cret@db.example/shop?sslmode={mode}");
        let options: PgConnectOptions = url.parse().unwrap();
        let storage = || Postgres::new(PgPoolOptions::new().connect_lazy_with(options.clone()));
        let (log, _guard) = Log::here();
        storage().check().unwrap();
        let warned = log.text();
        assert_eq!(warned.contains(" WARN ") && warned.contains("may be unencrypted"), in_plain, "{warned}");
        storage().unverified_transport(UnverifiedTransport::Accept).check().unwrap();
        let refused = storage().unverified_transport(UnverifiedTransport::Error).check();
        assert_eq!(refused.is_err(), in_plain, "{mode}");
        if let Err(error) = refused {
            assert_eq!(error.kind(), StorageErrorKind::Unusable);
            assert!(error.to_string().contains(&format!("sslmode={mode}")), "{error}");
        }
        assert_eq!(log.text(), warned, "accepted and refused without a word");
        assert!(!warned.contains("s3cret"), "{warned}");
    }
}
