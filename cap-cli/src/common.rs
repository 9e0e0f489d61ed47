//! The arguments that every command takes.

use std::path::PathBuf;

use clap::Args;

/// What every command takes.
#[derive(Debug, Clone, Args)]
pub(crate) struct Common {
    /// The context of the configuration file to use, instead of its current one
    #[arg(long, short = 'c', global = true, env = "CAP_CONTEXT", value_name = "NAME")]
    pub(crate) context: Option<String>,
    /// The configuration file [default: cap/config.toml in the user's configuration directory]
    #[arg(long, global = true, env = "CAP_CONFIG", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// The storage: `postgres://user:password@host/database` or `sqlite:FILE`. Other users of this machine can see arguments:
    /// prefer the variable `CAP_STORAGE` or a context
    #[arg(long, global = true, value_name = "URL")]
    pub(crate) storage: Option<String>,
    /// The broker: `amqp://user:password@host/vhost`. Prefer the variable `CAP_BROKER` or a context
    #[arg(long, global = true, value_name = "URL")]
    pub(crate) broker: Option<String>,
    /// The version of the bus whose messages are meant [default: v1]
    #[arg(long, global = true, value_name = "VERSION")]
    pub(crate) bus_version: Option<String>,
    /// Print JSON for machines, one object
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Confirms an act on a production context, by its name
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) yes_production: Option<String>,
    /// Who acts, for the audit [default: the user of this session]
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) by: Option<String>,
    /// Log what happens to standard error
    #[arg(long, short = 'v', global = true)]
    pub(crate) verbose: bool,
}

impl Common {
    /// Who acts.
    pub(crate) fn actor(&self) -> String {
        let user = || ["USER", "LOGNAME", "USERNAME"].iter().find_map(|name| std::env::var(name).ok());
        let name = self.by.clone().or_else(user).unwrap_or_else(|| "somebody".to_owned());
        format!("{name} (cap)")
    }
}
