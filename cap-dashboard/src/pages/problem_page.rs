//! The page for a problem, and the way to the log-in for somebody who is not known.

use askama::Template;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};

use super::shell::Shell;
use crate::data::encoded;
use crate::request::{Problem, add_headers, api_error};
use crate::text::Text;
use crate::web::{App, Context};

#[derive(Debug, Template)]
#[template(path = "problem.html")]
struct ProblemPage {
    shell: Shell,
    t: &'static Text,
    status: u16,
    detail: String,
}

/// The page for a problem. Who is not known is sent to the log-in, if there is one.
pub(crate) fn problem_page(app: &App, context: &Context, problem: &Problem) -> Response {
    if *problem == Problem::Unknown && app.auth.has_login() {
        let to = format!("{}/login?back={}", context.base, encoded(&context.here));
        let to = HeaderValue::try_from(to).unwrap_or(HeaderValue::from_static("/"));
        return (StatusCode::SEE_OTHER, [(header::LOCATION, to)]).into_response();
    }
    let mut shell = Shell::bare(app, context, "");
    if let Ok(visitor) = &context.visitor {
        shell.user = Some(visitor.user.name.clone());
        shell.can_log_out = app.auth.has_login();
    }
    let status = problem.status();
    let page = ProblemPage { t: shell.t, shell, status: status.as_u16(), detail: problem.detail() };
    let mut response = match page.render() {
        Ok(html) => (status, Html(html)).into_response(),
        Err(_) => return api_error(problem),
    };
    add_headers(problem, &mut response);
    response
}
