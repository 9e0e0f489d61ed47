//! The one reader of the numbers on the overview, whose last reading all pages and streams share.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use cap_core::Health;
use cap_core::monitor::Count;
use cap_core::storage::{Side, Status};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use crate::data::Data;

/// How long a reading is shown before the next one.
const REUSED_FOR: Duration = Duration::from_secs(2);
/// How long a reading may take.
const TIMEOUT: Duration = Duration::from_secs(4);
/// How many readings the charts show: ten minutes of one every two seconds.
const MOST_SAMPLES: usize = 300;

/// What was read at one moment.
#[derive(Debug, Clone)]
pub(crate) struct Reading {
    pub(crate) at: SystemTime,
    /// `None` if the storage did not answer, or takes too long to count.
    pub(crate) counts: Option<Vec<Count>>,
    /// Whether the counts are lower bounds.
    pub(crate) is_capped: bool,
    /// The health of the bus of this process.
    pub(crate) health: Option<Health>,
    /// Why the counts are not known.
    pub(crate) error: Option<String>,
    /// Earlier readings, the oldest first, and this one.
    pub(crate) samples: Vec<Sample>,
}

/// How many messages there were of each kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Sample {
    pub(crate) to_send: u64,
    pub(crate) to_handle: u64,
    pub(crate) retrying: u64,
    pub(crate) parked: u64,
}

/// Reads when somebody asks and the last reading is old, so that nothing is read while nobody looks.
#[derive(Debug)]
pub(crate) struct LiveReader {
    data: Data,
    last: Mutex<Last>,
}

#[derive(Debug, Default)]
struct Last {
    reading: Option<(Instant, Arc<Reading>)>,
    samples: VecDeque<Sample>,
}

impl LiveReader {
    pub(crate) fn new(data: Data) -> Self {
        Self { data, last: Mutex::default() }
    }

    /// The last reading, at most two seconds old. All who ask meanwhile wait for one query.
    pub(crate) async fn read(&self) -> Arc<Reading> {
        let mut last = self.last.lock().await;
        if let Some((_, reading)) = last.reading.as_ref().filter(|(at, _)| at.elapsed() < REUSED_FOR) {
            return Arc::clone(reading);
        }
        let reading = self.ask(&mut last.samples).await;
        let reading = Arc::new(reading);
        last.reading = Some((Instant::now(), Arc::clone(&reading)));
        reading
    }

    async fn ask(&self, samples: &mut VecDeque<Sample>) -> Reading {
        let (counts, error) = match timeout(TIMEOUT, self.data.operator.waiting()).await {
            Ok(Ok(counts)) => (counts, None),
            Ok(Err(error)) => (None, Some(error.to_string())),
            Err(_) => (None, None),
        };
        let health = match &self.data.bus {
            Some(bus) => timeout(TIMEOUT, bus.health()).await.ok(),
            None => None,
        };
        if let Some(counts) = &counts {
            samples.push_back(Sample::of(&counts.counts));
            while samples.len() > MOST_SAMPLES {
                samples.pop_front();
            }
        }
        Reading {
            at: SystemTime::now(),
            is_capped: counts.as_ref().is_some_and(|counts| counts.is_capped),
            counts: counts.map(|counts| counts.counts),
            health,
            error,
            samples: samples.iter().copied().collect(),
        }
    }
}

impl Sample {
    fn of(counts: &[Count]) -> Self {
        let sum = |wanted: &dyn Fn(&Count) -> bool| {
            counts.iter().filter(|count| wanted(count)).map(|count| count.count).sum()
        };
        Self {
            to_send: sum(&|count| count.side == Side::Outbox && count.status == Status::Scheduled),
            to_handle: sum(&|count| count.side == Side::Inbox && count.status == Status::Scheduled),
            retrying: sum(&|count| count.status == Status::Retrying),
            parked: sum(&|count| count.status == Status::Failed),
        }
    }
}

impl Reading {
    /// How many messages of a status there are on a side, in all groups.
    pub(crate) fn count(&self, side: Side, status: Status) -> u64 {
        let all = self.counts.iter().flatten();
        all.filter(|count| count.side == side && count.status == status).map(|count| count.count).sum()
    }
}
