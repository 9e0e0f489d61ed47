//! The storage and its settings.

use std::fmt;
use std::future::Future;
use std::sync::{Arc, OnceLock};

use cap_adapter::UnverifiedTransport;
use cap_adapter::error::{BoxError, StorageError};
use cap_adapter::storage::Owner;
use sqlx::PgPool;
use sqlx::postgres::PgConnectOptions;

use crate::connections::credentials::{Credentials, Provider};
use crate::connections::server::Purpose;
use crate::connections::session::Session;
use crate::connections::source::Source;
use crate::database::error::Fault;
use crate::database::schema_name::SchemaName;
use crate::database::writing::Writing;
use crate::schema::creation::{self, schema_sql, upgrade_sql};
use crate::schema::ownership::Trust;
use crate::storage::shared::Shared;

/// Stores messages in PostgreSQL (12 or newer), in a schema of its own.
///
/// The bus works on a few connections of its own, made with the options of the pool that it is given, and with new ones
/// when the pool gets new ones: handlers that use up the application's pool cannot starve it. The application's pool
/// serves [`PgTx`](crate::PgTx). The bus's own connections reach the server directly or through a pooler that keeps
/// sessions apart, as settings, prepared statements and `LISTEN` belong to a session; where the application's pool is
/// behind one that does not, give the bus an address of its own with [`direct`](Self::direct).
///
/// Nothing is connected to before the bus starts. Clones share their connections.
///
/// ```
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use cap_postgres::Postgres;
///
/// let pool = sqlx::PgPool::connect_lazy("postgres://shop@localhost/shop")?;
/// let storage = Postgres::new(pool).schema("shop_events").connections(8);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Postgres {
    pub(crate) source: Source,
    /// The application's pool was made here, of a URL, and so takes its credentials from the provider, too.
    owns_pool: bool,
    /// The direct address cannot be read.
    pub(crate) bad_direct: bool,
    pub(crate) schema: SchemaName,
    connections: u32,
    pub(crate) trust: Trust,
    pub(crate) unverified_transport: UnverifiedTransport,
    shared: Arc<OnceLock<Shared>>,
}

impl Postgres {
    /// A storage in the database that this pool connects to, in the schema `cap`.
    #[must_use]
    pub fn new(pool: PgPool) -> Self {
        Self {
            source: Source { application: pool, direct: None, provider: None },
            owns_pool: false,
            bad_direct: false,
            schema: SchemaName::new("cap"),
            connections: 4,
            trust: Trust::default(),
            unverified_transport: UnverifiedTransport::default(),
            shared: Arc::default(),
        }
    }

    /// A storage in the database of a URL such as `postgres://user:password@host:5432/database`. Nothing is connected to
    /// yet, but it must be called on a tokio runtime.
    ///
    /// # Errors
    ///
    /// Of the kind `Unusable`, when the text is not such a URL. The error does not repeat the URL, since that may hold
    /// a password.
    pub fn connect_lazy(url: &str) -> Result<Self, StorageError> {
        let options = parse(url);
        let options = options.ok_or_else(|| bad_url().into_error("reading the connection URL", &""))?;
        Ok(Self { owns_pool: true, ..Self::new(PgPool::connect_lazy_with(options)) })
    }

    /// Where the bus's own connections and its `LISTEN` go, if not where the application's pool does: the server itself,
    /// or a pooler in session mode. For deployments whose application is behind a pooler in *transaction* mode, such as
    /// `PgBouncer`'s. `within(..)`, [`begin`](crate::begin) and [`PgTx`](crate::PgTx) go on using the application's pool,
    /// on which cap then names none of its prepared statements; publish in transactions only, since outside of one such a
    /// pooler may separate a statement from its parameters. Both addresses must lead to the same database.
    ///
    /// A text that is not such a URL is an error at the start, which does not repeat it.
    ///
    /// ```
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// use cap_postgres::Postgres;
    ///
    /// let pool = sqlx::PgPool::connect_lazy("postgres://shop@pgbouncer:6432/shop")?;
    /// let storage = Postgres::new(pool).direct("postgres://shop@db:5432/shop");
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn direct(mut self, url: &str) -> Self {
        let options = parse(url);
        self.bad_direct = options.is_none();
        self.source.direct = options.map(Arc::new);
        Self { shared: Arc::default(), ..self }
    }

