//! The style, the script and the icon.

use axum::extract::Path;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};

use crate::request::Problem;

/// Distinguishes the files of one version from those of another, so that browsers can keep them.
pub(crate) const STAMP: &str = concat!(env!("CARGO_PKG_VERSION"), "-1");

/// The files: name, type, content.
const FILES: [(&str, &str, &str); 3] = [
    ("dashboard.css", "text/css; charset=utf-8", include_str!("../../assets/dashboard.css")),
    ("dashboard.js", "text/javascript; charset=utf-8", include_str!("../../assets/dashboard.js")),
    ("icon.svg", "image/svg+xml", include_str!("../../assets/icon.svg")),
];

/// One of the files, by its exact name.
pub(super) async fn get(Path(name): Path<String>) -> Result<Response, Problem> {
    let (_, kind, content) = FILES.iter().find(|(file, ..)| *file == name).ok_or(Problem::NotFound)?;
    let mut response = content.into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=3600"));
    Ok(response)
}
