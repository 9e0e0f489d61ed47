//! Waiting for `NOTIFY`: work that another process or a plain transaction has left.

use std::convert::Infallible;
use std::time::Duration;

use cap_core::storage::{Side, Wake};
use sqlx::postgres::PgListener;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::columns::side_name;
use crate::storage::Postgres;

/// A connection that says nothing for so long is asked whether it still lives.
const PROBE_EVERY: Duration = Duration::from_secs(30);
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Listens until cancelled. While there is no connection nothing is heard, so both sides are woken whenever there is
/// one again.
pub(crate) async fn listen(storage: &Postgres, wake: &Wake, cancelled: &CancellationToken) {
    let listening = async {
        let mut pause = SHORTEST_PAUSE;
        loop {
            let Err(error) = listen_once(storage, wake, &mut pause).await;
            let error = crate::error::Fault::from(error).into_error("listening for work", storage.target());
            tracing::warn!(%error, ?pause, "no connection to listen on; trying again");
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
async fn listen_once(
    storage: &Postgres,
    wake: &Wake,
    pause: &mut Duration,
) -> Result<Infallible, sqlx::Error> {
    let mut listener = PgListener::connect_with(&storage.listener_pool()).await?;
    listener.eager_reconnect(false);
    let answer = listener.listen(storage.notification_channel());
    timeout(PROBE_TIMEOUT, answer).await.map_err(|_| lost("the server has gone silent"))??;
    *pause = SHORTEST_PAUSE;
    wake.wake(Side::Outbox);
    wake.wake(Side::Inbox);
    loop {
        match timeout(PROBE_EVERY, listener.try_recv()).await {
            Ok(Ok(Some(notification))) => hear(notification.payload(), wake),
            Ok(Ok(None)) => return Err(lost("the server closed the connection")),
            Ok(Err(error)) => return Err(error),
            Err(_) => {
                let probe = sqlx::query("SELECT 1").execute(&mut listener);
                timeout(PROBE_TIMEOUT, probe).await.map_err(|_| lost("the server has gone silent"))??;
            }
        }
    }
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
