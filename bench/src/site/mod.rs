//! Where a round happens: a database, queues and an exchange of its own, removed at the end.

mod broker;
mod database;
mod fill;

use std::time::Duration;

pub(crate) use broker::{Broker, mandatory, properties};
pub(crate) use database::{Client, Database};
pub(crate) use fill::fill;

use crate::arguments::Compare;
use crate::measure::meter::Metered;
use crate::measure::reading::Reading;
use crate::{BoxResult, load::Load};

/// The place of one round.
pub(crate) struct Site {
    /// The name of the database, the exchange and the queues.
    pub(crate) name: String,
    pub(crate) database: Database,
    pub(crate) broker: Broker,
    pub(crate) duration: Duration,
    pub(crate) messages: u64,
}

impl Site {
    pub(crate) async fn new(arguments: &Compare) -> BoxResult<Self> {
        let name = format!("cap_bench_{:012x}", fastrand::u64(..1 << 48));
        let database = Database::create(&arguments.database_url, &name).await?;
        let broker = Broker::new(&arguments.amqp_url, &name).await?;
        let (duration, messages) = (arguments.duration(), arguments.messages);
        Ok(Self { name, database, broker, duration, messages })
    }

    /// How far the server's write-ahead log has come, in bytes.
    pub(crate) async fn wal_position(&self) -> BoxResult<i64> {
        self.database.wal_position().await
    }

    /// Removes everything, without a round.
    pub(crate) async fn discard(self) -> BoxResult<()> {
        self.database.remove(&self.name).await?;
        self.broker.remove().await
    }

    /// Removes everything, once all connections of the round are closed, and returns its figures: latencies only of a load
    /// whose messages were published in this round.
    pub(crate) async fn finish(
        self,
        messages: u64,
        metered: &Metered,
        load: Option<&Load>,
    ) -> BoxResult<Reading> {
        let commits = self.database.remove(&self.name).await?;
        self.broker.remove().await?;
        let mut latencies = load.map(Load::latencies).unwrap_or_default();
        Ok(Reading::new(messages, metered, commits, &mut latencies))
    }
}
