//! `tools bench`: measures speed. The scripts in `tools/bench/` compare the results with those of other programs.

mod loader;

use clap::Subcommand;
use program::Outcome;

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
