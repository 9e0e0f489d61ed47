//! The language and the colors that a browser has chosen.

use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse as _, Redirect, Response};

use super::preview::back;
use crate::request::Problem;
use crate::text::Language;
use crate::web::{AnyForm, LANGUAGE_COOKIE, THEME_COOKIE};

/// How long a browser remembers them: a year.
const SECONDS: u64 = 31_536_000;

/// Sets what the form names.
pub(super) async fn set(AnyForm { context, form, .. }: AnyForm) -> Result<Response, Problem> {
    let mut response = Redirect::to(&context.url(&back(&form))).into_response();
    let path = if context.base.is_empty() { "/" } else { &context.base };
    let mut set = |name: &str, value: &str| {
        let cookie = format!("{name}={value}; Path={path}; Max-Age={SECONDS}; SameSite=Lax");
        if let Ok(cookie) = HeaderValue::try_from(cookie) {
            response.headers_mut().append(header::SET_COOKIE, cookie);
        }
    };
    if let Some(language) = form.get("language") {
        let language = Language::from_name(language).ok_or_else(|| Problem::bad("no such language"))?;
        set(LANGUAGE_COOKIE, language.tag());
    }
    match form.get("theme") {
        None => {}
        Some(theme @ ("system" | "light" | "dark")) => set(THEME_COOKIE, theme),
        Some(_) => return Err(Problem::bad("the colors are system, light or dark")),
    }
    Ok(response)
}
