//! What is wrong with a request, or why it cannot be served.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use cap_core::error::{StorageError, StorageErrorKind};

/// Why a request is not served. A page or a JSON error is made of it where the language is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Problem {
    /// Invalid parameters or body.
    Bad(String),
    /// No valid credentials.
    Unknown,
    /// Not from this machine, or not by its own name.
    NotFromHere,
    /// The router does not know who connects.
    NoConnectInfo,
    /// The user may not do this.
    Forbidden(&'static str),
    /// The token of the form is missing or of another session, or the request is from another site.
    NotOurForm,
    NotFound,
    WrongMethod,
    TooLarge(usize),
    TooSlow,
    /// Too many wrong credentials; seconds to wait.
    TooManyGuesses(u64),
    /// Too many streams.
    TooManyStreams,
    /// The storage rejects it.
    Rejected(String),
    /// The storage cannot be used now.
    Storage(String),
    /// The storage took too long.
    StorageSlow,
    /// A fault of ours.
    Internal(String),
}

impl Problem {
    pub(crate) fn bad(text: impl Into<String>) -> Self {
        Self::Bad(text.into())
    }

    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::Bad(_) => StatusCode::BAD_REQUEST,
            Self::Unknown => StatusCode::UNAUTHORIZED,
            Self::NotFromHere | Self::NoConnectInfo | Self::Forbidden(_) | Self::NotOurForm => {
                StatusCode::FORBIDDEN
            }
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::WrongMethod => StatusCode::METHOD_NOT_ALLOWED,
            Self::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::TooManyGuesses(_) => StatusCode::TOO_MANY_REQUESTS,
            Self::Rejected(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::TooManyStreams | Self::Storage(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::StorageSlow => StatusCode::GATEWAY_TIMEOUT,
            Self::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// A stable name, for programs.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::Bad(_) => "bad-request",
            Self::Unknown => "no-credentials",
            Self::NotFromHere => "not-loopback",
            Self::NoConnectInfo => "no-connect-info",
            Self::Forbidden(_) => "missing-right",
            Self::NotOurForm => "csrf",
            Self::NotFound => "not-found",
            Self::WrongMethod => "method-not-allowed",
            Self::TooLarge(_) => "too-large",
            Self::TooSlow => "request-timeout",
            Self::TooManyGuesses(_) => "too-many-guesses",
            Self::TooManyStreams => "too-many-streams",
            Self::Rejected(_) => "rejected",
            Self::Storage(_) => "storage-unavailable",
            Self::StorageSlow => "storage-timeout",
            Self::Internal(_) => "internal",
        }
    }

    /// What happened and what to do, in English.
    pub(crate) fn detail(&self) -> String {
        match self {
            Self::Bad(text) | Self::Rejected(text) | Self::Storage(text) => text.clone(),
            Self::Unknown => "credentials are missing or wrong: log in, or send \"Authorization: Bearer <token>\"".into(),
            Self::NotFromHere => "only requests from this machine are accepted, by the name localhost or a loopback address, and \
                                  not through a proxy"
                .into(),
            Self::NoConnectInfo => "the server does not say who connects: serve the router with \
                                    into_make_service_with_connect_info::<SocketAddr>()"
                .into(),
            Self::Forbidden(right) => format!("the right to {right} is missing"),
            Self::NotOurForm => "the form token is missing or expired, or the request comes from another site: reload the page \
                                 and try again"
                .into(),
            Self::NotFound => "there is no such page or message".into(),
            Self::WrongMethod => "this path has no such method".into(),
            Self::TooLarge(limit) => format!("the body is larger than {limit} bytes"),
            Self::TooSlow => "the body did not arrive in time".into(),
            Self::TooManyGuesses(seconds) => format!("too many wrong credentials: try again in {seconds} s"),
            Self::TooManyStreams => "too many live pages are open: this one does not update itself".into(),
            Self::StorageSlow => "the storage did not answer in time: narrow the filter, or try again".into(),
            Self::Internal(_) => "a fault of the dashboard, which is in its log".into(),
        }
    }
}

impl From<StorageError> for Problem {
    fn from(error: StorageError) -> Self {
        match error.kind() {
            StorageErrorKind::Refused => Self::Rejected(error.to_string()),
            _ => Self::Storage(error.to_string()),
        }
    }
}

impl From<askama::Error> for Problem {
    fn from(error: askama::Error) -> Self {
        Self::Internal(error.to_string())
    }
}

/// A bare response that carries the problem, for the layer that knows the language and whether a page is expected.
impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.status().into_response();
        response.extensions_mut().insert(self);
        response
    }
}

/// The problem as a program reads it.
pub(crate) fn api_error(problem: &Problem) -> Response {
    let body = serde_json::json!({ "error": { "code": problem.code(), "message": problem.detail() } });
    let mut response = (problem.status(), Json(body)).into_response();
    add_headers(problem, &mut response);
    response
}

pub(crate) fn add_headers(problem: &Problem, response: &mut Response) {
    match problem {
        Problem::Unknown => {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        Problem::TooManyGuesses(seconds) => {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(*seconds));
        }
        _ => {}
    }
}
