//! Serving a dashboard by itself.

use std::future::Future;
use std::io;
use std::net::SocketAddr;

use axum::Router;
use tokio::net::TcpListener;

use super::builder::Dashboard;
use crate::SetupError;
use crate::security::Auth;

impl Dashboard {
    /// Serves the dashboard on a listener of its own, without a server of the application, until `shutdown` is ready. The
    /// dashboard is at `/`, and also at `/cap`, where tools for .NET CAP look for it. Open streams are ended.
    ///
    /// # Errors
    ///
    /// [`ServeError::Setup`] for invalid settings, [`ServeError::Io`] if the listener fails.
    pub async fn serve(
        self,
        auth: Auth,
        listener: TcpListener,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> Result<(), ServeError> {
        let router = self.router(auth)?;
        let both = Router::new().nest("/cap", router.clone()).fallback_service(router);
        let service = both.into_make_service_with_connect_info::<SocketAddr>();
        // No graceful end: streams would keep it waiting, and nothing is lost by ending a page.
        tokio::select! {
            served = async { axum::serve(listener, service).await } => served.map_err(ServeError::Io),
            () = shutdown => Ok(()),
        }
    }
}

/// Why a dashboard could not be served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// Invalid settings.
    #[error(transparent)]
    Setup(#[from] SetupError),
    /// The listener failed.
    #[error("the listener of the dashboard failed: {0}")]
    Io(#[source] io::Error),
}
