//! Renews the credentials of an open connection before they expire.

use std::sync::Arc;
use std::time::Duration;

use lapin::Connection;
use tokio::time::{sleep, timeout};
use tracing::{debug, error, info};

use crate::connection::credentials::{Credentials, Provider};
use crate::driver_fixes::socket::Control;
use crate::error::text;

/// How long the broker may take to accept a new secret.
const ANSWER: Duration = Duration::from_secs(10);
/// The pause after a renewal that failed, and the shortest between two.
const AGAIN: Duration = Duration::from_secs(5);
const SHORTEST: Duration = Duration::from_millis(100);

/// Renews the credentials of one connection while it is open, if they expire. Dropping it leaves the broker with
/// the old secret or the new one.
pub(crate) async fn renew(
    connection: Arc<Connection>,
    control: Control,
    provider: Provider,
    mut current: Credentials,
    limit: Duration,
) {
    let mut failed = false;
    let mut pause = current.expires_in.map(due);
    while let Some(wait) = pause {
        sleep(wait).await;
        if !connection.status().connected() {
            return;
        }
        match renew_once(&connection, &provider, &current, limit).await {
            Ok(Renewed::Other) => {
                info!("the credential provider names another RabbitMQ user, reconnecting");
                return control.cut();
            }
            Ok(Renewed::Same(renewed)) => {
                debug!("RabbitMQ credentials renewed");
                current = renewed;
                failed = false;
                pause = current.expires_in.map(due);
            }
            Err(reason) => {
                // Logged once: the broker ends the connection when the old ones expire, which is logged too.
                if !std::mem::replace(&mut failed, true) {
                    error!(
                        error = reason,
                        "RabbitMQ credentials not renewed: operator action required, trying again"
                    );
                }
                pause =
                    Some(current.expires_in.map_or(AGAIN, |lifetime| (lifetime / 20).clamp(SHORTEST, AGAIN)));
            }
        }
    }
}

/// When to renew: the last quarter of the lifetime is left for failed attempts.
fn due(lifetime: Duration) -> Duration {
    (lifetime * 3 / 4).max(SHORTEST)
}

enum Renewed {
    Same(Credentials),
    /// A connection cannot change its user.
    Other,
}

async fn renew_once(
    connection: &Connection,
    provider: &Provider,
    current: &Credentials,
    limit: Duration,
) -> Result<Renewed, String> {
    let renewed = provider.ask(limit).await.map_err(|error| error.message().to_owned())?;
    if renewed.user != current.user {
        return Ok(Renewed::Other);
    }
    let update = connection.update_secret(renewed.secret.as_str().into(), "renewed before it expires".into());
    match timeout(ANSWER, update).await {
        Ok(Ok(())) => Ok(Renewed::Same(renewed)),
        Ok(Err(error)) => Err(text(&error)),
        Err(_) => Err(format!("the broker did not answer within {ANSWER:?}")),
    }
}
