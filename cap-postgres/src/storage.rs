//! The store as the bus sees it.

use std::any::Any;
use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use cap_core::UnverifiedTransport;
use cap_core::error::StorageError;
use cap_core::storage::{
    ClaimRequest, Claimed, Claims, Expiry, Lease, NodeRequest, Owner, Side, Storage, Wake, WriteBatch,
    WriteReport,
};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{ConnectOptions as _, PgPool};
use tokio_util::sync::CancellationToken;

use crate::encoding::Encoding;
use crate::error::{Fault, NAME};
use crate::insert::Writing;
use crate::schema::SchemaName;
use crate::session::Session;
use crate::statements::Statements;
use crate::trust::Trust;
use crate::{claim, expiry, listen, nodelay, nodes, schema, tls, write};

/// How long the bus waits for a connection.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);

/// How many connections there are for what people look at and change. They are opened when they are needed.
const PEOPLES_CONNECTIONS: u32 = 2;

/// What our connections set for themselves.
///
/// A statement that was prepared while a table was empty would keep a plan that scans it, until the next ANALYZE. Our
/// statements are made to be looked up in indexes, row by row and in order, and these settings leave the planner no
/// other way, whatever it believes about sizes. As the plan is then always the same, it is made once.
///
/// The search path keeps what other roles have made in `public` or elsewhere from taking the place of PostgreSQL's own
/// functions, operators and types.
const SETTINGS: [(&str, &str); 13] = [
    ("search_path", "pg_catalog, pg_temp"),
    ("enable_seqscan", "off"),
    ("enable_bitmapscan", "off"),
    ("enable_hashjoin", "off"),
    ("enable_mergejoin", "off"),
    ("enable_sort", "off"),
    ("plan_cache_mode", "force_generic_plan"),
    // The planner thinks that what it was forced to do is dear; compiling it would be.
    ("jit", "off"),
    ("default_transaction_isolation", "read committed"),
    ("statement_timeout", "30s"),
    ("lock_timeout", "30s"),
    ("idle_in_transaction_session_timeout", "60s"),
    ("client_min_messages", "warning"),
];

/// Stores messages in PostgreSQL (12 or newer), in a schema of its own.
///
/// The bus works on a few connections of its own, made with the options of the pool that it is given, and with new ones
/// when the pool gets new ones: handlers that use up the application's pool cannot starve it. The application's pool
/// serves [`PgTx`](crate::PgTx). The server must
/// be reached directly or through a pooler that keeps sessions apart, as settings, prepared statements and `LISTEN`
/// belong to a session.
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
    application: PgPool,
    schema: SchemaName,
    connections: u32,
    trust: Trust,
    unverified_transport: UnverifiedTransport,
    shared: Arc<OnceLock<Shared>>,
}

/// What is made when it is first needed, and then shared by all clones.
struct Shared {
    bus: PgPool,
    /// A pool for what people look at and change, which may take long: it must not hold up the bus.
    people: PgPool,
    /// One connection for health probes, which wait neither for the bus nor for people.
    probe: PgPool,
    /// The application's options as our pools have them.
    followed: Mutex<Arc<PgConnectOptions>>,
    statements: Statements,
    channel: String,
    target: Target,
    /// Known since the first start that reached the database.
    encoding: OnceLock<Encoding>,
}

/// Which database it is, without a secret.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    host: String,
    port: u16,
    database: Option<String>,
}

impl Target {
    fn new(options: &PgConnectOptions) -> Self {
        let host = match options.get_socket() {
            Some(socket) => socket.display().to_string(),
            None => options.get_host().to_owned(),
        };
        Self { host, port: options.get_port(), database: options.get_database().map(str::to_owned) }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)?;
        match &self.database {
            Some(database) => write!(f, "/{database}"),
            None => Ok(()),
        }
    }
}

impl Postgres {
    /// A store in the database that this pool connects to, in the schema `cap`.
    #[must_use]
    pub fn new(pool: PgPool) -> Self {
        Self {
            application: pool,
            schema: SchemaName::new("cap"),
            connections: 4,
            trust: Trust::default(),
            unverified_transport: UnverifiedTransport::default(),
            shared: Arc::default(),
        }
    }

    /// A store in the database of a URL such as `postgres://user:password@host:5432/database`. Nothing is connected to
    /// yet, but it must be called on a tokio runtime.
    ///
    /// # Errors
    ///
    /// Of the kind `Unusable`, when the text is not such a URL. The error does not repeat the URL, since that may hold
    /// a password.
    pub fn connect_lazy(url: &str) -> Result<Self, StorageError> {
        // The driver's words may quote a part of the URL, and so of a password. Of the scheme it takes any.
        let known = url.starts_with("postgres://") || url.starts_with("postgresql://");
        let pool = known.then(|| PgPool::connect_lazy(url).ok()).flatten();
        let pool = pool.ok_or_else(|| {
            let reason = "the URL cannot be read: it looks like postgres://user:password@host:5432/database, with the \
                          special characters in user and password written as %XX";
            Fault::Unusable(reason.to_owned()).into_error("reading the connection URL", &"")
        })?;
        Ok(Self::new(pool))
    }

