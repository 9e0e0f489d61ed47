//! The file of contexts.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use etcetera::BaseStrategy as _;
use serde::{Deserialize, Serialize};

use super::context::Context;
use crate::common::Common;
use crate::failure::Failure;

/// The contexts by name, and which one is used.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ConfigFile {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) current: Option<String>,
    pub(crate) contexts: BTreeMap<String, Context>,
}

impl ConfigFile {
    /// The path of the file, which need not exist.
    pub(crate) fn path(common: &Common) -> Result<PathBuf, Failure> {
        if let Some(path) = &common.config {
            return Ok(path.clone());
        }
        let base = etcetera::choose_base_strategy().map_err(|_| {
            Failure::Usage(
                "there is no home directory for the configuration file; name one with --config".to_owned(),
            )
        })?;
        Ok(base.config_dir().join("cap").join("config.toml"))
    }

    /// Reads the file. A missing one has no contexts, unless it was named.
    pub(crate) fn read(common: &Common) -> Result<Self, Failure> {
        let path = Self::path(common)?;
        match fs::read_to_string(&path) {
            // The parser's own text shows the line, which may hold a connection string.
            Ok(text) => toml::from_str(&text).map_err(|error| {
                let at =
                    error.span().map_or(1, |span| text[..span.start.min(text.len())].lines().count().max(1));
                Failure::Usage(format!(
                    "the configuration file {} is not valid near line {at}: {}",
                    path.display(),
                    crate::failure::redacted(error.message())
                ))
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(Failure::Usage(format!(
                "the configuration file {} cannot be read: {error}",
                path.display()
            ))),
        }
    }

    /// Writes the file, readable by its owner alone. It replaces the former one as a whole, or not at all.
    pub(crate) fn write(&self, common: &Common) -> Result<(), Failure> {
        let path = Self::path(common)?;
        let written = toml::to_string(self).map_err(io::Error::other).and_then(|text| replace(&path, &text));
        written.map_err(|error| {
            Failure::Failed(format!("the configuration file {} cannot be written: {error}", path.display()))
        })
    }

    /// A context by its name.
    pub(crate) fn context(&self, name: &str) -> Result<&Context, Failure> {
        self.contexts.get(name).ok_or_else(|| {
            Failure::NotFound(format!(
                "there is no context {name:?}; cap context list shows those that exist"
            ))
        })
    }
}

fn replace(path: &Path, text: &str) -> io::Result<()> {
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        fs::create_dir_all(folder)?;
    }
    let new = path.with_extension(format!("{}.new", std::process::id()));
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let written = options.open(&new).and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.sync_all()
    });
    let replaced = written.and_then(|()| fs::rename(&new, path));
    if replaced.is_err() {
        // What is left of it may hold a connection string.
        let _ = fs::remove_file(&new);
    }
    replaced
}
