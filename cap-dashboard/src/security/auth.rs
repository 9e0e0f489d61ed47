//! The choice of how users prove who they are.

use std::fmt;
use std::time::Duration;

use super::rights::Rights;
use super::signing_key::SigningKey;
use crate::SetupError;

/// The fewest characters of an access token.
const SHORTEST_TOKEN: usize = 12;
/// How long a session lasts without [`Auth::sessions_last`].
const SESSION_LASTS: Duration = Duration::from_hours(12);

/// A name and a secret with which a user or a program is let in.
#[derive(Clone)]
pub struct AccessToken {
    pub(super) name: String,
    secret: String,
    pub(super) rights: Rights,
}

impl AccessToken {
    /// A token with these rights. The secret has at least 12 characters; make it random, such as with
    /// `openssl rand -base64 24`. The name stands in the audit.
    pub fn new(name: impl Into<String>, secret: impl Into<String>, rights: Rights) -> Self {
        Self { name: name.into(), secret: secret.into(), rights }
    }
}

impl fmt::Debug for AccessToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccessToken")
            .field("name", &self.name)
            .field("rights", &self.rights)
            .finish_non_exhaustive()
    }
}

/// How users prove who they are. A router cannot be built without one.
///
/// | | who is let in |
/// |---|---|
/// | [`tokens`](Self::tokens) | programs that send `Authorization: Bearer <secret>` |
/// | [`login`](Self::login) | also people, by a page that asks for the same names and secrets, and a signed cookie |
/// | [`own_layer`](Self::own_layer) | whom a layer of yours lets in, such as one for `OpenID` Connect |
/// | [`loopback`](Self::loopback) | whoever uses a browser on this machine |
/// | [`allow_anonymous`](Self::allow_anonymous) | everyone |
///
/// ```
/// use cap_dashboard::{AccessToken, Auth, Rights, SigningKey};
///
/// # fn secret(_: &str) -> String { "an example that is long enough for a key".to_owned() }
/// let auth = Auth::login(
///     SigningKey::new(secret("DASHBOARD_KEY"))?,
///     [
///         AccessToken::new("alice", secret("ALICE"), Rights::read().act()),
///         AccessToken::new("monitoring", secret("MONITORING"), Rights::read()),
///     ],
/// );
/// # Ok::<(), cap_dashboard::SetupError>(())
/// ```
///
/// A token is never taken from a URL, where it would end in logs and in the browser's history.
#[derive(Debug, Clone)]
pub struct Auth {
    pub(super) method: Method,
    pub(super) key: Option<SigningKey>,
    pub(crate) session_lasts: Duration,
    metrics_token: Option<AccessToken>,
}

#[derive(Debug, Clone)]
pub(super) enum Method {
    Tokens { tokens: Vec<AccessToken>, has_login: bool },
    OwnLayer,
    Loopback(Rights),
    Anonymous(Rights),
}

impl Auth {
    /// Lets in requests with `Authorization: Bearer <secret>`: for programs. There is no login page.
    pub fn tokens(tokens: impl IntoIterator<Item = AccessToken>) -> Self {
        Self::new(Method::Tokens { tokens: tokens.into_iter().collect(), has_login: false }, None)
    }

    /// Adds to [`tokens`](Self::tokens) a page where people log in with the same names and secrets. The session is a signed
    /// cookie (`HttpOnly`, `SameSite=Strict`, and `Secure` unless the page is on a loopback address), which any node with
    /// this key accepts. It ends after 12 hours ([`sessions_last`](Self::sessions_last)), at the log-out, and when the
    /// token is removed or its secret changes.
    pub fn login(key: SigningKey, tokens: impl IntoIterator<Item = AccessToken>) -> Self {
        Self::new(Method::Tokens { tokens: tokens.into_iter().collect(), has_login: true }, Some(key))
    }

    /// Lets in requests that carry a [`User`](crate::User) in their extensions, which a layer of yours around the router has
    /// put there. A request without one is rejected. The key signs the tokens of forms; give every node the same one.
    #[must_use]
    pub fn own_layer(key: SigningKey) -> Self {
        Self::new(Method::OwnLayer, Some(key))
    }

