//! `tools bench`: figures as a table and as JSON. The scripts under `tools/bench/` set peers beside them.

mod loader;

use ::loader::program::Outcome;
use clap::Subcommand;

/// What is measured.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Loader(loader::Arguments),
}

pub(crate) fn run(command: &Command) -> anyhow::Result<Outcome> {
    match command {
        Command::Loader(arguments) => loader::run(arguments),
    }
}
