//! Wakes nodes by `NOTIFY` and `LISTEN` when another process or a plain transaction has left work.

use std::convert::Infallible;
use std::time::Duration;

use cap_adapter::storage::{Side, Wake};
use cap_sql::columns::side_name;
use futures_util::FutureExt as _;
use sqlx::postgres::{PgListener, PgPoolOptions};
use sqlx::{PgConnection, Row as _};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::connections::server::Server;
use crate::connections::source::Source;
use crate::database::error::Fault;

/// A connection without a notification for this long is probed.
const PROBE_EVERY: Duration = Duration::from_secs(30);
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Where a bus listens.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Channel<'a> {
    pub(crate) source: &'a Source,
    pub(crate) server: &'a Server,
    pub(crate) name: &'a str,
}

/// Listens until cancelled. Notifications are missed while there is no connection, so both sides are woken whenever there is one
/// again.
pub(crate) async fn listen(channel: Channel<'_>, wake: &Wake, cancelled: &CancellationToken) {
    let listening = async {
        let mut pause = SHORTEST_PAUSE;
        loop {
            let Err(fault) = listen_once(channel, wake, &mut pause).await;
            let error = fault.into_error("listening for work", channel.server.target());
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
async fn listen_once(channel: Channel<'_>, wake: &Wake, pause: &mut Duration) -> Result<Infallible, Fault> {
    // An earlier signal does not concern the connection that is opened now.
    let _ = channel.server.left().now_or_never();
    // A pool for one connection. Each has its own, as one that is lost keeps its place for a long time: the driver waits
    // for an answer on it before it is closed. It needs none of our settings.
    let options = channel.source.own_options().await?;
    let pool = PgPoolOptions::new().max_connections(1).acquire_timeout(CONNECT_TIMEOUT);
    let pool = pool.test_before_acquire(false).connect_lazy_with(options);
    let mut listener = PgListener::connect_with(&pool).await.map_err(Fault::connecting)?;
    listener.eager_reconnect(false);
    let answer = listener.listen(channel.name);
    timeout(PROBE_TIMEOUT, answer).await.map_err(|_| lost("the server has gone silent"))??;
    *pause = SHORTEST_PAUSE;
    wake.wake(Side::Outbox);
    wake.wake(Side::Inbox);
    loop {
        // Both are cancel safe: a notification that was received waits in the listener, and the signal about the server is
        // kept until the next wait.
        let received = tokio::select! {
            received = timeout(PROBE_EVERY, listener.try_recv()) => received,
            () = channel.server.left() => return Err(lost("other connections have found that the server takes no writes").into()),
        };
        match received {
            Ok(Ok(Some(notification))) => wake_by(notification.payload(), wake),
            Ok(Ok(None)) => return Err(lost("the server closed the connection").into()),
            Ok(Err(error)) => return Err(error.into()),
            Err(_) => probe(&mut listener).await?,
        }
    }
}

/// Checks that the connection works, and leads to a server on which others can announce work.
async fn probe(listener: &mut PgListener) -> Result<(), Fault> {
    let read_only =
        sqlx::raw_sql("SELECT pg_catalog.current_setting('transaction_read_only')").fetch_one(listener);
    let read_only =
        timeout(PROBE_TIMEOUT, read_only).await.map_err(|_| lost("the server has gone silent"))??;
    if read_only.try_get::<&str, _>(0)? == "on" { Err(Fault::ReadOnly) } else { Ok(()) }
}

fn wake_by(payload: &str, wake: &Wake) {
    for side in [Side::Outbox, Side::Inbox] {
        // An unknown payload wakes both: a wake-up too many does no harm.
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

/// Wakes the other nodes for work on a side.
pub(crate) async fn announce(connection: &mut PgConnection, channel: &str, side: Side) -> Result<(), Fault> {
    let notify = sqlx::query("SELECT pg_catalog.pg_notify($1, $2)");
    notify.bind(channel).bind(side_name(side)).execute(connection).await?;
    Ok(())
}
