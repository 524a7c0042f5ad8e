//! Shell completions and manual pages of a program, made from its command line, so that they cannot disagree with it.
//!
//! ```sh
//! ingest --generate bash > ~/.local/share/bash-completion/completions/ingest
//! ingest --generate man ~/.local/share/man/man1
//! ```

use std::env;
use std::ffi::OsString;
use std::fs;
use std::io::{self, ErrorKind, Write};
use std::path::Path;
use std::process::ExitCode;

use clap::Command;
use clap_complete::Shell;

/// The option. It stands outside the program's own command line: it is for packagers, and a program whose first argument
/// is free text (`tools-sql QUERY`) has no room for one more subcommand.
const OPTION: &str = "--generate";

/// Handles `PROGRAM --generate bash|zsh|fish` and `PROGRAM --generate man DIR`; `None` for every other command line.
///
/// Call it before the arguments are parsed. `command` must have the program's name.
pub fn requested(command: fn() -> Command) -> Option<ExitCode> {
    let mut arguments = env::args_os().skip(1);
    if arguments.next()? != OPTION {
        return None;
    }
    let arguments: Vec<OsString> = arguments.collect();
    let done = match arguments.as_slice() {
        [man, folder] if man == "man" => manual(command(), Path::new(folder)),
        [shell] if shell == "bash" => print(&completions(command(), Shell::Bash)),
        [shell] if shell == "zsh" => print(&completions(command(), Shell::Zsh)),
        [shell] if shell == "fish" => print(&completions(command(), Shell::Fish)),
        _ => {
            say(&format!("{OPTION} takes bash, zsh or fish, or man and a folder"));
            return Some(ExitCode::from(2));
        }
    };
    Some(match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            say(&problem);
            ExitCode::FAILURE
        }
    })
}

/// Prints an error. Unlike `eprintln!`, it does not panic where nobody reads it.
fn say(error: &str) {
    let _ = writeln!(io::stderr(), "error: {error}");
}

/// The completion script of a shell.
fn completions(mut command: Command, shell: Shell) -> Vec<u8> {
    let name = command.get_name().to_owned();
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, name, &mut script);
    script
}

/// Writes a page for the program and one for each of its subcommands: `ingest.1`, `ingest-download.1`.
fn manual(command: Command, folder: &Path) -> Result<(), String> {
    fs::create_dir_all(folder)
        .and_then(|()| clap_mangen::generate_to(command, folder))
        .map_err(|error| format!("cannot write to {}: {error}", folder.display()))
}

/// A reader that closes early, such as `head`, is not a failure.
fn print(text: &[u8]) -> Result<(), String> {
    let mut output = io::stdout().lock();
    match output.write_all(text).and_then(|()| output.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(format!("cannot write to standard output: {error}"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use clap::Arg;

    use super::*;

    fn program() -> Command {
        let count = Arg::new("count").long("count").help("How many shards to write");
        let folder = Arg::new("folder").required(true);
        Command::new("program")
            .version("1.2.3")
            .about("Writes shards")
            .subcommand(Command::new("write").about("Write some").arg(count).arg(folder))
            .subcommand(Command::new("secret").hide(true))
    }

    #[test]
    fn every_shell_completes_subcommands_and_options() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let script = String::from_utf8(completions(program(), shell)).unwrap();
            for word in ["program", "write", "count"] {
                assert!(script.contains(word), "{shell}: no {word}");
            }
        }
    }

    #[test]
    fn the_manual_has_a_page_for_each_visible_command() {
        let folder = tempfile::tempdir().unwrap();
        manual(program(), folder.path()).unwrap();
        let mut pages: Vec<_> = fs::read_dir(folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        pages.sort();
        assert_eq!(pages, ["program-write.1", "program.1"]);
        let page = fs::read_to_string(folder.path().join("program-write.1")).unwrap();
        assert!(page.contains("How many shards to write"), "{page}");
    }

    #[test]
    fn the_manual_is_the_same_every_time() {
        let read = || {
            let folder = tempfile::tempdir().unwrap();
            manual(program(), folder.path()).unwrap();
            fs::read(folder.path().join("program.1")).unwrap()
        };
        assert_eq!(read(), read());
    }
}