    /// Asks for the credentials of each connection as it is opened, such as a token that is good for some minutes: of the
    /// bus's own connections, those to a [`direct`](Self::direct) address included, and, after
    /// [`connect_lazy`](Self::connect_lazy), of those for handlers' transactions. A pool that was made by the application
    /// is the application's to keep up to date, with `set_connect_options`; without a provider the bus follows it.
    ///
    /// It is called on the bus's runtime and on the one that renews leases, which goes on while the other is blocked.
    ///
    /// A provider that fails, panics, or takes longer than five seconds is an outage of the database: it is asked again.
    ///
    /// ```
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// use cap_postgres::{Credentials, Postgres};
    ///
    /// async fn token() -> Result<Credentials, std::io::Error> {
    ///     let token = std::fs::read_to_string("/run/secrets/database-token")?;
    ///     Ok(Credentials::password(token.trim()))
    /// }
    /// let storage = Postgres::connect_lazy("postgres://shop@localhost/shop")?.credentials(token);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn credentials<F, Fut, E>(mut self, provider: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Credentials, E>> + Send + 'static,
        E: Into<BoxError>,
    {
        self.source.provider = Some(Provider::new(provider));
        Self { shared: Arc::default(), ..self }
    }

    /// As [`refresh_pool`](Self::refresh_pool), if it is this pool.
    pub(crate) async fn refresh_if_own(&self, pool: &PgPool) -> Result<(), Fault> {
        // Clones of a pool share their options.
        if self.owns_pool && Arc::ptr_eq(&pool.connect_options(), &self.pool().connect_options()) {
            return self.refresh_pool().await;
        }
        Ok(())
    }

    /// The schema that the tables are in; `cap` by default. Any name that PostgreSQL can have will do, upper case,
    /// blanks and quotes included.
    #[must_use]
    pub fn schema(self, name: &str) -> Self {
        Self { schema: SchemaName::new(name), shared: Arc::default(), ..self }
    }

    /// How many connections the bus opens for itself, beside one to listen on, one to renew leases on, up to two for
    /// what operators look at and change, and one once its health is asked for; 4 by default, at least 1.
    #[must_use]
    pub fn connections(self, connections: u32) -> Self {
        Self { connections: connections.max(1), shared: Arc::default(), ..self }
    }

    /// What a start does about a connection to another host whose `sslmode` is `disable`, `allow` or `prefer`, under which
    /// the password and every message can be read on the way: a WARN by default. `require` insists on encryption,
    /// `verify-ca` and `verify-full` also on the server's certificate. A Unix socket and this very machine are never
    /// concerned.
    #[must_use]
    pub fn unverified_transport(self, treatment: UnverifiedTransport) -> Self {
        Self { unverified_transport: treatment, ..self }
    }

    /// Accepts a role as the owner of the schema and of what is in it; may be called more than once. The current role and
    /// those it belongs to, the owner of the database and superusers are accepted anyway.
    ///
    /// A start on a schema of anybody else fails: its owner could read and change every message, and have code run with
    /// the rights of this service.
    #[must_use]
    pub fn schema_owner(mut self, role: &str) -> Self {
        self.trust.owners.push(role.to_owned());
        self
    }

    /// Accepts by its name what is attached to the tables and is not part of the schema: a trigger, a rule, a policy, a
    /// constraint, an index, a child table, or the column of a default; may be called more than once.
    ///
    /// A start on tables with anything else attached fails and names it. On the bus's own connections a trigger runs with
    /// the search path `pg_catalog, pg_temp`: it has to name the schemas that it uses.
    #[must_use]
    pub fn allow(mut self, name: &str) -> Self {
        self.trust.allowed.push(name.to_owned());
        self
    }

    /// The SQL that creates the tables in this schema, for those who apply it themselves. A start on a schema made with
    /// it needs no right to create anything.
    #[must_use]
    pub fn schema_sql(schema: &str) -> String {
        schema_sql(&SchemaName::new(schema))
    }

    /// The SQL that brings a schema of version 1.`minor` to this version, for those who apply it themselves: a role that
    /// may use the tables and not change them cannot. Nothing but comments and settings if it is up to date.
    #[must_use]
    pub fn schema_upgrade_sql(schema: &str, minor: u32) -> String {
        upgrade_sql(&SchemaName::new(schema), usize::try_from(minor).unwrap_or(usize::MAX))
    }

