//! Searches for messages, in steps of bounded size.

use std::time::Instant;

use cap_adapter::monitor::{Query, SearchLimits, SearchPage};
use cap_sql::columns::limit_of;
use cap_sql::list_filter::ListFilter;
use cap_sql::search_pace::SearchPace;
use cap_sql::templates::{Sides, Templates};
use sqlx::{Row as _, SqliteConnection};

use crate::database::error::Fault;
use crate::monitor::find_messages::FindMessages;

/// The oldest of the next rows, and how many they are.
const STEP: &str = "
SELECT min(x.id) AS first, count(*) AS count FROM (
    SELECT r.id FROM {rows} AS r WHERE r.id < ?1 AND r.id >= ?2 ORDER BY r.id DESC LIMIT ?3
) AS x";

/// Searches for messages.
#[derive(Debug)]
pub(crate) struct Searching {
    /// Steps through the messages.
    messages: Sides,
    /// Steps through the state rows.
    states: Sides,
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
        connection: &mut SqliteConnection,
        find: &FindMessages,
        query: &Query,
        limits: &SearchLimits,
    ) -> Result<SearchPage, Fault> {
        if query.message_id.is_some() || query.limit == 0 {
            return Ok(SearchPage::listed(find.list(connection, query).await?, query.limit));
        }
        let mut filter = ListFilter::new(query)?;
        let first = filter.first;
        let steps = if filter.by_state { &self.states } else { &self.messages };
        let mut progress = SearchPace::new(limits);
        let mut page = SearchPage::default();
        loop {
            let rows = match progress.next() {
                Ok(rows) => i64::try_from(rows).unwrap_or(i64::MAX),
                Err(bound) => {
                    (page.bound, page.next) = (Some(bound), Some(filter.before));
                    break;
                }
            };
            let began = Instant::now();
            let step = sqlx::query(steps.of(query.side)).bind(filter.before).bind(first).bind(rows);
            let step = step.fetch_one(&mut *connection).await?;
            let count: i64 = step.try_get("count")?;
            let Some(oldest) = step.try_get::<Option<i64>, _>("first")? else { break };
            (filter.first, filter.limit) = (oldest, limit_of(query.limit - page.rows.len()));
            for id in find.listed_ids(connection, query.side, &filter).await? {
                page.rows.extend(find.get(connection, query.side, id).await?);
            }
            progress.made(u64::try_from(count).unwrap_or_default(), began.elapsed());
            if page.rows.len() >= query.limit {
                page.next = page.rows.last().map(|row| row.id);
                break;
            }
            if count < rows {
                break;
            }
            filter.before = oldest;
        }
        page.looked_at = progress.looked_at();
        Ok(page)
    }
}
