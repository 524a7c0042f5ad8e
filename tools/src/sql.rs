//! `tools sql` hands over to the program `tools-sql`, as git does with its subcommands.
//!
//! The SQL engine takes longer to compile than everything else here together, so it is a program of its own.

use std::ffi::OsString;
use std::io::ErrorKind;
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
    let program = next_to_this().unwrap_or_else(|| PROGRAM.into());
    let error = Command::new(&program).args(&arguments.arguments).exec();
    if error.kind() == ErrorKind::NotFound {
        return Err(anyhow!(
            "`tools sql` needs the program {PROGRAM}, which is neither next to `tools` nor on PATH; build it with \
             `cargo build --release -p simzss-tools-sql` (it compiles DataFusion, which takes a while)"
        ));
    }
    Err(Error::new(error).context(format!("cannot start {}", program.display())))
}

/// The engine that was built or installed together with this program.
fn next_to_this() -> Option<PathBuf> {
    let program = std::env::current_exe().ok()?.with_file_name(PROGRAM);
    program.is_file().then_some(program)
}
