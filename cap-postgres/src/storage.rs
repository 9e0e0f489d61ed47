//! The store as the bus sees it.

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use cap_adapter::UnverifiedTransport;
use cap_adapter::error::{BoxError, StorageError};
use cap_adapter::storage::{
    ClaimRequest, Claimed, Claims, Expiry, Lease, LookedFor, NodeRequest, Owner, SharedKey, Side, StartMark,
    Storage, TransactionId, Wake, WriteBatch, WriteReport,
};
use sqlx::PgPool;
use sqlx::postgres::PgConnectOptions;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::connections::Connections;
use crate::credentials::{Credentials, Provider};
use crate::encoding::{self, Encoding};
use crate::error::{Fault, NAME};
use crate::insert::Writing;
use crate::schema::SchemaName;
use crate::session::Session;
use crate::source::Source;
use crate::statements::Statements;
use crate::trust::Trust;
use crate::{claim, crash, expiry, listen, nodes, schema, shared_key, tls, watch, write};

/// How many connections there are for what people look at and change. They are opened when they are needed.
const PEOPLES_CONNECTIONS: u32 = 2;

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
    source: Source,
    /// The application's pool was made here, of a URL, and so takes its credentials from the provider, too.
    owns_pool: bool,
    /// The direct address cannot be read.
    bad_direct: bool,
    schema: SchemaName,
    connections: u32,
    trust: Trust,
    unverified_transport: UnverifiedTransport,
    shared: Arc<OnceLock<Shared>>,
}

/// What is made when it is first needed, and then shared by all clones.
#[derive(Debug)]
pub(crate) struct Shared {
    bus: Connections,
    /// For what people look at and change, which may take long: it must not hold up the bus.
    people: Connections,
    /// One connection for health probes, which wait neither for the bus nor for people.
    probe: Connections,
    statements: Statements,
    channel: String,
    /// Known since the first start that reached the database.
    encoding: OnceLock<Encoding>,
    /// Where the bus's own connections lead.
    pub(crate) target: Target,
    /// Where the application's connections lead.
    application_target: Target,
    /// A connection has shown that its server is no longer the one to write to.
    server_left: Notify,
    /// The application's role may not call the schema's function that marks a message.
    misses_forget: AtomicBool,
}

impl Shared {
    /// Has everybody look for the right server: what is idle is closed, and whoever listens connects anew.
    pub(crate) fn leave_server(&self) {
        self.bus.close_idle();
        self.people.close_idle();
        self.probe.close_idle();
        self.server_left.notify_one();
    }
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

    /// A store in the database of a URL such as `postgres://user:password@host:5432/database`. Nothing is connected to
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

    fn shared(&self) -> &Shared {
        self.shared.get_or_init(|| Shared {
            bus: Connections::new(self.source.clone(), self.connections),
            people: Connections::new(self.source.clone(), PEOPLES_CONNECTIONS),
            probe: Connections::new(self.source.clone(), 1),
            statements: Statements::new(&self.schema),
            channel: self.schema.channel(),
            encoding: OnceLock::new(),
            target: Target::new(&self.source.options()),
            application_target: Target::new(&self.source.application.connect_options()),
            server_left: Notify::new(),
            misses_forget: AtomicBool::new(false),
        })
    }

    pub(crate) fn statements(&self) -> &Statements {
        &self.shared().statements
    }

    pub(crate) fn target(&self) -> &Target {
        &self.shared().target
    }

    /// Where the application's connections lead.
    pub(crate) fn application_target(&self) -> &Target {
        &self.shared().application_target
    }

    pub(crate) fn writing<'a>(&'a self, owner: &'a Owner) -> Writing<'a> {
        let shared = self.shared();
        Writing {
            statements: &shared.statements,
            owner,
            channel: &shared.channel,
            announces: true,
            encoding: self.encoding(),
            prepared: true,
        }
    }

    pub(crate) fn encoding(&self) -> &Encoding {
        self.shared().encoding.get().unwrap_or(&Encoding::Utf8)
    }

