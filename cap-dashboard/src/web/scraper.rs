//! Who may read the metrics.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;

use super::app::App;
use super::extract::Reader;
use crate::request::Problem;
use crate::security::may_scrape;

/// A request with the token for metrics, or from a visitor who may read.
#[derive(Debug)]
pub(crate) struct Scraper;

impl FromRequestParts<Arc<App>> for Scraper {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Problem> {
        let may = may_scrape(parts, &app.auth, &app.key, &app.limit);
        if may.map_err(Problem::TooManyGuesses)? {
            return Ok(Self);
        }
        Reader::from_request_parts(parts, app).await.map(|_| Self)
    }
}