    /// The schema that the tables are in; `cap` by default. Any name that PostgreSQL can have will do, upper case,
    /// blanks and quotes included.
    #[must_use]
    pub fn schema(self, name: &str) -> Self {
        Self { schema: SchemaName::new(name), shared: Arc::default(), ..self }
    }

    /// How many connections the bus opens for itself, beside one to listen on, up to two for
    /// what people look at and change, and one once its health is asked for; 4 by default, at least 1.
    #[must_use]
    pub fn connections(self, connections: u32) -> Self {
        Self { connections: connections.max(1), shared: Arc::default(), ..self }
    }

    /// What a start does about a connection to another host whose `sslmode` is `disable`, `allow` or `prefer`, under which
    /// whoever is on the way reads the password and every message: a WARN by default. `require` insists on encryption,
    /// `verify-ca` and `verify-full` also on the server's certificate. A Unix socket and this very machine are never
    /// concerned.
    #[must_use]
    pub fn unverified_transport(self, treatment: UnverifiedTransport) -> Self {
        Self { unverified_transport: treatment, ..self }
    }

    /// Accepts a role as the owner of the schema and of what is in it; may be said more than once. The current role and
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
    /// constraint, an index, a child table, or the column of a default; may be said more than once.
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
        SchemaName::new(schema).sql()
    }

    /// The SQL that brings a schema of version 1.`minor` to this version, for those who apply it themselves: a role that
    /// may use the tables and not change them cannot. Nothing but comments and settings if it is up to date.
    #[must_use]
    pub fn schema_upgrade_sql(schema: &str, minor: u32) -> String {
        SchemaName::new(schema).upgrade_sql(usize::try_from(minor).unwrap_or(usize::MAX))
    }

    /// The application's own pool, as given.
    #[must_use]
    pub fn pool(&self) -> &PgPool {
        &self.application
    }

    fn shared(&self) -> &Shared {
        self.shared.get_or_init(|| {
            let options = self.application.connect_options();
            Shared {
                bus: own_pool(&options, self.connections),
                people: own_pool(&options, PEOPLES_CONNECTIONS),
                probe: own_pool(&options, 1),
                statements: Statements::new(&self.schema),
                channel: self.schema.channel(),
                encoding: OnceLock::new(),
                target: Target::new(&options),
                followed: Mutex::new(options),
            }
        })
    }

    pub(crate) fn statements(&self) -> &Statements {
        &self.shared().statements
    }

    pub(crate) fn target(&self) -> &Target {
        &self.shared().target
    }

    pub(crate) fn writing<'a>(&'a self, owner: &'a Owner) -> Writing<'a> {
        let shared = self.shared();
        Writing { statements: &shared.statements, owner, channel: &shared.channel, encoding: self.encoding() }
    }

    pub(crate) fn encoding(&self) -> Encoding {
        self.shared().encoding.get().copied().unwrap_or_default()
    }

    /// The channel on which the bus announces work to its other nodes, by `NOTIFY`: it names the table, `outbox` or
    /// `inbox`.
    #[must_use]
    pub fn notification_channel(&self) -> &str {
        &self.shared().channel
    }

    #[cfg(test)]
    pub(crate) fn bus(&self) -> &PgPool {
        &self.shared().bus
    }

    /// A pool for one connection to listen on. Each has its own, as one that is lost keeps its place for a long time: the
    /// driver waits for an answer on it before it is closed.
    pub(crate) fn listener_pool(&self) -> PgPool {
        own_pool(&self.application.connect_options(), 1)
    }

    /// One of our connections. `operation` is what it is for, as errors name it: "claiming messages".
    pub(crate) async fn session(&self, operation: &'static str) -> Result<Session<'_>, StorageError> {
        let shared = self.shared();
        self.session_of(shared, &shared.bus, operation).await
    }

    /// One of the connections for people.
    pub(crate) async fn monitor_session(&self, operation: &'static str) -> Result<Session<'_>, StorageError> {
        let shared = self.shared();
        self.session_of(shared, &shared.people, operation).await
    }

    /// The connection for health probes.
    pub(crate) async fn probe_session(&self, operation: &'static str) -> Result<Session<'_>, StorageError> {
        let shared = self.shared();
        self.session_of(shared, &shared.probe, operation).await
    }

    async fn session_of<'a>(
        &self,
        shared: &'a Shared,
        pool: &PgPool,
        operation: &'static str,
    ) -> Result<Session<'a>, StorageError> {
        self.follow(shared);
        let connection = pool.acquire().await;
        let connection =
            connection.map_err(|error| Fault::from(error).into_error(operation, &shared.target))?;
        Ok(Session::new(connection, operation, &shared.target))
    }

    /// Connects as the application does from now on: its password may have been changed since.
    fn follow(&self, shared: &Shared) {
        let options = self.application.connect_options();
        // Nothing panics while it is locked.
        let mut followed = shared.followed.lock().unwrap_or_else(PoisonError::into_inner);
        if !Arc::ptr_eq(&followed, &options) {
            for pool in [&shared.bus, &shared.people, &shared.probe] {
                pool.set_connect_options(own_options(&options));
            }
            *followed = options;
        }
    }
}

