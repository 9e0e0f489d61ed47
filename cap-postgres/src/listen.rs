//! Waiting for `NOTIFY`: work that another process or a plain transaction has left.

use std::convert::Infallible;
use std::time::Duration;

use cap_adapter::storage::{Side, Wake};
use futures_util::FutureExt as _;
use sqlx::Row as _;
use sqlx::postgres::{PgListener, PgPoolOptions};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::columns::side_name;
use crate::error::Fault;
use crate::storage::Postgres;

/// A connection that says nothing for so long is asked whether it still lives.
const PROBE_EVERY: Duration = Duration::from_secs(30);
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Listens until cancelled. While there is no connection nothing is heard, so both sides are woken whenever there is
/// one again.
pub(crate) async fn listen(storage: &Postgres, wake: &Wake, cancelled: &CancellationToken) {
    let listening = async {
        let mut pause = SHORTEST_PAUSE;
        loop {
            let Err(fault) = listen_once(storage, wake, &mut pause).await;
            let error = fault.into_error("listening for work", storage.target());
            tracing::warn!(%error, ?pause, "LISTEN connection failed, retrying");
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    };
    tokio::select! {
        () = cancelled.cancelled() => {}
        () = listening => {}
    }
}

/// Listens on one connection until it is lost.
async fn listen_once(storage: &Postgres, wake: &Wake, pause: &mut Duration) -> Result<Infallible, Fault> {
    // What was said before concerns no connection that is opened now.
    let _ = storage.server_left().now_or_never();
    // A pool for one connection. Each has its own, as one that is lost keeps its place for a long time: the driver waits
    // for an answer on it before it is closed. It needs none of our settings.
    let options = storage.source().own_options().await?;
    let pool = PgPoolOptions::new().max_connections(1).acquire_timeout(CONNECT_TIMEOUT);
    let pool = pool.test_before_acquire(false).connect_lazy_with(options);
    let mut listener = PgListener::connect_with(&pool).await.map_err(Fault::connecting)?;
    listener.eager_reconnect(false);
    let answer = listener.listen(storage.notification_channel());
    timeout(PROBE_TIMEOUT, answer).await.map_err(|_| lost("the server has gone silent"))??;
    *pause = SHORTEST_PAUSE;
    wake.wake(Side::Outbox);
    wake.wake(Side::Inbox);
    loop {
        // Both are cancel safe: a notification that was received waits in the listener, and what was said about the
        // server is kept until somebody waits for it.
        let heard = tokio::select! {
            heard = timeout(PROBE_EVERY, listener.try_recv()) => heard,
            () = storage.server_left() => return Err(lost("other connections have found their server to be the wrong one").into()),
        };
        match heard {
            Ok(Ok(Some(notification))) => hear(notification.payload(), wake),
            Ok(Ok(None)) => return Err(lost("the server closed the connection").into()),
            Ok(Err(error)) => return Err(error.into()),
            Err(_) => probe(&mut listener).await?,
        }
    }
}

/// Whether the connection lives, and leads to a server on which others can announce anything.
async fn probe(listener: &mut PgListener) -> Result<(), Fault> {
    let read_only =
        sqlx::raw_sql("SELECT pg_catalog.current_setting('transaction_read_only')").fetch_one(listener);
    let read_only =
        timeout(PROBE_TIMEOUT, read_only).await.map_err(|_| lost("the server has gone silent"))??;
    if read_only.try_get::<&str, _>(0)? == "on" { Err(Fault::ReadOnly) } else { Ok(()) }
}

fn hear(payload: &str, wake: &Wake) {
    for side in [Side::Outbox, Side::Inbox] {
        // A word that is not ours wakes both: better once too often.
        let is_other =
            [Side::Outbox, Side::Inbox].into_iter().any(|other| other != side && side_name(other) == payload);
        if !is_other {
            wake.wake(side);
        }
    }
}

fn lost(why: &'static str) -> sqlx::Error {
    sqlx::Error::Io(std::io::Error::new(std::io::ErrorKind::ConnectionAborted, why))
}
