//! The token with which a monitoring system reads the metrics and nothing else.

use std::time::Instant;

use axum::http::request::Parts;

use super::auth::{Auth, Method};
use super::login_limit::LoginLimit;
use super::signing_key::SigningKey;
use super::visitor::{bearer, peer};

/// Whether a request carries the token for metrics. An error after too many wrong ones: how many seconds to wait.
pub(crate) fn may_scrape(
    parts: &Parts,
    auth: &Auth,
    key: &SigningKey,
    limit: &LoginLimit,
) -> Result<bool, u64> {
    let Some(secret) = bearer(parts).filter(|_| auth.has_metrics_token()) else { return Ok(false) };
    let address = peer(parts);
    limit.check(address, Instant::now()).map_err(|wait| wait.as_secs() + 1)?;
    let is_token = auth.is_metrics_token(key, secret);
    // Where tokens are the way in, a wrong one is counted when it is looked up among them.
    if !is_token && !matches!(auth.method, Method::Tokens { .. }) {
        limit.failed(address);
    }
    Ok(is_token)
}
