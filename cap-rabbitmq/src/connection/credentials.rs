//! Credentials that change while the program runs.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use cap_adapter::BoxError;
use cap_adapter::error::TransportError;
use futures_util::future::BoxFuture;
use tokio::time::timeout;

use crate::error::unavailable;

/// A user and its password, or a token, as a [provider](crate::RabbitMq::credentials) gives them.
///
/// ```
/// use std::time::Duration;
/// use cap_rabbitmq::Credentials;
///
/// let fixed = Credentials::new("shop", "s3cret");
/// let token = Credentials::token("eyJhbGciOi..").expires_in(Duration::from_secs(300));
/// assert!(!format!("{fixed:?} {token:?}").contains("s3cret"));
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    pub(crate) user: String,
    pub(crate) secret: String,
    pub(crate) expires_in: Option<Duration>,
}

impl Credentials {
    /// A user and its password.
    pub fn new(user: impl Into<String>, password: impl Into<String>) -> Self {
        Self { user: user.into(), secret: password.into(), expires_in: None }
    }

    /// A token, such as one of OAuth 2, which says itself whose it is.
    pub fn token(token: impl Into<String>) -> Self {
        Self::new("", token)
    }

    /// How long they are valid, from now on. The provider is asked again after three quarters of that time, and the broker
    /// gets the new ones on the open connection. Default: they do not expire.
    #[must_use]
    pub fn expires_in(mut self, lifetime: Duration) -> Self {
        self.expires_in = Some(lifetime);
        self
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("expires_in", &self.expires_in).finish_non_exhaustive()
    }
}

type Ask = dyn Fn() -> BoxFuture<'static, Result<Credentials, BoxError>> + Send + Sync;

/// Where credentials come from.
#[derive(Clone)]
pub(crate) struct Provider(Arc<Ask>);

impl Provider {
    pub(crate) fn new<F, Fut>(ask: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Credentials, BoxError>> + Send + 'static,
    {
        Self(Arc::new(move || Box::pin(ask())))
    }

    /// Asks, for no longer than `limit`. An error needs operator action, because waiting alone may never fix it.
    pub(crate) async fn ask(&self, limit: Duration) -> Result<Credentials, TransportError> {
        // A task of its own: a provider that panics must not take along the engine's task that connects.
        let mut asked = tokio::task::JoinSet::new();
        asked.spawn((self.0)());
        let error = match timeout(limit, asked.join_next()).await {
            Ok(Some(Ok(Ok(credentials)))) => return Ok(credentials),
            Ok(Some(Ok(Err(error)))) => format!("the credential provider failed: {error}"),
            Ok(_) => "the credential provider panicked".to_owned(),
            Err(_) => format!("the credential provider did not answer within connect_timeout ({limit:?})"),
        };
        Err(unavailable(error).requiring_operator())
    }
}

impl fmt::Debug for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Provider")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(5);

    /// Issue 8, row 7.
    #[tokio::test(start_paused = true)]
    async fn provider_may_fail_panic_or_hang() {
        let fails = Provider::new(|| async { Err("vault is sealed".into()) });
        let hangs = Provider::new(std::future::pending);
        #[allow(clippy::panic, reason = "the subject of this test")]
        let panics = Provider::new(|| async { panic!("s3cret") });
        for (provider, expected) in [(fails, "vault is sealed"), (hangs, "within"), (panics, "panicked")] {
            let error = provider.ask(LIMIT).await.unwrap_err();
            assert!(error.is_unavailable() && error.requires_operator(), "{error}");
            assert!(error.to_string().contains(expected), "{error}");
            assert!(!error.to_string().contains("s3cret"), "{error}");
        }
        let works = Provider::new(|| async { Ok(Credentials::new("u", "p")) });
        assert_eq!(works.ask(LIMIT).await.unwrap(), Credentials::new("u", "p"));
    }
}
