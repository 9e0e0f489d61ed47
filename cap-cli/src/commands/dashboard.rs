//! `cap dashboard`: serves the dashboard from the storage alone.

use std::net::SocketAddr;

use cap_dashboard::{AccessToken, Auth, Dashboard, Masks, Rights, ServeError, SigningKey};
use clap::Args;
use serde_json::json;
use tokio::net::TcpListener;

use crate::common::Common;
use crate::failure::Failure;
use crate::output::Output;
use crate::site::{Settings, confirm, open_operator};

/// Where to serve it, and for whom.
#[derive(Debug, Args)]
pub(crate) struct DashboardArgs {
    /// The address to listen on
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// Let in whoever uses a browser on this machine, without credentials
    #[arg(long)]
    loopback: bool,
    /// Also allow acts; otherwise everything is read-only
    #[arg(long)]
    act: bool,
    /// The environment variable that holds the access token to log in with, as the user `operator` or that of --by, of at least 12 characters
    #[arg(long, value_name = "VARIABLE", default_value = "CAP_DASHBOARD_TOKEN")]
    token_env: String,
    /// The environment variable that holds a token with which a monitoring system reads /metrics and nothing else, of at least 12 characters
    #[arg(long, value_name = "VARIABLE", default_value = "CAP_METRICS_TOKEN")]
    metrics_token_env: String,
    /// Hide this field of payloads, such as card.number; may be repeated
    #[arg(long = "mask", value_name = "FIELD")]
    masks: Vec<String>,
}

pub(super) async fn run(arguments: &DashboardArgs, common: &Common, output: &Output) -> Result<(), Failure> {
    let settings = Settings::of(common)?;
    let rights = if arguments.act { Rights::read().act() } else { Rights::read() };
    if arguments.act {
        confirm(&settings, common, "serve a dashboard that may change messages")?;
    }
    let mut auth = auth(arguments, common, rights)?;
    if let Ok(token) = std::env::var(&arguments.metrics_token_env) {
        auth = auth.metrics_token(token);
    }
    let operator = open_operator(&settings).await?;
    let masks = arguments.masks.iter().fold(Masks::none(), |masks, field| masks.field(field));
    let mut dashboard = Dashboard::new(operator).masks(masks);
    if let Some(name) = settings.name.filter(|_| settings.production) {
        dashboard = dashboard.production(name);
    }
    let listener = TcpListener::bind(arguments.listen)
        .await
        .map_err(|error| Failure::Failed(format!("cannot listen on {}: {error}", arguments.listen)))?;
    let address = listener.local_addr()?;
    output.print(&json!({ "url": format!("http://{address}/") }), || {
        format!("serving the dashboard on http://{address}/; end with Ctrl-C")
    })?;
    let ended = async {
        // If signals cannot be waited for, it runs until the process is ended.
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    dashboard.serve(auth, listener, ended).await.map_err(|error| match error {
        ServeError::Setup(error) => Failure::Usage(error.to_string()),
        error => Failure::Failed(error.to_string()),
    })
}

fn auth(arguments: &DashboardArgs, common: &Common, rights: Rights) -> Result<Auth, Failure> {
    if arguments.loopback {
        if !arguments.listen.ip().is_loopback() {
            return Err(Failure::Usage(
                "--loopback serves this machine alone: listen on 127.0.0.1 or [::1]".to_owned(),
            ));
        }
        return Ok(Auth::loopback(rights));
    }
    let token = std::env::var(&arguments.token_env).map_err(|_| {
        Failure::Usage(format!(
            "nobody could log in: put an access token into the variable {}, or use --loopback",
            arguments.token_env
        ))
    })?;
    let key = SigningKey::random().map_err(|error| Failure::Failed(error.to_string()))?;
    let name = common.by.clone().unwrap_or_else(|| "operator".to_owned());
    Ok(Auth::login(key, [AccessToken::new(name, token, rights)]))
}
