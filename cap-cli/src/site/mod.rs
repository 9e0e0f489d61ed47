//! Where a command works: the context, its storage and its broker.

mod broker;
mod config_file;
mod context;
mod production;
mod settings;
mod storage;

pub(crate) use broker::open_broker;
pub(crate) use config_file::ConfigFile;
pub(crate) use context::Context;
pub(crate) use production::confirm;
pub(crate) use settings::Settings;
pub(crate) use storage::{AnyStorage, SchemaState, open_operator, open_storage};