    /// As [`writing`](Self::writing), for a call that is not repeated if a text turns out not to fit the database's encoding.
    fn writing_once<'a>(&'a self, owner: &'a Owner) -> Writing<'a> {
        Writing { encoding: self.encoding().certain(), ..self.writing(owner) }
    }

    /// As [`writing`](Self::writing), on a connection of the application's: nothing is announced there, and behind a
    /// transaction pooler no statement may have a name, as the next one may find another client's under it.
    pub(crate) fn writing_within<'a>(&'a self, owner: &'a Owner) -> Writing<'a> {
        Writing { prepared: self.source.direct.is_none(), announces: false, ..self.writing_once(owner) }
    }

    /// The channel on which the bus announces work to its other nodes, by `NOTIFY`: it names the table, `outbox` or
    /// `inbox`.
    #[must_use]
    pub fn notification_channel(&self) -> &str {
        &self.shared().channel
    }

    pub(crate) fn source(&self) -> &Source {
        &self.source
    }

    /// Waits until a connection has shown that its server is no longer the one to write to.
    pub(crate) async fn server_left(&self) {
        self.shared().server_left.notified().await;
    }

    /// A connection of the application's has shown that its server is no longer the one to write to.
    pub(crate) fn leave_server(&self) {
        self.shared().leave_server();
    }

    /// Whether the application's role may call the schema's function that marks a message, as far as is known.
    pub(crate) fn has_forget(&self) -> bool {
        !self.shared().misses_forget.load(Ordering::Relaxed)
    }

    /// It may not.
    pub(crate) fn miss_forget(&self) {
        if !self.shared().misses_forget.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                "PgTx costs two round trips more: no EXECUTE right on the schema's function forget"
            );
        }
    }

    /// One of our connections. `operation` is what it is for, as errors name it: "claiming messages".
    pub(crate) async fn session(&self, operation: &'static str) -> Result<Session<'_>, StorageError> {
        let shared = self.shared();
        session_of(shared, &shared.bus, operation).await
    }

    /// One of the connections for people.
    pub(crate) async fn monitor_session(&self, operation: &'static str) -> Result<Session<'_>, StorageError> {
        let shared = self.shared();
        session_of(shared, &shared.people, operation).await
    }

    /// The connection for health probes.
    pub(crate) async fn probe_session(&self, operation: &'static str) -> Result<Session<'_>, StorageError> {
        let shared = self.shared();
        session_of(shared, &shared.probe, operation).await
    }
}

async fn session_of<'a>(
    shared: &'a Shared,
    connections: &'a Connections,
    operation: &'static str,
) -> Result<Session<'a>, StorageError> {
    match connections.take().await {
        Ok(taken) => Ok(Session::new(taken, operation, shared)),
        Err(fault) => Err(fault.into_error(operation, &shared.target)),
    }
}

/// The options of a URL, if it is one of PostgreSQL's. Of the scheme the driver would take any, and its own words may
/// quote a part of the URL, and so of a password.
fn parse(url: &str) -> Option<PgConnectOptions> {
    let known = url.starts_with("postgres://") || url.starts_with("postgresql://");
    known.then(|| url.parse().ok()).flatten()
}

