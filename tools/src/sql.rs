//! `tools sql` hands over to the program `tools-sql`, as git does with its subcommands.
//!
//! The SQL engine takes longer to compile than everything else here together, so it is a program of its own.

use std::ffi::OsString;
use std::io::{self, ErrorKind};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Error, Result, anyhow};
use program::Outcome;

const PROGRAM: &str = "tools-sql";

/// Query shards, mentions and statistics with SQL
///
/// Handled by the program `tools-sql` (`tools sql --help` shows its options).
#[derive(Debug, clap::Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Arguments {
    /// Arguments of `tools-sql`
    #[arg(value_name = "ARGUMENTS", trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

/// Becomes `tools-sql`: returns only when it cannot be started.
pub(crate) fn run(arguments: &Arguments) -> Result<Outcome> {
    let mut command = program();
    let error = command.args(&arguments.arguments).exec();
    Err(not_started(error, &command))
}

/// Starts `tools-sql`: the one that was built or installed together with this program, or else the one on PATH.
pub(crate) fn program() -> Command {
    Command::new(next_to_this().unwrap_or_else(|| PROGRAM.into()))
}

/// Why it could not be started.
pub(crate) fn not_started(error: io::Error, command: &Command) -> Error {
    if error.kind() == ErrorKind::NotFound {
        return anyhow!(
            "`tools sql` needs the program {PROGRAM}, which is neither next to `tools` nor on PATH; build it with \
             `cargo build --release -p simzss-tools-sql` (it compiles DataFusion, which takes a while)"
        );
    }
    Error::new(error).context(format!("cannot start {}", command.get_program().display()))
}

fn next_to_this() -> Option<PathBuf> {
    let program = std::env::current_exe().ok()?.with_file_name(PROGRAM);
    program.is_file().then_some(program)
}
