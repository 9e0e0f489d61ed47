//! The tables of the hand-written loop.

use tokio_postgres::Statement;

use crate::BoxResult;
use crate::site::{Client, Site};

/// What finds messages that were not sent before a crash is part of an outbox; the inbox needs only its key.
const TABLES: &str = "
CREATE TABLE outbox (
    id bigint PRIMARY KEY, body bytea NOT NULL, status smallint NOT NULL, added timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX outbox_unsent ON outbox (id) WHERE status = 0;
CREATE TABLE inbox (
    id bigint PRIMARY KEY, body bytea NOT NULL, status smallint NOT NULL, added timestamptz NOT NULL DEFAULT now()
)";

/// A connection with its prepared statements.
pub(crate) struct Session {
    pub(crate) client: Client,
    pub(crate) business: Statement,
    pub(crate) outbox: Statement,
    pub(crate) sent: Statement,
    pub(crate) inbox: Statement,
    pub(crate) handled: Statement,
    /// Inserts a message that is handled in the same transaction.
    pub(crate) inbox_handled: Statement,
}

/// Creates the tables.
pub(crate) async fn create(site: &Site) -> BoxResult<()> {
    site.database.connect().await?.batch_execute(TABLES).await?;
    Ok(())
}

impl Session {
    pub(crate) async fn open(site: &Site) -> BoxResult<Self> {
        let client = site.database.connect().await?;
        Ok(Self {
            business: client.prepare("INSERT INTO business VALUES ($1)").await?,
            outbox: client.prepare("INSERT INTO outbox (id, body, status) VALUES ($1, $2, 0)").await?,
            sent: client.prepare("UPDATE outbox SET status = 1 WHERE id = $1").await?,
            inbox: client
                .prepare("INSERT INTO inbox (id, body, status) VALUES ($1, $2, 0) ON CONFLICT DO NOTHING")
                .await?,
            handled: client.prepare("UPDATE inbox SET status = 1 WHERE id = $1").await?,
            inbox_handled: client
                .prepare("INSERT INTO inbox (id, body, status) VALUES ($1, $2, 1) ON CONFLICT DO NOTHING")
                .await?,
            client,
        })
    }
}
