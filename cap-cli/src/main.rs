//! `cap`, the command line of the event bus cap. See `docs/cli.md`.

mod arguments;
mod commands;
mod common;
mod failure;
mod output;
mod selection;
mod site;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};

use arguments::Arguments;
use failure::{Failure, redacted};
use output::Output;

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return usage(&error),
    };
    let output = Output::new(arguments.common.json);
    let done = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| Failure::Failed(format!("the runtime could not be started: {error}")))
        .and_then(|runtime| runtime.block_on(run(&arguments, &output)));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            output.failure(&failure);
            ExitCode::from(failure.code())
        }
    }
}

async fn run(arguments: &Arguments, output: &Output) -> Result<(), Failure> {
    if arguments.common.verbose {
        let filter = tracing_subscriber::EnvFilter::new("info,lapin=warn,sqlx=warn");
        let _ = tracing_subscriber::fmt().with_writer(std::io::stderr).with_env_filter(filter).try_init();
    }
    commands::run(&arguments.command, &arguments.common, output, Arguments::command()).await
}

/// Help and version go to standard output; an error may repeat an argument, so that what looks like an address is removed.
fn usage(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() {
        return if error.print().is_ok() { ExitCode::SUCCESS } else { ExitCode::from(1) };
    }
    let is_json = std::env::args_os().any(|argument| argument == "--json");
    let text = redacted(&error.render().to_string());
    Output::new(is_json).usage(text.trim_end());
    ExitCode::from(failure::USAGE)
}