fn bad_url() -> Fault {
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

impl Storage for Postgres {
    fn name(&self) -> &'static str {
        NAME
    }

    fn check(&self) -> Result<(), StorageError> {
        let checked = if self.bad_direct { Err(bad_url()) } else { self.schema.check() };
        let checked = checked
            .and_then(|()| tls::check(&self.source.options(), self.unverified_transport, self.target()));
        checked.map_err(|fault| fault.into_error("checking the settings", self.target()))
    }

    async fn initialize(&self) -> Result<(), StorageError> {
        let checked = self.source.check_sessions().await;
        checked.map_err(|fault| fault.into_error("checking the connections", self.target()))?;
        let mut session = self.session("preparing the schema").await?;
        session.run(|connection| schema::initialize(connection, &self.schema, &self.trust)).await?;
        let encoding: String = session
            .run(async |connection| {
                let ask = sqlx::query_scalar("SELECT pg_catalog.getdatabaseencoding()::text");
                Ok(ask.fetch_one(connection).await?)
            })
            .await?;
        let is_first = self.shared().encoding.set(Encoding::named(&encoding)).is_ok();
        if is_first && !matches!(self.encoding(), Encoding::Utf8) {
            tracing::warn!(
                encoding,
                "database encoding is not UTF8: messages with other ids or topics are parked; recreate it with UTF8"
            );
        }
        Ok(())
    }

    async fn check_names(&self, names: &[&str]) -> Result<(), StorageError> {
        if matches!(self.encoding(), Encoding::Utf8) {
            return Ok(());
        }
        let mut session = self.session("checking names").await?;
        session
            .run(async |connection| {
                for name in names.iter().filter(|name| !name.is_ascii()) {
                    if !encoding::fits(connection, name).await? {
                        return Err(Fault::Unusable(format!(
                            "the encoding of the database lacks characters of {name:?}: take another name, or a database \
                             with UTF8"
                        )));
                    }
                }
                Ok(())
            })
            .await
    }

    async fn join(&self, request: &NodeRequest) -> Result<u16, StorageError> {
        let mut session = self.session("claiming a worker id").await?;
        session.run(|connection| nodes::join(connection, self.statements(), &self.schema, request)).await
    }

    async fn keep_alive(&self, request: &NodeRequest, worker: u16) -> Result<bool, StorageError> {
        let mut session = self.session("renewing the worker id").await?;
        session.run(|connection| nodes::keep_alive(connection, self.statements(), request, worker)).await
    }

    async fn leave(&self, node: &str, worker: u16) -> Result<(), StorageError> {
        let mut session = self.session("giving the worker id back").await?;
        session.run(|connection| nodes::leave(connection, self.statements(), node, worker)).await
    }

    async fn shared_key(&self, fresh: &SharedKey) -> Result<Option<SharedKey>, StorageError> {
        let mut session = self.session("reading the key of this schema").await?;
        let key =
            session.run(|connection| shared_key::shared_key(connection, self.statements(), fresh)).await?;
        Ok(Some(key))
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
        session.run(|connection| claim::claim(connection, self.writing_once(owner), request)).await
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
        session.run(|connection| claim::claim_waiting(connection, self.writing_once(owner), leases)).await
    }

    async fn mark_started(&self, _owner: &Owner, marks: &[StartMark]) -> Result<Vec<bool>, StorageError> {
        let mut session = self.session("noting that a handler starts").await?;
        session.run(|connection| crash::mark_started(connection, self.statements(), marks)).await
    }

    async fn withdraw_crashes(&self, leases: &[Lease]) -> Result<(), StorageError> {
        let mut session = self.session("taking crashes back").await?;
        session.run(|connection| crash::withdraw_crashes(connection, self.statements(), leases)).await
    }

    async fn renew(&self, owner: &Owner, side: Side, leases: &[Lease]) -> Result<Vec<bool>, StorageError> {
        if leases.is_empty() {
            return Ok(Vec::new());
        }
        let mut session = self.session("renewing leases").await?;
        session.run(|connection| claim::renew(connection, self.statements(), owner, side, leases)).await
    }

    async fn look_for(
        &self,
        transactions: &[TransactionId],
        rows: &[i64],
    ) -> Result<LookedFor, StorageError> {
        let mut session = self.session("looking for committed messages").await?;
        session.run(|connection| watch::look_for(connection, self.statements(), transactions, rows)).await
    }

    async fn announce(&self, side: Side) -> Result<(), StorageError> {
        let mut session = self.session("announcing messages to other nodes").await?;
        session.run(|connection| watch::announce(connection, self.notification_channel(), side)).await
    }

    async fn delete_expired(&self, expiry: &Expiry) -> Result<(u64, u64), StorageError> {
        let mut session = self.session("deleting expired messages").await?;
        session.run(|connection| expiry::delete_all_expired(connection, self.statements(), expiry)).await
    }

    async fn listen(&self, wake: Wake, cancelled: CancellationToken) {
        listen::listen(self, &wake, &cancelled).await;
    }

    fn apart(&self) -> Option<Self> {
        // One connection, for which nobody else waits.
        Some(Self { connections: 1, shared: Arc::default(), ..self.clone() })
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
