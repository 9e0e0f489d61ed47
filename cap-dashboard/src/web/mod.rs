//! What all routes share: who asks, in which language, and what a handler may take.

mod app;
mod context;
mod extract;
mod failures;
mod response_headers;
mod scan;
mod scraper;

pub(crate) use app::{App, Settings};
pub(crate) use context::{Context, LANGUAGE_COOKIE, THEME_COOKIE, Theme, establish};
pub(crate) use extract::{ActForm, ActJson, AnyForm, Reader};
pub(crate) use failures::{FailureKind, failure_kinds};
pub(crate) use response_headers::protect;
pub(crate) use scan::{SCANNED_ROWS, scan, search};
pub(crate) use scraper::Scraper;
