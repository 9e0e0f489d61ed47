//! What handlers take from a request. Whoever takes a [`Reader`] or an act is let in and has the right to it.

use std::sync::Arc;
use std::time::Duration;

use axum::body::to_bytes;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use bytes::Bytes;
use cap_core::Messages;
use serde::de::DeserializeOwned;

use super::app::App;
use super::context::Context;
use crate::payload::Shown;
use crate::request::{Params, Problem};
use crate::security::{Denied, User, Via, Visitor, is_cross_site, is_csrf_token};

/// The header with the form token, for scripts.
const CSRF_HEADER: &str = "x-csrf-token";
/// The field with the form token.
const CSRF_FIELD: &str = "csrf";
/// The largest body besides payloads, in bytes.
const LARGEST_BODY: usize = 256 * 1024;
/// How long a body may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(20);

/// A visitor who may read.
#[derive(Debug, Clone)]
pub(crate) struct Reader {
    pub(crate) app: Arc<App>,
    pub(crate) context: Arc<Context>,
    pub(crate) user: User,
    pub(crate) query: Params,
}

/// A form of ours that changes something, sent by a visitor who may act.
#[derive(Debug)]
pub(crate) struct ActForm {
    pub(crate) reader: Reader,
    pub(crate) form: Params,
}

/// A JSON body that asks to change something, sent by a visitor who may act.
#[derive(Debug)]
pub(crate) struct ActJson<T> {
    pub(crate) reader: Reader,
    pub(crate) body: T,
}

/// A form from somebody who need not be known, such as one who logs in. It comes from our own site.
#[derive(Debug)]
pub(crate) struct AnyForm {
    pub(crate) app: Arc<App>,
    pub(crate) context: Arc<Context>,
    pub(crate) form: Params,
    pub(crate) parts: Parts,
}

impl Reader {
    fn of(parts: &Parts, app: &Arc<App>) -> Result<(Self, Visitor), Problem> {
        let context = context(parts)?;
        let visitor = context.visitor.clone().map_err(|denied| match denied {
            Denied::Unknown => Problem::Unknown,
            Denied::TooManyGuesses(seconds) => Problem::TooManyGuesses(seconds),
            Denied::NotFromHere => Problem::NotFromHere,
            Denied::NoConnectInfo => Problem::NoConnectInfo,
        })?;
        let query = Params::of_query(parts.uri.query().unwrap_or_default())?;
        let user = visitor.user.clone();
        Ok((Self { app: Arc::clone(app), context, user, query }, visitor))
    }

    /// Like [`of`](Self::of), for a request that changes something.
    fn acting(parts: &Parts, app: &Arc<App>) -> Result<(Self, Visitor), Problem> {
        let (reader, visitor) = Self::of(parts, app)?;
        if !visitor.user.rights.may_act() {
            return Err(Problem::Forbidden("act"));
        }
        if visitor.via != Via::Bearer && is_cross_site(parts) {
            return Err(Problem::NotOurForm);
        }
        Ok((reader, visitor))
    }

    /// Whether the visitor sees what is masked.
    pub(crate) fn unmasks(&self) -> bool {
        self.user.rights.may_unmask()
    }

    /// A message as this visitor may see it.
    pub(crate) fn shown(&self, row: &cap_core::monitor::Row) -> Shown {
        Shown::of(row, &self.app.masks, self.unmasks())
    }

    /// The stored messages, acted on in the name of this visitor.
    pub(crate) fn messages(&self) -> Messages {
        self.app.data.messages().by(&self.user.name)
    }
}

fn context(parts: &Parts) -> Result<Arc<Context>, Problem> {
    let context = parts.extensions.get::<Arc<Context>>();
    context.cloned().ok_or_else(|| Problem::Internal("the request has no context".to_owned()))
}

fn check_token(
    app: &App,
    visitor: &Visitor,
    headers: &HeaderMap,
    field: Option<&str>,
) -> Result<(), Problem> {
    let header = headers.get(CSRF_HEADER).and_then(|value| value.to_str().ok());
    let is_ours = visitor.via == Via::Bearer
        || header.or(field).is_some_and(|token| is_csrf_token(&app.key, visitor, token));
    if is_ours { Ok(()) } else { Err(Problem::NotOurForm) }
}

async fn body(request: Request, limit: usize) -> Result<Bytes, Problem> {
    let announced = request.headers().get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    if announced.and_then(|text| text.parse::<usize>().ok()).is_some_and(|length| length > limit) {
        return Err(Problem::TooLarge(limit));
    }
    let read = tokio::time::timeout(BODY_TIMEOUT, to_bytes(request.into_body(), limit)).await;
    let read = read.map_err(|_| Problem::TooSlow)?;
    read.map_err(|error| {
        let mut source: Option<&dyn std::error::Error> = Some(&error);
        while let Some(cause) = source {
            if cause.to_string().contains("length limit exceeded") {
                return Problem::TooLarge(limit);
            }
            source = cause.source();
        }
        Problem::bad("the body could not be read")
    })
}

/// Reads a form. The limit leaves room for a payload whose every byte is encoded as three.
async fn form(request: Request, payload_limit: usize) -> Result<Params, Problem> {
    let kind =
        request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !kind.starts_with("application/x-www-form-urlencoded") {
        return Err(Problem::bad("a form is expected: application/x-www-form-urlencoded"));
    }
    let bytes = body(request, LARGEST_BODY + 3 * payload_limit).await?;
    let pairs = axum::Form::<Vec<(String, String)>>::from_request(
        Request::builder()
            .method("POST")
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(axum::body::Body::from(bytes))
            .map_err(|error| Problem::Internal(error.to_string()))?,
        &(),
    )
    .await
    .map_err(|_| Problem::bad("invalid form"))?;
    Ok(Params::of_pairs(pairs.0))
}

impl FromRequestParts<Arc<App>> for Reader {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Problem> {
        Self::of(parts, app).map(|(reader, _)| reader)
    }
}

impl FromRequest<Arc<App>> for ActForm {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, Problem> {
        let (parts, body) = request.into_parts();
        let (reader, visitor) = Reader::acting(&parts, app)?;
        let headers = parts.headers.clone();
        let form = form(Request::from_parts(parts, body), app.settings.edit_limit).await?;
        check_token(app, &visitor, &headers, form.get(CSRF_FIELD))?;
        Ok(Self { reader, form })
    }
}

impl<T: DeserializeOwned> FromRequest<Arc<App>> for ActJson<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, Problem> {
        let (parts, rest) = request.into_parts();
        let (reader, visitor) = Reader::acting(&parts, app)?;
        check_token(app, &visitor, &parts.headers, None)?;
        let bytes =
            body(Request::from_parts(parts, rest), LARGEST_BODY + 2 * app.settings.edit_limit).await?;
        let body =
            serde_json::from_slice(&bytes).map_err(|error| Problem::bad(format!("invalid body: {error}")))?;
        Ok(Self { reader, body })
    }
}

impl FromRequest<Arc<App>> for AnyForm {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, Problem> {
        let (parts, body) = request.into_parts();
        if is_cross_site(&parts) {
            return Err(Problem::NotOurForm);
        }
        let context = context(&parts)?;
        let form = form(Request::from_parts(parts.clone(), body), 0).await?;
        Ok(Self { app: Arc::clone(app), context, form, parts })
    }
}
