//! The dashboard of the event bus cap: find a message, see why it failed, fix it and run it again.
//!
//! [`Dashboard::router`] is an axum router to nest into an application, with pages, a JSON API in the shapes of .NET CAP
//! under `/api`, and health probes. It works from the storage alone: see [`Operator`](cap_core::Operator).
//!
//! Nothing is shown without credentials: a router cannot be built without an [`Auth`]. Reading, acting and seeing what is
//! [masked](Masks) are separate [rights](Rights).

mod api;
mod dashboard;
mod data;
mod live;
mod pages;
mod payload;
mod request;
mod security;
mod setup_error;
mod text;
mod web;

pub use dashboard::{Dashboard, ServeError};
pub use data::{Sample, StorageMetrics, fingerprint};
pub use payload::Masks;
pub use security::{AccessToken, Auth, Rights, SigningKey, User};
pub use setup_error::SetupError;
