//! Opens the bus's own connections: with the application's options or to a direct address, with fresh credentials, and with
//! the settings that our statements need.

use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _, PgConnection, PgPool, Row as _};
use tokio::time::timeout;

use crate::connections::credentials::Provider;
use crate::connections::nodelay;
use crate::database::error::{Fault, NEEDS_SESSIONS, is_database_error};

/// How long it may take to connect.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The settings of our connections.
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
    // The planner estimates a high cost for what it was forced to do, and would compile it, which costs more.
    ("jit", "off"),
    ("default_transaction_isolation", "read committed"),
    ("statement_timeout", "30s"),
    ("lock_timeout", "30s"),
    ("idle_in_transaction_session_timeout", "60s"),
    ("client_min_messages", "warning"),
];

/// How often two sessions are compared. A pooler that hands one server connection to both is found at the first or second
/// comparison unless others keep it busy.
const COMPARISONS: usize = 6;

/// Makes connections for the bus. Clones make the same.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    pub(crate) application: PgPool,
    /// Where the bus connects, if it is not where the application does.
    pub(crate) direct: Option<Arc<PgConnectOptions>>,
    pub(crate) provider: Option<Provider>,
}

impl Source {
    /// The options to connect with, without the provider's credentials.
    pub(crate) fn options(&self) -> Arc<PgConnectOptions> {
        self.direct.clone().unwrap_or_else(|| self.application.connect_options())
    }

    /// The options to connect with, with the provider's current credentials.
    pub(crate) async fn fresh_options(&self) -> Result<PgConnectOptions, Fault> {
        let options = (*self.options()).clone();
        match &self.provider {
            Some(provider) => provider.apply(options).await,
            None => Ok(options),
        }
    }

    /// The options of a connection of ours.
    pub(crate) async fn own_options(&self) -> Result<PgConnectOptions, Fault> {
        let options = self.fresh_options().await?;
        // Poolers refuse startup parameters that they do not know, so there are as few as can be. The application may
        // keep no prepared statements; ours are few, and used all the time.
        Ok(options
            .application_name("cap")
            .extra_float_digits(None)
            .statement_cache_capacity(200)
            .disable_statement_logging())
    }

    /// A new connection with our settings, on a server that takes writes.
    pub(crate) async fn connect(&self) -> Result<PgConnection, Fault> {
        let mut connection = self.connect_bare().await?;
        let prepared = timeout(CONNECT_TIMEOUT, apply_settings(&mut connection)).await;
        prepared.map_err(|_| Fault::no_answer(CONNECT_TIMEOUT))??;
        Ok(connection)
    }

    /// A new connection as the server gives it.
    async fn connect_bare(&self) -> Result<PgConnection, Fault> {
        let options = self.own_options().await?;
        let connected = timeout(CONNECT_TIMEOUT, options.connect()).await;
        let connection = connected.map_err(|_| Fault::no_connection())?.map_err(Fault::connecting)?;
        nodelay::set_on_connections_to(options.get_port());
        Ok(connection)
    }

    /// Checks that the address gives each connection a session of its own. Nothing is set before that is known, since it would
    /// be set for every client that shares the session.
    pub(crate) async fn check_sessions(&self) -> Result<(), Fault> {
        let (mut one, mut two) = (self.connect_bare().await?, self.connect_bare().await?);
        let checked = timeout(2 * CONNECT_TIMEOUT, compare_sessions(&mut one, &mut two)).await;
        let result = checked.unwrap_or_else(|_| Err(Fault::no_answer(2 * CONNECT_TIMEOUT)));
        if result.is_ok() {
            for connection in [one, two] {
                // Whether the server learns of the end does not matter.
                let _ = timeout(Duration::from_secs(1), connection.close()).await;
            }
        }
        result
    }
}

/// A session keeps its server process for as long as it lives, and no other session has it meanwhile. The second one is
/// in a transaction, so that a pooler must give it a process, most likely the one that the first has just left.
async fn compare_sessions(one: &mut PgConnection, two: &mut PgConnection) -> Result<(), Fault> {
    const PID: &str = "SELECT pg_catalog.pg_backend_pid()";
    let process = pid(one, PID).await?;
    for _ in 0..COMPARISONS {
        let other = match pid(two, "BEGIN; SELECT pg_catalog.pg_backend_pid()").await {
            Err(fault) if is_database_error(&fault, "statement pooling") => return Err(no_sessions()),
            other => other?,
        };
        if other == process || pid(one, PID).await? != process {
            return Err(no_sessions());
        }
        sqlx::raw_sql("ROLLBACK").execute(&mut *two).await?;
    }
    Ok(())
}

async fn pid(connection: &mut PgConnection, query: &'static str) -> Result<i32, Fault> {
    Ok(sqlx::raw_sql(query).fetch_one(connection).await?.try_get(0)?)
}

fn no_sessions() -> Fault {
    Fault::Unusable(format!("two connections share a server process: {NEEDS_SESSIONS}"))
}

/// Applies our settings by statement, as poolers drop or refuse them at the start of a session, and reads them again: a
/// connection that has lost them would plan and wait as it pleases.
async fn apply_settings(connection: &mut PgConnection) -> Result<(), Fault> {
    let list = |one: &dyn Fn(&str, &str) -> String| {
        let all: Vec<String> = SETTINGS.iter().map(|(name, value)| one(name, value)).collect();
        sqlx::AssertSqlSafe(format!(
            "SELECT {}, pg_catalog.current_setting('transaction_read_only')",
            all.join(", ")
        ))
    };
    let set =
        sqlx::raw_sql(list(&|name, value| format!("pg_catalog.set_config('{name}', '{value}', false)")));
    let set = set.fetch_one(&mut *connection).await?;
    let read = sqlx::raw_sql(list(&|name, _| format!("pg_catalog.current_setting('{name}')")))
        .fetch_one(connection)
        .await?;
    for (index, (name, value)) in SETTINGS.iter().enumerate() {
        let (wanted, found): (&str, &str) = (set.try_get(index)?, read.try_get(index)?);
        if wanted != found {
            return Err(Fault::Unusable(format!(
                "the setting {name} is {found} although it was just set to {value}: {NEEDS_SESSIONS}"
            )));
        }
    }
    match read.try_get(SETTINGS.len())? {
        "on" => Err(Fault::ReadOnly),
        _ => Ok(()),
    }
}
