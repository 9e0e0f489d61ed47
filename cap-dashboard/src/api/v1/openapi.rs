//! The description of the API, made of its functions.

use axum::Json;
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi};

use super::{acts, messages, overview};
use crate::web::Reader;

#[derive(OpenApi)]
#[openapi(
    info(title = "cap", description = "Messages of the event bus cap: find them, read them, run them again."),
    paths(
        overview::show,
        overview::audit,
        messages::list,
        messages::show,
        messages::failures,
        acts::rerun,
        acts::edit,
        acts::delete,
        acts::cancel,
    ),
    modifiers(&Access),
    security(("token" = []), ("session" = [])),
)]
struct Description;

/// How a caller proves who it is.
struct Access;

impl Modify for Access {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
        let cookie = ApiKey::Cookie(ApiKeyValue::new(crate::security::SESSION_COOKIE));
        let components = openapi.components.get_or_insert_default();
        components.add_security_scheme("token", SecurityScheme::Http(bearer));
        components.add_security_scheme("session", SecurityScheme::ApiKey(cookie));
    }
}

/// The description, with the address of this API.
pub(super) async fn describe(reader: Reader) -> Json<utoipa::openapi::OpenApi> {
    let mut description = Description::openapi();
    let address = format!("{}/api/v1", reader.context.base);
    description.servers = Some(vec![utoipa::openapi::Server::new(address)]);
    Json(description)
}
