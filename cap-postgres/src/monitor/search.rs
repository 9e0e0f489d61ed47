//! Searches for messages, in steps of bounded size.

use std::time::Instant;

use cap_adapter::monitor::{Query, SearchLimits, SearchPage};
use cap_adapter::storage::Side;
use cap_sql::columns::limit_of;
use cap_sql::list_filter::ListFilter;
use cap_sql::search_pace::SearchPace;
use cap_sql::templates::{Sides, Templates};
use sqlx::postgres::PgRow;
use sqlx::{Connection as _, PgConnection, Row as _};

use crate::database::encoding::Encoding;
use crate::database::error::Fault;
use crate::monitor::find_messages::{FindMessages, listed};
use crate::monitor::message_row::shown;

/// The oldest of the next rows, and how many they are. Only an index is read.
const STEP: &str = "
SELECT min(x.id) AS first, count(*) AS count FROM (
    SELECT r.id FROM {rows} AS r WHERE r.id < $1 AND r.id >= $2 ORDER BY r.id DESC LIMIT $3
) AS x";

/// The server cancels a step that takes longer; a shorter one follows.
const AT_THE_SERVER: &str = "SET LOCAL statement_timeout = '2s'";

/// Searches for messages.
#[derive(Debug)]
pub(crate) struct Searching {
    /// Steps through the messages.
    pub(crate) messages: Sides,
    /// Steps through the state rows.
    pub(crate) states: Sides,
}

/// What a step found.
struct Step {
    /// The oldest row that it looked at, and how many.
    oldest: Option<i64>,
    count: i64,
    rows: Vec<PgRow>,
}

impl Searching {
    pub(crate) fn prepare(templates: &Templates) -> Self {
        Self {
            messages: templates.sides(&STEP.replace("{rows}", "{messages}")),
            states: templates.sides(&STEP.replace("{rows}", "{states}")),
        }
    }

    pub(crate) async fn search(
        &self,
        connection: &mut PgConnection,
        (find, encoding): (&FindMessages, &Encoding),
        query: &Query,
        limits: &SearchLimits,
    ) -> Result<SearchPage, Fault> {
        if query.message_id.is_some() || query.limit == 0 {
            return Ok(SearchPage::listed(find.list(connection, encoding, query).await?, query.limit));
        }
        let mut filter = ListFilter::new(query)?;
        let first = filter.first;
        let mut progress = SearchPace::new(limits);
        let mut page = SearchPage::default();
        loop {
            let rows = match progress.next() {
                Ok(rows) => rows,
                Err(bound) => {
                    (page.bound, page.next) = (Some(bound), Some(filter.before));
                    break;
                }
            };
            (filter.first, filter.limit) = (first, limit_of(query.limit - page.rows.len()));
            let began = Instant::now();
            let step = match self.step(connection, (find, encoding), query.side, &mut filter, rows).await {
                Err(fault) if fault.is_cancelled() && progress.slow_down() => continue,
                step => step?,
            };
            progress.made(u64::try_from(step.count).unwrap_or_default(), began.elapsed());
            for row in &step.rows {
                page.rows.push(shown(query.side, row)?);
            }
            if page.rows.len() >= query.limit {
                page.next = page.rows.last().map(|row| row.id);
                break;
            }
            match step.oldest {
                Some(oldest) if step.count >= limit_of(usize::try_from(rows).unwrap_or(usize::MAX)) => {
                    filter.before = oldest;
                }
                _ => break,
            }
        }
        page.looked_at = progress.looked_at();
        Ok(page)
    }

    /// Looks at the next rows, in a transaction for the time limit to end with.
    async fn step(
        &self,
        connection: &mut PgConnection,
        (find, encoding): (&FindMessages, &Encoding),
        side: Side,
        filter: &mut ListFilter<'_>,
        rows: u64,
    ) -> Result<Step, Fault> {
        let mut transaction = connection.begin().await?;
        let steps = if filter.by_state { &self.states } else { &self.messages };
        let looked = async {
            sqlx::query(AT_THE_SERVER).execute(&mut *transaction).await?;
            let step = sqlx::query(steps.of(side))
                .bind(filter.before)
                .bind(filter.first)
                .bind(i64::try_from(rows).unwrap_or(i64::MAX))
                .fetch_one(&mut *transaction)
                .await?;
            let mut step =
                Step { oldest: step.try_get("first")?, count: step.try_get("count")?, rows: Vec::new() };
            if let Some(oldest) = step.oldest {
                filter.first = oldest;
                step.rows = listed(&mut transaction, &find.list, side, filter, encoding).await?;
            }
            Ok(step)
        }
        .await;
        transaction.rollback().await?;
        looked
    }
}
