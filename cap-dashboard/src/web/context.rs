//! What is known of a request before its handler runs: its visitor, its language, and where the dashboard is mounted.

use std::sync::Arc;

use axum::extract::{OriginalUri, Request, State};
use axum::http::header;
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::Response;

use super::app::App;
use crate::security::{Denied, Visitor, cookie_of, csrf_token, host_of, identify, is_loopback_host};
use crate::text::{Language, Text};

/// The cookie with the language that the user has chosen.
pub(crate) const LANGUAGE_COOKIE: &str = "cap-language";
/// The cookie with the colors that the user has chosen.
pub(crate) const THEME_COOKIE: &str = "cap-theme";

/// The colors of the pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Theme {
    /// As the system has it.
    System,
    Light,
    Dark,
}

/// What is known of a request.
#[derive(Debug, Clone)]
pub(crate) struct Context {
    /// The path before ours, without a slash at its end: empty, or such as `/cap`.
    pub(crate) base: String,
    /// The path within the dashboard, with its query.
    pub(crate) here: String,
    pub(crate) language: Language,
    pub(crate) theme: Theme,
    pub(crate) visitor: Result<Visitor, Denied>,
    /// Whether a program reads the response.
    pub(crate) is_api: bool,
    /// Whether the browser has asked for this machine by a loopback name.
    pub(crate) is_loopback: bool,
    /// The token for forms.
    pub(crate) csrf: String,
}

impl Context {
    fn of(parts: &Parts, app: &App) -> Self {
        let visitor = identify(parts, &app.auth, &app.key, &app.ended, &app.limit);
        let path = parts.uri.path();
        let base = app.settings.public_path.clone().unwrap_or_else(|| base(parts, path));
        let here = parts.uri.path_and_query().map_or(path, |all| all.as_str()).to_owned();
        let csrf = visitor.as_ref().map(|visitor| csrf_token(&app.key, visitor)).unwrap_or_default();
        let theme = match cookie_of(&parts.headers, THEME_COOKIE) {
            Some("light") => Theme::Light,
            Some("dark") => Theme::Dark,
            _ => Theme::System,
        };
        Self {
            base,
            here,
            language: language(parts),
            theme,
            visitor,
            is_api: path == "/api"
                || path.starts_with("/api/")
                || path.starts_with("/health")
                || path == "/metrics",
            is_loopback: host_of(parts).is_some_and(is_loopback_host),
            csrf,
        }
    }

    /// The address of a path of ours. A router that is nested at `/cap` has its overview there, not at `/cap/`.
    pub(crate) fn url(&self, path: &str) -> String {
        let below = path.strip_prefix('/').filter(|below| below.is_empty() || below.starts_with('?'));
        match below {
            Some(below) if !self.base.is_empty() => format!("{}{below}", self.base),
            _ => format!("{}{path}", self.base),
        }
    }

    pub(crate) fn text(&self) -> &'static Text {
        self.language.text()
    }
}

/// The path of the router into which ours is nested.
fn base(parts: &Parts, path: &str) -> String {
    let original = parts.extensions.get::<OriginalUri>().map_or(path, |original| original.0.path());
    let base = if path == "/" { original } else { original.strip_suffix(path).unwrap_or_default() };
    base.trim_end_matches('/').to_owned()
}

/// The language of the cookie, else the first of ours that the browser accepts.
fn language(parts: &Parts) -> Language {
    if let Some(chosen) = cookie_of(&parts.headers, LANGUAGE_COOKIE).and_then(Language::from_name) {
        return chosen;
    }
    let accepted = parts.headers.get(header::ACCEPT_LANGUAGE).and_then(|value| value.to_str().ok());
    let mut accepted = accepted.unwrap_or_default().split(',').map(str::trim);
    accepted.find_map(Language::of_tag).unwrap_or_default()
}

/// Finds out what is known of a request, for its handler and for the layer that shows problems.
pub(crate) async fn establish(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let (mut parts, body) = request.into_parts();
    let context = Arc::new(Context::of(&parts, &app));
    parts.extensions.insert(Arc::clone(&context));
    let mut response = next.run(Request::from_parts(parts, body)).await;
    response.extensions_mut().insert(context);
    response
}
