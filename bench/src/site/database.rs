//! A database of the round's own.

use std::ops::Deref;
use std::time::Duration;

use tokio::task::AbortHandle;
use tokio_postgres::NoTls;

use crate::BoxResult;

/// A connection of the hand-written loop's kind, with the task that drives it.
pub(crate) struct Client {
    client: tokio_postgres::Client,
    driver: AbortHandle,
}

impl Deref for Client {
    type Target = tokio_postgres::Client;

    fn deref(&self) -> &Self::Target {
        &self.client
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// Connects without TLS.
pub(crate) async fn connect(url: &str) -> BoxResult<Client> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    // It ends with the client.
    let driver = tokio::spawn(async move { drop(connection.await) }).abort_handle();
    Ok(Client { client, driver })
}

/// The round's database, with a table `business` for what transactions do besides publishing.
pub(crate) struct Database {
    /// Its address, without TLS.
    pub(crate) url: String,
    admin: Client,
}

impl Database {
    pub(crate) async fn create(url: &str, name: &str) -> BoxResult<Self> {
        let (server, parameters) = url.split_once('?').unwrap_or((url, ""));
        let (server, _) = server.rsplit_once('/').ok_or("the URL of the database names none")?;
        let separator = if parameters.is_empty() { "" } else { "&" };
        let parameters = format!("{parameters}{separator}sslmode=disable");
        let admin = connect(&format!("{server}/postgres?{parameters}")).await?;
        admin.batch_execute(&format!("CREATE DATABASE {name}")).await?;
        let url = format!("{server}/{name}?{parameters}");
        connect(&url).await?.batch_execute("CREATE TABLE business (id bigint PRIMARY KEY)").await?;
        // Every round begins with the same distance to the next checkpoint.
        admin.batch_execute("CHECKPOINT").await?;
        Ok(Self { url, admin })
    }

    pub(crate) async fn connect(&self) -> BoxResult<Client> {
        connect(&self.url).await
    }

    /// How many connections the server takes.
    pub(crate) async fn max_connections(&self) -> BoxResult<usize> {
        let most: i32 =
            self.admin.query_one("SELECT current_setting('max_connections')::integer", &[]).await?.get(0);
        Ok(usize::try_from(most)?)
    }

    pub(crate) async fn wal_position(&self) -> BoxResult<i64> {
        let position = "SELECT (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::bigint";
        Ok(self.admin.query_one(position, &[]).await?.get(0))
    }

    /// Waits until the last session has ended, as that is when it has reported its transactions; removes the database, and
    /// returns how many there were.
    pub(crate) async fn remove(&self, name: &str) -> BoxResult<i64> {
        let open = "SELECT count(*) FROM pg_stat_activity WHERE datname = $1";
        for _ in 0..200 {
            if self.admin.query_one(open, &[&name]).await?.get::<_, i64>(0) == 0 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let commits = "SELECT xact_commit FROM pg_stat_database WHERE datname = $1";
        let commits = self.admin.query_one(commits, &[&name]).await?.get(0);
        self.admin.batch_execute(&format!("DROP DATABASE {name} WITH (FORCE)")).await?;
        Ok(commits)
    }
}
