//! Logging in and out.

use std::sync::Arc;
use std::time::Instant;

use askama::Template;
use axum::Extension;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Redirect, Response};

use super::preview::back;
use super::shell::{Shell, page};
use crate::request::{Params, Problem};
use crate::security::{SESSION_COOKIE, Session, Via, peer};
use crate::text::Text;
use crate::web::{AnyForm, App, Context};

#[derive(Debug, Template)]
#[template(path = "login.html")]
struct LoginPage {
    shell: Shell,
    t: &'static Text,
    name: String,
    back: String,
    /// What the last try came to.
    message: Option<&'static str>,
    is_error: bool,
}

pub(super) async fn show(
    State(app): State<Arc<App>>,
    Extension(context): Extension<Arc<Context>>,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    if !app.auth.has_login() {
        return Err(Problem::NotFound);
    }
    let query = Params::of_query(query.as_deref().unwrap_or_default())?;
    if context.visitor.is_ok() {
        return Ok(Redirect::to(&context.url(&back(&query))).into_response());
    }
    let message = query.get("out").map(|_| context.text().logged_out);
    page(&LoginPage::of(&app, &context, String::new(), back(&query), message, false))
}

pub(super) async fn log_in(AnyForm { app, context, form, parts }: AnyForm) -> Result<Response, Problem> {
    if !app.auth.has_login() {
        return Err(Problem::NotFound);
    }
    let address = peer(&parts);
    let name = form.get("name").unwrap_or_default();
    let again = |status, message| {
        let page = page(&LoginPage::of(&app, &context, name.to_owned(), back(&form), Some(message), true))?;
        Ok((status, page).into_response())
    };
    if let Err(wait) = app.limit.check(address, Instant::now()) {
        let mut response: Response = again(StatusCode::TOO_MANY_REQUESTS, context.text().login_wait)?;
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(wait.as_secs() + 1));
        return Ok(response);
    }
    let Some(token) = app.auth.token(&app.key, Some(name), form.get("token").unwrap_or_default()) else {
        app.limit.failed(address);
        tracing::warn!(name, ?address, "log-in to the dashboard failed: wrong name or access token");
        return again(StatusCode::UNAUTHORIZED, context.text().login_failed);
    };
    let begun = Session::begin(&app.key, token, app.auth.session_lasts);
    let (_, value) = begun.ok_or_else(|| Problem::Internal("no random numbers for a session".to_owned()))?;
    tracing::info!(name, "logged in to the dashboard");
    let to = context.url(&back(&form));
    with_cookie(&context, &to, &value, app.auth.session_lasts.as_secs())
}

pub(super) async fn log_out(AnyForm { app, context, form, .. }: AnyForm) -> Result<Response, Problem> {
    let visitor = context.visitor.as_ref().map_err(|_| Problem::Unknown)?;
    if form.get("csrf") != Some(&context.csrf) {
        return Err(Problem::NotOurForm);
    }
    if let Via::Session(session) = &visitor.via {
        app.ended.end(session);
        tracing::info!(name = visitor.user.name, "logged out of the dashboard");
    }
    with_cookie(&context, &format!("{}/login?out=1", context.base), "", 0)
}

/// A redirect that sets the session's cookie for a number of seconds; zero deletes it.
fn with_cookie(context: &Context, to: &str, value: &str, seconds: u64) -> Result<Response, Problem> {
    let path = if context.base.is_empty() { "/" } else { &context.base };
    let secure = if context.is_loopback { "" } else { "; Secure" };
    let cookie = format!(
        "{SESSION_COOKIE}={value}; Path={path}; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}"
    );
    let cookie = HeaderValue::try_from(cookie).map_err(|error| Problem::Internal(error.to_string()))?;
    let mut response = Redirect::to(to).into_response();
    response.headers_mut().insert(header::SET_COOKIE, cookie);
    Ok(response)
}

impl LoginPage {
    fn of(
        app: &App,
        context: &Context,
        name: String,
        back: String,
        message: Option<&'static str>,
        is_error: bool,
    ) -> Self {
        let shell = Shell::bare(app, context, "login");
        Self { t: shell.t, shell, name, back, message, is_error }
    }
}
