//! What a command works on, from arguments, the environment and the configuration file.

use std::env;
use std::fmt;

use super::config_file::ConfigFile;
use super::context::Context;
use crate::common::Common;
use crate::failure::Failure;

/// The settings of one call. An argument counts first, then the context that an argument names, then the environment, then
/// the current context.
#[derive(Clone)]
pub(crate) struct Settings {
    /// The context, if one is used.
    pub(crate) name: Option<String>,
    pub(crate) production: bool,
    storage: Option<String>,
    broker: Option<String>,
    pub(crate) schema: String,
    pub(crate) table_prefix: String,
    pub(crate) exchange: Option<String>,
    pub(crate) version: String,
}

impl Settings {
    pub(crate) fn of(common: &Common) -> Result<Self, Failure> {
        let file = ConfigFile::read(common)?;
        let storage_variable = variable("CAP_STORAGE");
        // An address given for this call is not an address of the current context.
        let is_given = common.storage.is_some() || storage_variable.is_some();
        let name = common.context.clone().or_else(|| file.current.clone().filter(|_| !is_given));
        let context = match &name {
            Some(name) => file.context(name)?.clone(),
            None => Context::default(),
        };
        let is_named = name.is_some();
        let address = |argument: &Option<String>, in_context: Option<String>, variable: Option<String>| {
            let context = in_context.filter(|_| is_named);
            argument.clone().or(context).or(variable)
        };
        let storage = secret(context.storage, context.storage_env.as_deref())?;
        let broker = secret(context.broker, context.broker_env.as_deref())?;
        Ok(Self {
            storage: address(&common.storage, storage, storage_variable),
            broker: address(&common.broker, broker, variable("CAP_BROKER")),
            schema: context.schema.or_else(|| variable("CAP_SCHEMA")).unwrap_or_else(|| "cap".to_owned()),
            table_prefix: context
                .table_prefix
                .or_else(|| variable("CAP_TABLE_PREFIX"))
                .unwrap_or_else(|| "cap_".to_owned()),
            exchange: context.exchange.or_else(|| variable("CAP_EXCHANGE")),
            version: common.bus_version.clone().or(context.version).unwrap_or_else(|| "v1".to_owned()),
            production: context.production,
            name,
        })
    }

    pub(crate) fn storage(&self) -> Result<&str, Failure> {
        self.storage.as_deref().ok_or_else(|| {
            Failure::Usage(
                "no storage is named: use --storage, the variable CAP_STORAGE, or a context (cap context add)".to_owned(),
            )
        })
    }

    pub(crate) fn broker(&self) -> Result<&str, Failure> {
        self.broker.as_deref().ok_or_else(|| {
            Failure::Usage(
                "no broker is named: use --broker, the variable CAP_BROKER, or a context (cap context add)"
                    .to_owned(),
            )
        })
    }

    pub(crate) fn has_broker(&self) -> bool {
        self.broker.is_some()
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings").field("name", &self.name).finish_non_exhaustive()
    }
}

fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

fn secret(value: Option<String>, name: Option<&str>) -> Result<Option<String>, Failure> {
    match (value, name) {
        (Some(value), _) => Ok(Some(value)),
        (None, Some(name)) => variable(name).map(Some).ok_or_else(|| {
            Failure::Usage(format!(
                "the context takes a connection string from the variable {name:?}, which is not set"
            ))
        }),
        (None, None) => Ok(None),
    }
}
