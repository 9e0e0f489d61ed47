//! How many messages there are of each outcome, in all and by the hour, counted at a bounded cost and kept for a while.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cap_core::Messages;
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
#[derive(Debug, Clone, Copy)]
pub(crate) struct Hour {
    /// The end of the hour, in seconds since 1970.
    pub(crate) ends: u64,
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

    /// The last 24 hours, the oldest first, at most ten minutes old, as CAP has it.
    pub(crate) async fn hours(&self, data: &Data) -> Result<Vec<Hour>, Problem> {
        let now = SystemTime::now();
        let ask = async {
            let mut hours = Vec::new();
            for back in (0..HOURS).rev() {
                let until = now - back * HOUR;
                let of_hour =
                    |side, status| data.messages().side(side).status(status).since(until - HOUR).until(until);
                let ends = until.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
                hours.push(Hour { ends, counts: count_all(of_hour).await? });
            }
            Ok(hours)
        };
        self.hours.get(ask).await
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