/// The application's options, with our settings.
fn own_options(options: &PgConnectOptions) -> PgConnectOptions {
    options.clone().application_name("cap").options(SETTINGS).disable_statement_logging()
}

/// A pool of ours, of which nothing is connected yet.
fn own_pool(options: &PgConnectOptions, connections: u32) -> PgPool {
    let port = options.get_port();
    PgPoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        // A ping before each use would double the round trips; one after a rest finds what died.
        .test_before_acquire(false)
        .before_acquire(|connection, meta| {
            Box::pin(async move {
                if meta.idle_for > Duration::from_secs(10) {
                    sqlx::Connection::ping(connection).await?;
                }
                Ok(true)
            })
        })
        .after_connect(move |_, _| {
            Box::pin(async move {
                nodelay::set_on_connections_to(port);
                Ok(())
            })
        })
        .connect_lazy_with(own_options(options))
}

impl fmt::Debug for Postgres {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Postgres")
            .field("schema", &self.schema)
            .field("connections", &self.connections)
            .finish_non_exhaustive()
    }
}

impl Storage for Postgres {
    fn name(&self) -> &'static str {
        NAME
    }

    fn check(&self) -> Result<(), StorageError> {
        let checked = self.schema.check().and_then(|()| {
            tls::check(&self.application.connect_options(), self.unverified_transport, self.target())
        });
        checked.map_err(|fault| fault.into_error("checking the settings", self.target()))
    }

    async fn initialize(&self) -> Result<(), StorageError> {
        let mut session = self.session("preparing the schema").await?;
        session.run(|connection| schema::initialize(connection, &self.schema, &self.trust)).await?;
        let encoding: String = session
            .run(async |connection| {
                let ask = sqlx::query_scalar("SELECT pg_catalog.getdatabaseencoding()::text");
                Ok(ask.fetch_one(connection).await?)
            })
            .await?;
        let known = Encoding::named(&encoding);
        if self.shared().encoding.set(known).is_ok() && known != Encoding::Utf8 {
            tracing::warn!(
                encoding,
                "database encoding is not UTF8: messages with other ids or topics are parked; recreate it with UTF8"
            );
        }
        Ok(())
    }

    async fn join(&self, request: &NodeRequest) -> Result<u16, StorageError> {
        let mut session = self.session("claiming a worker number").await?;
        session.run(|connection| nodes::join(connection, self.statements(), &self.schema, request)).await
    }

    async fn keep_alive(&self, request: &NodeRequest, worker: u16) -> Result<bool, StorageError> {
        let mut session = self.session("renewing the worker number").await?;
        session.run(|connection| nodes::keep_alive(connection, self.statements(), request, worker)).await
    }

    async fn leave(&self, node: &str, worker: u16) -> Result<(), StorageError> {
        let mut session = self.session("giving the worker number back").await?;
        session.run(|connection| nodes::leave(connection, self.statements(), node, worker)).await
    }

    async fn write(&self, owner: &Owner, batch: &WriteBatch) -> Result<WriteReport, StorageError> {
        if batch.is_empty() {
            return Ok(WriteReport::default());
        }
        let mut session = self.session("writing messages").await?;
        session.run(|connection| write::write(connection, self.writing(owner), batch)).await
    }

    async fn claim(&self, owner: &Owner, request: &ClaimRequest) -> Result<Claims, StorageError> {
        let mut session = self.session("claiming messages").await?;
        session.run(|connection| claim::claim(connection, self.writing(owner), request)).await
    }

    async fn claim_waiting(
        &self,
        owner: &Owner,
        leases: &[Lease],
    ) -> Result<Vec<Option<Claimed>>, StorageError> {
        if leases.is_empty() {
            return Ok(Vec::new());
        }
        let mut session = self.session("claiming messages that the broker has kept").await?;
        session.run(|connection| claim::claim_waiting(connection, self.writing(owner), leases)).await
    }

    async fn renew(&self, owner: &Owner, side: Side, leases: &[Lease]) -> Result<Vec<bool>, StorageError> {
        if leases.is_empty() {
            return Ok(Vec::new());
        }
        let mut session = self.session("renewing leases").await?;
        session.run(|connection| claim::renew(connection, self.statements(), owner, side, leases)).await
    }

    async fn delete_expired(&self, expiry: &Expiry) -> Result<(u64, u64), StorageError> {
        let mut session = self.session("deleting expired messages").await?;
        session.run(|connection| expiry::delete_all_expired(connection, self.statements(), expiry)).await
    }

    async fn listen(&self, wake: Wake, cancelled: CancellationToken) {
        listen::listen(self, &wake, &cancelled).await;
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
