//! `cap context`: the contexts of the configuration file.

use clap::{Args, Subcommand};
use serde_json::json;

use crate::common::Common;
use crate::failure::Failure;
use crate::output::{Output, Table};
use crate::site::{ConfigFile, Context};

/// What to do with contexts.
#[derive(Debug, Subcommand)]
pub(crate) enum ContextCommand {
    /// List the contexts; connection strings are not shown
    List,
    /// Make a context the current one
    Use {
        /// Its name
        name: String,
    },
    /// Add a context. The storage and the broker come from --storage and --broker, or from the variables named here
    Add(AddArgs),
    /// Remove a context
    Remove {
        /// Its name
        name: String,
        /// Show what would be done
        #[arg(long)]
        dry_run: bool,
    },
}

/// A new context.
#[derive(Debug, Args)]
pub(crate) struct AddArgs {
    /// Its name
    name: String,
    /// The environment variable that holds the address of the storage
    #[arg(long, value_name = "VARIABLE", conflicts_with = "storage")]
    storage_env: Option<String>,
    /// The environment variable that holds the address of the broker
    #[arg(long, value_name = "VARIABLE", conflicts_with = "broker")]
    broker_env: Option<String>,
    /// The schema in PostgreSQL [default: cap]
    #[arg(long)]
    schema: Option<String>,
    /// The prefix of the tables in SQLite [default: `cap_`]
    #[arg(long)]
    table_prefix: Option<String>,
    /// The exchange [default: cap.default.router]
    #[arg(long)]
    exchange: Option<String>,
    /// Each act asks for the name of this context
    #[arg(long)]
    production: bool,
    /// Replace the context of this name
    #[arg(long)]
    replace: bool,
    /// Show what would be done
    #[arg(long)]
    dry_run: bool,
}

pub(super) fn run(command: &ContextCommand, common: &Common, output: &Output) -> Result<(), Failure> {
    match command {
        ContextCommand::List => list(common, output),
        ContextCommand::Use { name } => {
            let mut file = ConfigFile::read(common)?;
            file.context(name)?;
            file.current = Some(name.clone());
            file.write(common)?;
            done(output, "use", name, false)
        }
        ContextCommand::Add(arguments) => add(arguments, common, output),
        ContextCommand::Remove { name, dry_run } => {
            let mut file = ConfigFile::read(common)?;
            file.context(name)?;
            if !dry_run {
                file.contexts.remove(name);
                file.current = file.current.filter(|current| current != name);
                file.write(common)?;
            }
            done(output, "remove", name, *dry_run)
        }
    }
}

fn list(common: &Common, output: &Output) -> Result<(), Failure> {
    let file = ConfigFile::read(common)?;
    let is_current = |name: &String| file.current.as_ref() == Some(name);
    let contexts: Vec<_> = file
        .contexts
        .iter()
        .map(|(name, context)| {
            json!({
                "name": name,
                "current": is_current(name),
                "production": context.production,
                "storage": kind(context.storage.as_deref(), context.storage_env.as_deref()),
                "broker": kind(context.broker.as_deref(), context.broker_env.as_deref()),
                "version": context.version,
            })
        })
        .collect();
    output.print(&json!({ "contexts": contexts }), || {
        if contexts.is_empty() {
            return "no contexts; add one with: cap context add NAME --storage-env VARIABLE".to_owned();
        }
        let mut table = Table::new(&["", "name", "storage", "broker", "production"]);
        for (name, context) in &file.contexts {
            table.row([
                if is_current(name) { "*" } else { "" }.to_owned(),
                name.clone(),
                kind(context.storage.as_deref(), context.storage_env.as_deref()).unwrap_or_default(),
                kind(context.broker.as_deref(), context.broker_env.as_deref()).unwrap_or_default(),
                if context.production { "yes" } else { "" }.to_owned(),
            ]);
        }
        table.text()
    })
}

/// The scheme of an address, or the variable that holds it; nothing else of an address is shown.
fn kind(address: Option<&str>, variable: Option<&str>) -> Option<String> {
    match (address, variable) {
        (Some(address), _) => {
            let scheme = address.split_once(':').map_or("given", |(scheme, _)| scheme);
            let is_known = ["postgres", "postgresql", "sqlite", "amqp", "amqps"].contains(&scheme);
            Some(if is_known { scheme } else { "given" }.to_owned())
        }
        (None, Some(variable)) => Some(format!("${variable}")),
        (None, None) => None,
    }
}

fn add(arguments: &AddArgs, common: &Common, output: &Output) -> Result<(), Failure> {
    let name = &arguments.name;
    let mut file = ConfigFile::read(common)?;
    if file.contexts.contains_key(name) && !arguments.replace {
        return Err(Failure::Usage(format!("the context {name:?} exists already; change it with --replace")));
    }
    let context = Context {
        storage: common.storage.as_deref().map(absolute),
        storage_env: arguments.storage_env.clone(),
        broker: common.broker.clone(),
        broker_env: arguments.broker_env.clone(),
        schema: arguments.schema.clone(),
        table_prefix: arguments.table_prefix.clone(),
        exchange: arguments.exchange.clone(),
        version: common.bus_version.clone(),
        production: arguments.production,
    };
    if context.storage.is_none()
        && context.storage_env.is_none()
        && context.broker.is_none()
        && context.broker_env.is_none()
    {
        return Err(Failure::Usage(
            "a context needs a storage or a broker: --storage-env, --storage, --broker-env, --broker"
                .to_owned(),
        ));
    }
    if !arguments.dry_run {
        file.contexts.insert(name.clone(), context);
        file.current.get_or_insert_with(|| name.clone());
        file.write(common)?;
    }
    done(output, "add", name, arguments.dry_run)
}

/// An address that means the same file from every directory.
fn absolute(address: &str) -> String {
    let file = address.strip_prefix("sqlite://").or_else(|| address.strip_prefix("sqlite:"));
    match file.filter(|file| !file.is_empty()).map(std::path::absolute) {
        Some(Ok(path)) => format!("sqlite:{}", path.display()),
        _ => address.to_owned(),
    }
}

fn done(output: &Output, act: &str, name: &str, dry_run: bool) -> Result<(), Failure> {
    let object = json!({ "action": act, "context": name, "dry_run": dry_run });
    output.print(&object, || {
        if dry_run { format!("would {act} the context {name}") } else { format!("{act}: context {name}") }
    })
}
