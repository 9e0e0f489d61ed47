//! Settings of a dashboard.

use std::sync::Arc;

use axum::Router;
use cap_core::{Cap, Operator};
use tokio::sync::Semaphore;

use super::router::router;
use crate::data::{Data, Recorder};
use crate::live::{History, LiveReader};
use crate::payload::Masks;
use crate::security::{Auth, Ended, LoginLimit};
use crate::setup_error::SetupError;
use crate::web::{App, Settings};

/// The most streams of live numbers at a time; the next one is answered with 503.
const MOST_STREAMS: usize = 100;
/// The largest payload that can be edited without [`Dashboard::edit_limit`], in bytes.
const EDIT_LIMIT: usize = 1024 * 1024;

/// A dashboard over a storage: pages and a JSON API as an axum router.
///
/// ```
/// use axum::Router;
/// use cap_core::memory::MemoryStorage;
/// use cap_core::Operator;
/// use cap_dashboard::{AccessToken, Auth, Dashboard, Rights, SigningKey};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let (key, secret) = ("an example that is long enough for a key", "an example");
/// let operator = Operator::open(MemoryStorage::new()).await?;
/// let alice = AccessToken::new("alice", format!("{secret} secret"), Rights::read().act());
/// let dashboard = Dashboard::new(operator).production("shop, Frankfurt");
/// let app: Router = Router::new().nest("/cap", dashboard.router(Auth::login(SigningKey::new(key)?, [alice]))?);
/// # Ok(())
/// # }
/// ```
///
/// It works from the storage alone. It joins no nodes, handles nothing and sends nothing. With [`of`](Self::of) it also
/// shows the health of the bus of this process.
#[derive(Debug, Clone)]
#[must_use = "a dashboard does nothing until its router is served"]
pub struct Dashboard {
    data: Data,
    masks: Masks,
    settings: Settings,
}

impl Dashboard {
    /// A dashboard over the storage of an operator.
    pub fn new(operator: Operator) -> Self {
        let settings = Settings { production: None, public_path: None, edit_limit: EDIT_LIMIT };
        Self {
            data: Data { operator, bus: None, broker: None, recorder: None },
            masks: Masks::none(),
            settings,
        }
    }

    /// A dashboard over the storage of a bus, with the health of that bus. The router keeps a clone of the bus: shut the bus
    /// down as usual.
    pub fn of(bus: &Cap) -> Self {
        let mut dashboard = Self::new(bus.operator());
        dashboard.data.broker = Some(bus.broker_name().to_owned());
        dashboard.data.bus = Some(bus.clone());
        dashboard
    }

    /// Names the broker on the pages. Default: that of the bus, if there is one.
    pub fn broker(mut self, name: impl Into<String>) -> Self {
        self.data.broker = Some(name.into());
        self
    }

    /// Adds the metrics that the application records to `/metrics`, in the text format of Prometheus. By default it has what
    /// waits in the storage alone.
    ///
    /// With `metrics-exporter-prometheus` it is `.metrics(move || handle.render())`, where `handle` is what
    /// `PrometheusBuilder::install_recorder` has returned.
    pub fn metrics(mut self, render: impl Fn() -> String + Send + Sync + 'static) -> Self {
        self.data.recorder = Some(Recorder::new(render));
        self
    }

    /// Sets what is hidden in messages. Default: nothing.
    pub fn masks(mut self, masks: Masks) -> Self {
        self.masks = masks;
        self
    }

    /// Shows a banner with this name on every page, so that nobody takes production for a test. Default: none.
    pub fn production(mut self, name: impl Into<String>) -> Self {
        self.settings.production = Some(name.into());
        self
    }

    /// Sets the path before the dashboard as browsers see it, if a proxy takes away a part of it: `/ops/cap`. By default it
    /// is the path at which the router is nested.
    pub fn public_path(mut self, path: impl Into<String>) -> Self {
        self.settings.public_path = Some(path.into());
        self
    }

    /// Sets the largest payload that can be edited, in bytes. Default: 1 MiB.
    pub fn edit_limit(mut self, bytes: usize) -> Self {
        self.settings.edit_limit = bytes;
        self
    }

    /// The router, to nest at a path or to serve by itself. Users prove who they are as `auth` says.
    ///
    /// # Errors
    ///
    /// Settings that would be unsafe or cannot work: [`SetupError`].
    pub fn router(mut self, auth: Auth) -> Result<Router, SetupError> {
        if let Some(path) = &mut self.settings.public_path {
            let is_path = path.starts_with('/')
                && !path.starts_with("//")
                && path.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/-._~".contains(&byte));
            if !is_path {
                return Err(SetupError::PublicPath(path.clone()));
            }
            *path = path.trim_end_matches('/').to_owned();
        }
        let (auth, key) = auth.prepare()?;
        let app = App {
            live: LiveReader::new(self.data.clone()),
            data: self.data,
            history: History::default(),
            streams: Arc::new(Semaphore::new(MOST_STREAMS)),
            masks: self.masks,
            settings: self.settings,
            auth,
            key,
            ended: Ended::default(),
            limit: LoginLimit::default(),
        };
        Ok(router(Arc::new(app)))
    }
}
