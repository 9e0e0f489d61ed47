//! The question before an act on production.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};

use super::settings::Settings;
use crate::common::Common;
use crate::failure::Failure;

/// Asks for the name of a production context before an act on it. Scripts give it by `--yes-production`.
pub(crate) fn confirm(settings: &Settings, common: &Common, act: &str) -> Result<(), Failure> {
    let Some(name) = settings.name.as_deref().filter(|_| settings.production) else { return Ok(()) };
    let given = match &common.yes_production {
        Some(given) => given.clone(),
        None if io::stdin().is_terminal() => ask(name, act)?,
        None => {
            return Err(Failure::NotConfirmed(format!(
                "{name:?} is a production context: confirm with --yes-production {name} to {act}"
            )));
        }
    };
    if given == name {
        return Ok(());
    }
    Err(Failure::NotConfirmed(format!(
        "this is not the name of the production context {name:?}; nothing was done"
    )))
}

fn ask(name: &str, act: &str) -> Result<String, Failure> {
    write!(io::stderr(), "{name:?} is production. To {act}, type the name of the context: ")?;
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line)?;
    Ok(line.trim().to_owned())
}
