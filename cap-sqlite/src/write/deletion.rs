//! Deletes messages with all that belongs to them.

use cap_adapter::storage::Side;
use cap_sql::templates::{Sides, Templates};
use sqlx::SqliteConnection;

use crate::database::error::Fault;

const DELETE_STATE: &str = "DELETE FROM {states} WHERE id = ?1";

const DELETE_ATTEMPTS: &str =
    "DELETE FROM {prefix}attempts INDEXED BY {prefix}attempts_of WHERE side = {side} AND id = ?1";

const DELETE_MESSAGE: &str = "DELETE FROM {messages} WHERE id = ?1";

/// Deletes messages.
#[derive(Debug)]
pub(crate) struct Deletion {
    pub(crate) state: Sides,
    pub(crate) attempts: Sides,
    pub(crate) message: Sides,
}

impl Deletion {
    pub(crate) fn prepare(templates: &Templates) -> Self {
        Self {
            state: templates.sides(DELETE_STATE),
            attempts: templates.sides(DELETE_ATTEMPTS),
            message: templates.sides(DELETE_MESSAGE),
        }
    }

    /// Deletes messages with all that belongs to them, and returns how many there were.
    pub(crate) async fn delete(
        &self,
        connection: &mut SqliteConnection,
        side: Side,
        ids: &[i64],
    ) -> Result<u64, Fault> {
        let mut deleted = 0;
        for id in ids {
            for statement in [&self.state, &self.attempts] {
                sqlx::query(statement.of(side)).bind(id).execute(&mut *connection).await?;
            }
            let message = sqlx::query(self.message.of(side)).bind(id);
            deleted += message.execute(&mut *connection).await?.rows_affected();
        }
        Ok(deleted)
    }
}
