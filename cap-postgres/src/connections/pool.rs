//! The bus's own connections: a few places, each with a connection that is opened when it is needed.
//!
//! Not a pool of the driver's, for three reasons: the credentials of a connection are asked for as it is opened, its
//! settings are applied and verified before anybody uses it, and one that is broken or leads to a read-only server gives
//! up its place at once.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sqlx::{Connection as _, PgConnection};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout};

use crate::connections::source::Source;
use crate::database::error::Fault;

/// How long a caller waits for a place.
const PLACE_TIMEOUT: Duration = Duration::from_secs(5);
/// A connection that has been idle for this long is pinged before it is used.
const PING_AFTER: Duration = Duration::from_secs(10);
const PING_TIMEOUT: Duration = Duration::from_secs(5);
/// A connection that has been idle for this long is closed.
const LONGEST_REST: Duration = Duration::from_mins(10);
/// A connection is replaced when it is this old, so that load spreads over servers that were added behind an address.
const LONGEST_LIFE: Duration = Duration::from_mins(30);

/// A bounded number of connections.
#[derive(Debug)]
pub(crate) struct Connections {
    source: Source,
    places: Semaphore,
    idle: Mutex<Vec<Idle>>,
}

#[derive(Debug)]
struct Idle {
    connection: PgConnection,
    made: Instant,
    since: Instant,
}

/// A connection and its place, until they are returned or dropped. Dropped, the connection is closed.
#[derive(Debug)]
pub(crate) struct Taken<'a> {
    pub(crate) connection: PgConnection,
    made: Instant,
    connections: &'a Connections,
    _place: SemaphorePermit<'a>,
}

impl Connections {
    /// Up to `most` connections, of which none is open yet.
    pub(crate) fn new(source: Source, most: u32) -> Self {
        let places = Semaphore::new(usize::try_from(most).unwrap_or(1));
        Self { source, places, idle: Mutex::default() }
    }

    /// A connection that answered lately, or a new one.
    ///
    /// Cancel safe: a connection that was being opened or asked is closed, and its place is free again.
    pub(crate) async fn take(&self) -> Result<Taken<'_>, Fault> {
        let Ok(Ok(place)) = timeout(PLACE_TIMEOUT, self.places.acquire()).await else {
            return Err(Fault::no_connection());
        };
        while let Some(Idle { mut connection, made, since }) = self.next_idle() {
            let is_fresh = since.elapsed() < PING_AFTER;
            if is_fresh || matches!(timeout(PING_TIMEOUT, connection.ping()).await, Ok(Ok(()))) {
                return Ok(Taken { connection, made, connections: self, _place: place });
            }
        }
        let connection = self.source.connect().await?;
        Ok(Taken { connection, made: Instant::now(), connections: self, _place: place })
    }

    /// The one that was used last, so that those that are not needed grow old and are closed.
    fn next_idle(&self) -> Option<Idle> {
        let mut idle = self.idle();
        idle.retain(|one| one.since.elapsed() < LONGEST_REST && one.made.elapsed() < LONGEST_LIFE);
        idle.pop()
    }

    /// Closes the idle connections: they lead to a server that has just turned out to be the wrong one.
    pub(crate) fn close_idle(&self) {
        self.idle().clear();
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Idle>> {
        // Nothing panics while it is locked.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Taken<'_> {
    /// Makes the connection available to others.
    pub(crate) fn put_back(self) {
        let Self { connection, made, connections, _place } = self;
        // Before the place is free, or the next caller would open another connection.
        connections.idle().push(Idle { connection, made, since: Instant::now() });
    }
}