    /// Lets in whoever connects from this machine, by the name `localhost` or a loopback address, and not through a proxy.
    /// A page of another site cannot get in by making its name point here, as the `Host` header is checked. Everybody who
    /// has an account on this machine is let in.
    ///
    /// The router must know who connects: serve it with
    /// `into_make_service_with_connect_info::<std::net::SocketAddr>()`, or with [`Dashboard::serve`](crate::Dashboard::serve).
    /// Otherwise every request is rejected.
    #[must_use]
    pub fn loopback(rights: Rights) -> Self {
        Self::new(Method::Loopback(rights), None)
    }

    /// Lets in everyone who can reach the router. It logs a warning at the start.
    #[must_use]
    pub fn allow_anonymous(rights: Rights) -> Self {
        Self::new(Method::Anonymous(rights), None)
    }

    /// Sets how long a session lasts after the login. Default: 12 hours.
    #[must_use]
    pub fn sessions_last(mut self, duration: Duration) -> Self {
        self.session_lasts = duration;
        self
    }

    /// Lets in whoever sends `Authorization: Bearer <secret>` to `/metrics`, and to nothing else: for a monitoring system. It
    /// has at least 12 characters. Without it, `/metrics` needs the right to read.
    #[must_use]
    pub fn metrics_token(mut self, secret: impl Into<String>) -> Self {
        self.metrics_token = Some(AccessToken::new("metrics", secret, Rights::read()));
        self
    }

    fn new(method: Method, key: Option<SigningKey>) -> Self {
        Self { method, key, session_lasts: SESSION_LASTS, metrics_token: None }
    }

    /// Checks the settings, and makes the key of this process if none was given.
    pub(crate) fn prepare(mut self) -> Result<(Self, SigningKey), SetupError> {
        if let Method::Tokens { tokens, .. } = &self.method {
            if tokens.is_empty() {
                return Err(SetupError::NoTokens);
            }
            for token in tokens {
                token.check()?;
                if tokens.iter().filter(|other| other.name == token.name).count() > 1 {
                    return Err(SetupError::TwoTokens { name: token.name.clone() });
                }
            }
        }
        if let Some(token) = &self.metrics_token {
            token.check()?;
        }
        if matches!(self.method, Method::Anonymous(_)) {
            tracing::warn!("dashboard open to everyone who can reach it: authentication is switched off");
        }
        let key = match self.key.take() {
            Some(key) => key,
            None => SigningKey::random()?,
        };
        self.key = Some(key.clone());
        Ok((self, key))
    }

    pub(crate) fn has_login(&self) -> bool {
        matches!(self.method, Method::Tokens { has_login: true, .. })
    }

    /// The token with this secret, and with this name if one is given. All secrets are compared, each in constant time.
    pub(crate) fn token(&self, key: &SigningKey, name: Option<&str>, secret: &str) -> Option<&AccessToken> {
        let Method::Tokens { tokens, .. } = &self.method else { return None };
        let mut found = None;
        for token in tokens {
            if token.is_secret(key, secret) && name.is_none_or(|name| name == token.name) {
                found = Some(token);
            }
        }
        found
    }

    pub(super) fn has_metrics_token(&self) -> bool {
        self.metrics_token.is_some()
    }

    /// Whether this is the secret of the token for metrics.
    pub(super) fn is_metrics_token(&self, key: &SigningKey, secret: &str) -> bool {
        self.metrics_token.as_ref().is_some_and(|token| token.is_secret(key, secret))
    }

    /// The token of a name, for a session.
    pub(super) fn token_named(&self, name: &str) -> Option<&AccessToken> {
        let Method::Tokens { tokens, .. } = &self.method else { return None };
        tokens.iter().find(|token| token.name == name)
    }
}

impl AccessToken {
    fn check(&self) -> Result<(), SetupError> {
        if self.secret.chars().count() < SHORTEST_TOKEN {
            return Err(SetupError::ShortToken { name: self.name.clone(), needed: SHORTEST_TOKEN });
        }
        Ok(())
    }

    /// Whether this is its secret, compared in constant time.
    fn is_secret(&self, key: &SigningKey, secret: &str) -> bool {
        let signature = key.sign("secret", &[self.secret.as_bytes()]);
        key.verify("secret", &[secret.as_bytes()], &signature)
    }

    /// Stands for the secret in the signature of a session, so that a changed secret ends its sessions.
    pub(super) fn secret_bytes(&self) -> &[u8] {
        self.secret.as_bytes()
    }
}
