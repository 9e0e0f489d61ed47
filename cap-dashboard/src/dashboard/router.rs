//! All routes, and the layers around them.

use std::sync::Arc;

use axum::extract::{OriginalUri, Request, State};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse as _, Redirect, Response};
use axum::{Extension, Router};

use super::{health, metrics};
use crate::api;
use crate::pages::{self, problem_page};
use crate::request::{Problem, api_error};
use crate::web::{App, Context, establish, protect};

/// The router of a dashboard.
pub(super) fn router(app: Arc<App>) -> Router {
    Router::new()
        .merge(pages::routes())
        .nest("/api", api::routes())
        .merge(health::routes())
        .merge(metrics::routes())
        .fallback(no_page)
        .method_not_allowed_fallback(async || Problem::WrongMethod)
        .layer(from_fn_with_state(Arc::clone(&app), present))
        .layer(from_fn_with_state(Arc::clone(&app), establish))
        .layer(from_fn(protect))
        .with_state(app)
}

/// A path that has no route. With a slash too many, the overview is meant.
async fn no_page(
    Extension(context): Extension<Arc<Context>>,
    OriginalUri(original): OriginalUri,
    method: axum::http::Method,
) -> Result<Response, Problem> {
    let is_overview = original.path() == format!("{}/", context.base) && !context.base.is_empty();
    if is_overview && method == axum::http::Method::GET {
        return Ok(Redirect::to(&context.base).into_response());
    }
    Err(Problem::NotFound)
}

/// Makes a page or a JSON error of a problem.
async fn present(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let context = request.extensions().get::<Arc<Context>>().cloned();
    let mut response = next.run(request).await;
    let (Some(context), Some(problem)) = (context, response.extensions_mut().remove::<Problem>()) else {
        return response;
    };
    if let Problem::Internal(error) = &problem {
        tracing::error!(error, path = context.here, "dashboard could not answer a request");
    }
    if context.is_api { api_error(&problem) } else { problem_page(&app, &context, &problem) }
}
