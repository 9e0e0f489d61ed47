//! How many messages there are of each outcome, in all and by the hour, counted at a bounded cost and kept for a while.

use std::ops::Range;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cap_core::Messages;
use cap_core::message::IdGenerator;
use cap_core::storage::{Side, Status};

use super::cached::Cached;
use crate::data::{Data, within};
use crate::request::Problem;
use crate::text::Amount;

/// The most messages of a kind that are counted.
pub(crate) const COUNTED: usize = 10_000;
/// How many hours the history goes back.
const HOURS: u32 = 24;
const HOUR: Duration = Duration::from_secs(3600);
/// The kinds that are counted, in the order of the arrays.
const KINDS: [(Side, Status); 4] = [
    (Side::Outbox, Status::Succeeded),
    (Side::Outbox, Status::Failed),
    (Side::Inbox, Status::Succeeded),
    (Side::Inbox, Status::Failed),
];

/// The counted messages: succeeded and failed of the outbox, succeeded and failed of the inbox.
#[derive(Debug)]
pub(crate) struct History {
    totals: Cached<[Amount; 4]>,
    hours: Cached<Vec<Hour>>,
}

/// An hour and the messages that were stored in it, by what has become of them.
#[derive(Debug, Clone)]
pub(crate) struct Hour {
    /// The end of the hour, in seconds since 1970.
    pub(crate) ends: u64,
    /// The row ids that nodes have made in it: they grow with the time.
    ids: Range<i64>,
    pub(crate) counts: [Amount; 4],
}

impl Default for History {
    fn default() -> Self {
        Self { totals: Cached::new(Duration::from_secs(10)), hours: Cached::new(Duration::from_mins(10)) }
    }
}

impl History {
    /// The messages that are stored now, at most ten seconds old.
    pub(crate) async fn totals(&self, data: &Data) -> Result<[Amount; 4], Problem> {
        self.totals.get(count_all(|side, status| data.messages().side(side).status(status))).await
    }

    /// The last 24 hours, the oldest first, at most ten minutes old, as CAP has it. It reads row ids only, the newest of each
    /// kind, as a count by time would look through whole tables.
    pub(crate) async fn hours(&self, data: &Data) -> Result<Vec<Hour>, Problem> {
        let now = SystemTime::now();
        let ask = async {
            let mut hours: Vec<Hour> = (0..HOURS).rev().map(|back| Hour::ending(now - back * HOUR)).collect();
            for (kind, (side, status)) in KINDS.into_iter().enumerate() {
                let selection = data.messages().side(side).status(status).limit(COUNTED + 1);
                let ids = within(selection.ids()).await?;
                // What is older than the last of them was not counted.
                let oldest = ids.get(COUNTED).copied();
                for hour in &mut hours {
                    let count = ids.iter().filter(|id| hour.ids.contains(id)).count() as u64;
                    hour.counts[kind] =
                        Amount { count, is_capped: oldest.is_some_and(|id| id >= hour.ids.start) };
                }
            }
            Ok(hours)
        };
        self.hours.get(ask).await
    }
}

impl Hour {
    fn ending(until: SystemTime) -> Self {
        let ends = until.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let ids = IdGenerator::first_id_at(until - HOUR)..IdGenerator::first_id_at(until);
        Self { ends, ids, counts: [Amount::default(); 4] }
    }
}

async fn count_all(selection: impl Fn(Side, Status) -> Messages) -> Result<[Amount; 4], Problem> {
    let mut counts = [Amount::default(); 4];
    for (count, (side, status)) in counts.iter_mut().zip(KINDS) {
        *count = bounded(&selection(side, status)).await?;
    }
    Ok(counts)
}

/// How many messages a selection has, counted to 10,000.
pub(crate) async fn bounded(selection: &Messages) -> Result<Amount, Problem> {
    let count = within(selection.clone().limit(COUNTED + 1).count()).await?;
    let most = COUNTED as u64;
    Ok(Amount { count: count.min(most), is_capped: count > most })
}