    /// The version of the schema that this version of cap needs, as major and minor. A start creates it or upgrades to it.
    pub const SCHEMA_VERSION: (i32, i32) = (creation::MAJOR, creation::MINOR);

    /// The version of the schema in the database, as major and minor; `None` if there is none. It changes nothing.
    ///
    /// # Errors
    ///
    /// A database that is unreachable, and a schema that this version of cap cannot use: of another major version, of an
    /// owner that is not trusted, or with the tables of .NET CAP.
    pub async fn schema_version(&self) -> Result<Option<(i32, i32)>, StorageError> {
        let mut session = self.session(Purpose::Operators, "reading the version of the schema").await?;
        session.run(|connection| creation::version(connection, &self.schema, &self.trust)).await
    }

    /// The application's own pool, as given, or as made by [`connect_lazy`](Self::connect_lazy).
    #[must_use]
    pub fn pool(&self) -> &PgPool {
        &self.source.application
    }

    /// Brings the credentials of the pool that was made here up to date, if a connection has to be opened.
    pub(crate) async fn refresh_pool(&self) -> Result<(), Fault> {
        let pool = self.pool();
        if let Some(provider) =
            self.source.provider.as_ref().filter(|_| self.owns_pool && pool.num_idle() == 0)
        {
            let options = provider.apply((*pool.connect_options()).clone()).await?;
            pool.set_connect_options(options);
        }
        Ok(())
    }

    /// The channel on which the bus announces work to its other nodes, by `NOTIFY`: it names the table, `outbox` or
    /// `inbox`.
    #[must_use]
    pub fn notification_channel(&self) -> &str {
        &self.shared().channel
    }

    pub(crate) fn shared(&self) -> &Shared {
        self.shared.get_or_init(|| Shared::new(&self.source, self.connections, &self.schema))
    }

    /// What all statements of a call on our own connections have in common.
    pub(crate) fn writing<'a>(&'a self, owner: &'a Owner) -> Writing<'a> {
        let shared = self.shared();
        let encoding = shared.encoding();
        Writing { owner, channel: &shared.channel, announces: true, encoding, prepared: true }
    }

    /// As [`writing`](Self::writing), for a call that is not repeated if a text turns out not to fit the database's encoding.
    pub(crate) fn writing_once<'a>(&'a self, owner: &'a Owner) -> Writing<'a> {
        Writing { encoding: self.shared().encoding().certain(), ..self.writing(owner) }
    }

    /// As [`writing`](Self::writing), on a connection of the application: nothing is announced there, and behind a
    /// transaction pooler no statement may have a name, as the next one may find another client's under it.
    pub(crate) fn writing_within<'a>(&'a self, owner: &'a Owner) -> Writing<'a> {
        Writing { prepared: self.source.direct.is_none(), announces: false, ..self.writing_once(owner) }
    }

    /// One of our connections. `operation` is what it is for, as errors name it: "claiming messages".
    pub(crate) async fn session(
        &self,
        purpose: Purpose,
        operation: &'static str,
    ) -> Result<Session<'_>, StorageError> {
        Session::open(&self.shared().server, purpose, operation).await
    }

    /// The same storage on one connection of its own, for which no other caller waits.
    pub(crate) fn on_own_connection(&self) -> Self {
        Self { connections: 1, shared: Arc::default(), ..self.clone() }
    }
}

/// The options of a URL, if it is one of PostgreSQL's. Of the scheme the driver would take any, and its own errors may
/// quote a part of the URL, and so of a password.
fn parse(url: &str) -> Option<PgConnectOptions> {
    let known = url.starts_with("postgres://") || url.starts_with("postgresql://");
    known.then(|| url.parse().ok()).flatten()
}

pub(crate) fn bad_url() -> Fault {
    let reason = "the URL cannot be read: it looks like postgres://user:password@host:5432/database, with the special \
                  characters in user and password written as %XX";
    Fault::Unusable(reason.to_owned())
}

impl fmt::Debug for Postgres {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Postgres")
            .field("schema", &self.schema)
            .field("connections", &self.connections)
            .finish_non_exhaustive()
    }
}
