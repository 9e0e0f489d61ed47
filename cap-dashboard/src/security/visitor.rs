//! Who makes a request, and by which proof.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use axum::extract::ConnectInfo;
use axum::http::header;
use axum::http::request::Parts;

use super::auth::{Auth, Method};
use super::login_limit::LoginLimit;
use super::origin::{host_of, is_loopback_host, is_proxied};
use super::rights::{Rights, User};
use super::sessions::{Ended, SESSION_COOKIE, Session, cookie_of};
use super::signing_key::SigningKey;

/// By which proof a user is known. A browser sends all but a bearer token by itself, also when a page of another site makes
/// it: these need a form token for every act.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Via {
    Bearer,
    Session(Session),
    OwnLayer,
    Loopback,
    Anonymous,
}

/// A user who is let in.
#[derive(Debug, Clone)]
pub(crate) struct Visitor {
    pub(crate) user: User,
    pub(crate) via: Via,
}

/// Why a request is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Denied {
    /// No credentials, or wrong ones.
    Unknown,
    /// Too many wrong credentials; how many seconds to wait.
    TooManyGuesses(u64),
    /// Only this machine is let in, and the request is not from here, or not by its own name.
    NotFromHere,
    /// The router was not told who connects.
    NoConnectInfo,
}

/// Finds out who makes a request.
pub(crate) fn identify(
    parts: &Parts,
    auth: &Auth,
    key: &SigningKey,
    ended: &Ended,
    limit: &LoginLimit,
) -> Result<Visitor, Denied> {
    match &auth.method {
        Method::Anonymous(rights) => Ok(anybody("anonymous", *rights, Via::Anonymous)),
        Method::Loopback(rights) => {
            let Some(peer) = peer(parts) else { return Err(Denied::NoConnectInfo) };
            let is_here = peer.to_canonical().is_loopback()
                && host_of(parts).is_some_and(is_loopback_host)
                && !is_proxied(&parts.headers);
            if is_here { Ok(anybody("local", *rights, Via::Loopback)) } else { Err(Denied::NotFromHere) }
        }
        Method::OwnLayer => match parts.extensions.get::<User>() {
            Some(user) => Ok(Visitor { user: user.clone(), via: Via::OwnLayer }),
            None => Err(Denied::Unknown),
        },
        Method::Tokens { has_login, .. } => {
            if let Some(secret) = bearer(parts) {
                return of_bearer(parts, auth, key, limit, secret);
            }
            let cookie = cookie_of(&parts.headers, SESSION_COOKIE).filter(|_| *has_login);
            let session = cookie.and_then(|cookie| Session::of_cookie(key, auth, ended, cookie));
            let visitor = session.and_then(|session| {
                let token = auth.token_named(&session.name)?;
                let user = User::new(token.name.clone(), token.rights);
                Some(Visitor { user, via: Via::Session(session) })
            });
            visitor.ok_or(Denied::Unknown)
        }
    }
}

fn of_bearer(
    parts: &Parts,
    auth: &Auth,
    key: &SigningKey,
    limit: &LoginLimit,
    secret: &str,
) -> Result<Visitor, Denied> {
    let address = peer(parts);
    limit.check(address, Instant::now()).map_err(|wait| Denied::TooManyGuesses(wait.as_secs() + 1))?;
    let Some(token) = auth.token(key, None, secret) else {
        if !auth.is_metrics_token(key, secret) {
            limit.failed(address);
        }
        return Err(Denied::Unknown);
    };
    Ok(Visitor { user: User::new(token.name.clone(), token.rights), via: Via::Bearer })
}

fn anybody(name: &str, rights: Rights, via: Via) -> Visitor {
    Visitor { user: User::new(name, rights), via }
}

/// The secret in the header `Authorization`.
pub(super) fn bearer(parts: &Parts) -> Option<&str> {
    let value = parts.headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, secret) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(secret.trim())
}

/// The address that has connected.
pub(crate) fn peer(parts: &Parts) -> Option<IpAddr> {
    parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(address)| address.ip())
}

/// The token that a form of this visitor carries. Another site cannot read it, and it is worth nothing to another user.
pub(crate) fn csrf_token(key: &SigningKey, visitor: &Visitor) -> String {
    key.sign("form", &subject(visitor))
}

/// Whether a request carries its visitor's token.
pub(crate) fn is_csrf_token(key: &SigningKey, visitor: &Visitor, token: &str) -> bool {
    key.verify("form", &subject(visitor), token)
}

fn subject(visitor: &Visitor) -> [&[u8]; 2] {
    let session = match &visitor.via {
        Via::Session(session) => session.id.as_bytes(),
        Via::Bearer => b"bearer",
        Via::OwnLayer => b"layer",
        Via::Loopback => b"loopback",
        Via::Anonymous => b"anonymous",
    };
    [visitor.user.name.as_bytes(), session]
}
