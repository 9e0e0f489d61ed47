//! Credentials that are asked for when they are needed.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use cap_adapter::BoxFuture;
use cap_adapter::error::{BoxError, error_chain};
use sqlx::postgres::PgConnectOptions;
use tokio::time::timeout;

use crate::database::error::Fault;

/// How long a provider may take.
const PROVIDER_TIMEOUT: Duration = Duration::from_secs(5);

/// The credentials of one connection. `Debug` does not show the password.
#[derive(Clone)]
pub struct Credentials {
    user: Option<String>,
    password: String,
}

impl Credentials {
    /// A user and a password, or a token that serves as one.
    pub fn new(user: impl Into<String>, password: impl Into<String>) -> Self {
        Self { user: Some(user.into()), password: password.into() }
    }

    /// A password for the user that the address names.
    pub fn password(password: impl Into<String>) -> Self {
        Self { user: None, password: password.into() }
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("user", &self.user).finish_non_exhaustive()
    }
}

type Ask = dyn Fn() -> BoxFuture<'static, Result<Credentials, BoxError>> + Send + Sync;

/// The function of the application that returns credentials.
#[derive(Clone)]
pub(crate) struct Provider(Arc<Ask>);

impl fmt::Debug for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Provider")
    }
}

impl Provider {
    pub(crate) fn new<F, Fut, E>(ask: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Credentials, E>> + Send + 'static,
        E: Into<BoxError>,
    {
        Self(Arc::new(move || {
            let asked = ask();
            Box::pin(async move { asked.await.map_err(Into::into) })
        }))
    }

    /// These options with the credentials of this moment. The provider's future runs as a task, so that a panic in it is
    /// an error like any other.
    pub(crate) async fn apply(&self, options: PgConnectOptions) -> Result<PgConnectOptions, Fault> {
        let mut asked = tokio::task::JoinSet::new();
        let ask = Arc::clone(&self.0);
        asked.spawn(async move { ask().await });
        // Dropping the set ends a task that takes too long.
        let answer = timeout(PROVIDER_TIMEOUT, asked.join_next()).await;
        let Credentials { user, password } = match answer {
            Ok(Some(Ok(Ok(credentials)))) => credentials,
            Ok(Some(Ok(Err(error)))) => {
                let reason = format!("the credential provider failed: {}", error_chain(&*error));
                return Err(Fault::Unavailable(reason));
            }
            Ok(Some(Err(_)) | None) => {
                return Err(Fault::Unavailable("the credential provider panicked".to_owned()));
            }
            Err(_) => {
                let reason = format!("the credential provider gave no answer within {PROVIDER_TIMEOUT:?}");
                return Err(Fault::Unavailable(reason));
            }
        };
        let options = options.password(&password);
        Ok(match user {
            Some(user) => options.username(&user),
            None => options,
        })
    }
}
