//! The frame around every page: navigation, banner, user, language, colors.

use askama::Template;
use axum::response::{Html, IntoResponse, Response};
use cap_core::storage::{Side, Status};

use super::assets::STAMP;
use crate::request::Problem;
use crate::text::{Amount, Text};
use crate::web::{App, Context, Reader, Theme};

/// The frame around a page.
#[derive(Debug)]
pub(crate) struct Shell {
    pub(crate) t: &'static Text,
    pub(crate) lang: &'static str,
    /// `light`, `dark`, or empty for the system's.
    pub(crate) theme: &'static str,
    pub(crate) base: String,
    /// The address of the overview.
    pub(crate) home: String,
    /// This page, to come back to.
    pub(crate) here: String,
    pub(crate) section: &'static str,
    pub(crate) csrf: String,
    /// The name of the user who is let in.
    pub(crate) user: Option<String>,
    pub(crate) may_act: bool,
    pub(crate) can_log_out: bool,
    pub(crate) production: Option<String>,
    pub(crate) storage: &'static str,
    pub(crate) broker: Option<String>,
    pub(crate) version: &'static str,
    pub(crate) stamp: &'static str,
    pub(crate) parked: Amount,
    pub(crate) delayed: Amount,
}

impl Shell {
    /// The frame for somebody who is not known.
    pub(crate) fn bare(app: &App, context: &Context, section: &'static str) -> Self {
        Self {
            t: context.text(),
            lang: context.language.tag(),
            theme: match context.theme {
                Theme::System => "",
                Theme::Light => "light",
                Theme::Dark => "dark",
            },
            base: context.base.clone(),
            home: context.url("/"),
            here: context.here.clone(),
            section,
            csrf: context.csrf.clone(),
            user: None,
            may_act: false,
            can_log_out: false,
            // A stranger learns nothing of what runs here.
            production: app.settings.production.clone().filter(|_| context.visitor.is_ok()),
            storage: app.data.operator.storage_name(),
            broker: app.data.broker.clone(),
            version: env!("CARGO_PKG_VERSION"),
            stamp: STAMP,
            parked: Amount::default(),
            delayed: Amount::default(),
        }
    }

    /// The frame for a visitor who is let in.
    pub(crate) async fn new(reader: &Reader, section: &'static str) -> Self {
        let reading = reader.app.live.read().await;
        let parked = reading.count(Side::Inbox, Status::Failed) + reading.count(Side::Outbox, Status::Failed);
        let amount = |count| Amount { count, is_capped: reading.is_capped };
        Self {
            user: Some(reader.user.name.clone()),
            may_act: reader.user.rights.may_act(),
            can_log_out: reader.app.auth.has_login(),
            parked: amount(parked),
            delayed: amount(reading.count(Side::Outbox, Status::Delayed)),
            ..Self::bare(&reader.app, &reader.context, section)
        }
    }
}

/// A page as a response.
pub(crate) fn page(template: &impl Template) -> Result<Response, Problem> {
    Ok(Html(template.render()?).into_response())
}
