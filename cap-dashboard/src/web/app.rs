//! What all requests share.

use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::data::Data;
use crate::live::{History, LiveReader};
use crate::payload::Masks;
use crate::security::{Auth, Ended, LoginLimit, SigningKey};

/// What all requests share.
#[derive(Debug)]
pub(crate) struct App {
    pub(crate) data: Data,
    pub(crate) live: LiveReader,
    pub(crate) history: History,
    /// The places for streams of events.
    pub(crate) streams: Arc<Semaphore>,
    pub(crate) masks: Masks,
    pub(crate) settings: Settings,
    pub(crate) auth: Auth,
    pub(crate) key: SigningKey,
    pub(crate) ended: Ended,
    pub(crate) limit: LoginLimit,
}

/// What the application has chosen.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// The name in the banner for production.
    pub(crate) production: Option<String>,
    /// The path before ours, as the browser sees it.
    pub(crate) public_path: Option<String>,
    /// The largest payload that can be edited, in bytes.
    pub(crate) edit_limit: usize,
}
