//! Announces the work that a transaction leaves to others: a counter for each side is raised with it.

use cap_adapter::storage::Side;
use cap_sql::columns::side_code;
use cap_sql::templates::Templates;
use sqlx::{SqlStr, SqliteConnection};

use crate::connections::file::File;
use crate::database::error::Fault;

const ANNOUNCE: &str = "UPDATE {prefix}signals SET count = count + 1 WHERE side = ?1";

const ANNOUNCED: &str = "SELECT count FROM {prefix}signals ORDER BY side";

/// The counters of work.
#[derive(Debug)]
pub(crate) struct Signals {
    pub(crate) announce: SqlStr,
    announced: SqlStr,
}

impl Signals {
    pub(crate) fn prepare(templates: &Templates) -> Self {
        Self { announce: templates.one(ANNOUNCE), announced: templates.one(ANNOUNCED) }
    }

    /// Reads the counters of the outbox and the inbox.
    pub(crate) async fn read(&self, connection: &mut SqliteConnection) -> Result<[i64; 2], Fault> {
        let counts: Vec<i64> = sqlx::query_scalar(self.announced.clone()).fetch_all(connection).await?;
        Ok([counts.first().copied().unwrap_or(0), counts.get(1).copied().unwrap_or(0)])
    }
}

/// On which sides a transaction leaves rows that anyone may claim, now or later.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Work {
    outbox: bool,
    inbox: bool,
}

impl Work {
    pub(crate) fn add(&mut self, side: Side) {
        match side {
            Side::Outbox => self.outbox = true,
            Side::Inbox => self.inbox = true,
        }
    }

    fn sides(self) -> impl Iterator<Item = Side> {
        [(Side::Outbox, self.outbox), (Side::Inbox, self.inbox)]
            .into_iter()
            .filter_map(|(side, is_left)| is_left.then_some(side))
    }

    /// Announces it to the other processes, with the transaction's commit.
    pub(crate) async fn announce(
        self,
        connection: &mut SqliteConnection,
        signals: &Signals,
    ) -> Result<(), Fault> {
        for side in self.sides() {
            let announce = sqlx::query(signals.announce.clone()).bind(side_code(side));
            announce.execute(&mut *connection).await?;
        }
        Ok(())
    }

    /// Wakes the buses of this process, after the commit.
    pub(crate) fn wake(self, file: &File) {
        self.sides().for_each(|side| file.wake(side));
    }
}
