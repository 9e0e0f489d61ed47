//! Work that a transaction leaves to others, and how they learn of it: a counter for each side, raised with the work.

use cap_adapter::storage::Side;
use sqlx::SqliteConnection;

use crate::columns::side_code;
use crate::error::Fault;
use crate::file::File;
use crate::statements::Statements;

pub(crate) const ANNOUNCE: &str = "UPDATE {prefix}signals SET count = count + 1 WHERE side = ?1";

pub(crate) const ANNOUNCED: &str = "SELECT count FROM {prefix}signals ORDER BY side";

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
        statements: &Statements,
    ) -> Result<(), Fault> {
        for side in self.sides() {
            let announce = sqlx::query(statements.announce.clone()).bind(side_code(side));
            announce.execute(&mut *connection).await?;
        }
        Ok(())
    }

    /// Wakes the buses of this process, after the commit.
    pub(crate) fn wake(self, file: &File) {
        self.sides().for_each(|side| file.wake(side));
    }
}
