//! Who may see and do what: credentials, sessions, and the proof that a request comes from our own page.

mod auth;
mod login_limit;
mod metrics_token;
mod origin;
mod rights;
mod sessions;
mod signing_key;
mod visitor;

pub use auth::{AccessToken, Auth};
pub(crate) use login_limit::LoginLimit;
pub(crate) use metrics_token::may_scrape;
pub(crate) use origin::{host_of, is_cross_site, is_loopback_host};
pub use rights::{Rights, User};
pub(crate) use sessions::{Ended, SESSION_COOKIE, Session, cookie_of};
pub use signing_key::SigningKey;
pub(crate) use visitor::{Denied, Via, Visitor, csrf_token, identify, is_csrf_token, peer};
