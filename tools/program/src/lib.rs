//! What the programs `ingest`, `tools` and `trainer` have in common: arguments that name files, exit codes, the error line,
//! progress, the `--json` summary line, and stopping on Ctrl-C.
//!
//! Libraries do not use it; whether the program was asked to stop, which they have to know, is in [`storage`].

// First: its macros are used below.
#[macro_use]
mod lines;
mod progress;

use std::error::Error;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::builder::{PathBufValueParser, TypedValueParser};
use disk::foreign_files::is_hidden;
use storage::Location;
pub use storage::{Interrupted, interrupted};

pub use self::lines::{message, result};
pub use self::progress::Progress;

/// How a program ended when there was no error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Everything was done: exit code 0.
    Done,
    /// Finished, but more samples failed than `--max-failures` allows: exit code 3.
    Losses,
    /// A signal asked the program to stop, and its work so far is saved. The exit code is that of [`Interrupted`].
    Stopped,
}

/// Runs the main function of a program and returns its exit code:
///
/// | code | meaning |
/// |---|---|
/// | 0 | done |
/// | 1 | failed |
/// | 2 | wrong use: the command line does not parse (clap exits itself), or `body` returned a [`UsageError`] |
/// | 3 | finished, but more samples failed than `--max-failures` allows |
/// | 128 + signal | stopped by that signal before the work was complete: 130 after Ctrl-C, 143 after SIGTERM |
///
/// The last is the code of a process that the signal itself ended, so that job schedulers start it again. `body` returns
/// [`Outcome::Stopped`] for it, or an error that is [`Interrupted`] or has it among its causes.
///
/// An error is printed on standard error as one line: what went wrong, where, and what to do.
pub fn run(body: impl FnOnce() -> anyhow::Result<Outcome>) -> ExitCode {
    catch_signals();
    storage::report_to(|text| message(format_args!("{text}")));
    let outcome = body();
    storage::forget_copies();
    match outcome {
        Ok(Outcome::Done) => ExitCode::SUCCESS,
        Ok(Outcome::Losses) => ExitCode::from(3),
        Ok(Outcome::Stopped) => ExitCode::from(stopped_code()),
        Err(error) => {
            eprintln!("error: {}", line_of(&error));
            ExitCode::from(failure_code(&error))
        }
    }
}

fn stopped_code() -> u8 {
    // Without a signal of its own, this process stopped because another one of its run was asked to.
    let signal = storage::signal().unwrap_or(signal_hook::consts::SIGTERM);
    u8::try_from(128 + signal).unwrap_or(u8::MAX)
}

/// The exit code for an error: 2 for wrong use, in the error itself, as a context or among its causes; 128 + signal where it
/// is the interruption; otherwise 1.
fn failure_code(error: &anyhow::Error) -> u8 {
    // `is` also finds contexts; the chain also finds the `#[source]` fields of other error types.
    if error.is::<UsageError>() || error.chain().any(is_wrong_use) {
        2
    } else if error.is::<Interrupted>() || error.chain().any(is_interruption) {
        stopped_code()
    } else {
        1
    }
}

/// Whether an error of one of the libraries, or a [`UsageError`], says that an option or a setting has a wrong value.
fn is_wrong_use(error: &(dyn Error + 'static)) -> bool {
    error.is::<UsageError>()
        || matches!(error.downcast_ref(), Some(loader::Error::Settings(_) | loader::Error::Ranks { .. }))
        || matches!(error.downcast_ref(), Some(concepts::Error::UnknownTagger(_)))
}

/// Whether work ended early because the program was asked to stop: a request, or anything longer.
fn is_interruption(error: &(dyn Error + 'static)) -> bool {
    let stopped = |e: &io::Error| e.kind() == io::ErrorKind::Interrupted;
    error.is::<Interrupted>() || interrupted() && error.downcast_ref().is_some_and(stopped)
}

/// An error and its causes as one line, even where a message has line breaks. A cause that the message already contains
/// is not repeated.
fn line_of(error: &anyhow::Error) -> String {
    let mut line = error.to_string();
    for cause in error.chain().skip(1) {
        // "PATH does not exist" has the same meaning as the system's "No such file or directory".
        let missing = |e: &std::io::Error| e.kind() == std::io::ErrorKind::NotFound;
        if cause.downcast_ref().is_some_and(missing) && line.contains("does not exist") {
            continue;
        }
        let cause = cause.to_string();
        if !line.contains(&cause) {
            line = format!("{line}: {cause}");
        }
    }
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// For `#[arg(value_parser = location())]`: an argument that is a path or the address of a remote file, and not empty.
pub fn location() -> impl TypedValueParser<Value = Location> {
    PathBufValueParser::new().map(Location::from)
}

/// Wrong use that is found only after the command line has been parsed, such as a missing option, two options that
/// exclude each other, or a setting with an unknown value. [`run`] prints the message and ends the program with exit
/// code 2.
///
/// The message names the option and says what to do:
///
/// ```
/// # use program::UsageError;
/// fn check(checkpoint: Option<&str>) -> anyhow::Result<()> {
///     if checkpoint.is_none() {
///         return Err(UsageError("option --checkpoint or --clip is missing".into()).into());
///     }
///     let size: u32 = "224px".parse().map_err(UsageError::from_error)?; // keeps the message of another error
///     # let _ = size;
///     Ok(())
/// }
/// assert!(check(None).unwrap_err().is::<UsageError>());
/// assert!(check(Some("run")).unwrap_err().is::<UsageError>());
/// ```
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct UsageError(pub String);

impl UsageError {
    /// For `map_err`: declares another error to be wrong use. Its message, with its causes, becomes this error's
    /// message.
    pub fn from_error(error: impl Into<anyhow::Error>) -> Self {
        Self(line_of(&error.into()))
    }
}

/// The second signal ends the process at once. All files are written under a temporary name and then renamed, so this
/// leaves no incomplete file under a final name.
fn catch_signals() {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
    // If the handlers cannot be installed, a signal ends the process, as is the system's default.
    let Ok(mut signals) = signal_hook::iterator::Signals::new([SIGHUP, SIGINT, SIGTERM, SIGUSR1]) else {
        return;
    };
    std::thread::spawn(move || {
        for signal in signals.forever() {
            if storage::interrupt(signal) {
                std::process::exit(128 + signal);
            }
            eprintln!("stopping; complete output is kept. Press Ctrl-C again to quit now");
        }
    });
}

/// Prints the summary for `--json`: one JSON object as the last line of standard output.
pub fn print_json(summary: &serde_json::Value) -> anyhow::Result<()> {
    writeln!(std::io::stdout().lock(), "{}", printable_json(&summary.to_string()))?;
    Ok(())
}

/// The same JSON without characters that a terminal obeys. They can occur only inside texts, where their code may replace
/// them.
pub fn printable_json(json: &str) -> String {
    let mut printable = String::with_capacity(json.len());
    for c in json.chars() {
        // None of them has more than four digits. White space between values stays.
        if is_hidden(c) && !c.is_ascii_whitespace() {
            printable.push_str(&format!("\\u{:04x}", u32::from(c)));
        } else {
            printable.push(c);
        }
    }
    printable
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_one_line_without_repetition() {
        use std::io::{Error, ErrorKind};
        let line = |source: Error| {
            let error =
                anyhow::Error::new(storage::Error::Io { path: "a.tar".into(), doing: "read", source });
            line_of(&error.context("counting the samples"))
        };
        let denied = Error::new(ErrorKind::PermissionDenied, "not\nallowed");
        assert_eq!(line(denied), "counting the samples: cannot read a.tar: not allowed");
        assert_eq!(line(Error::from_raw_os_error(2)), "counting the samples: a.tar does not exist");
    }

    #[test]
    fn json_is_the_same_without_what_a_terminal_obeys() {
        let value = serde_json::json!({ "caption": "a\u{1b}[31m\u{9b}\u{7f}\u{202e}\u{feff} 犬 \"\n" });
        let printed = printable_json(&value.to_string());
        assert!(!printed.contains(is_hidden), "{printed}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&printed).unwrap(), value);
    }

    #[test]
    fn wrong_use_anywhere_in_an_error_means_exit_code_2() {
        #[derive(Debug, thiserror::Error)]
        #[error("settings")]
        struct Settings(#[source] UsageError);

        let usage = || UsageError("option --out is missing".to_owned());
        let read = || anyhow::Error::new(std::io::Error::other("disk"));
        assert_eq!(failure_code(&usage().into()), 2);
        assert_eq!(failure_code(&anyhow::Error::new(usage()).context("reading the settings")), 2);
        assert_eq!(failure_code(&Settings(usage()).into()), 2);
        assert_eq!(failure_code(&read().context(usage())), 2);
        assert_eq!(failure_code(&loader::Error::Settings("batch_size is 0".to_owned()).into()), 2);
        assert_eq!(failure_code(&concepts::Error::UnknownTagger("none".to_owned()).into()), 2);
        assert_eq!(failure_code(&read()), 1);
        assert_eq!(failure_code(&read().context("option --out is missing")), 1);
        assert_eq!(UsageError::from_error(read().context("--out a")).to_string(), "--out a: disk");

        let stopped = || Interrupted::new("nothing was written");
        // SIGTERM, as no signal was received.
        assert_eq!(failure_code(&stopped().into()), 143);
        assert_eq!(failure_code(&anyhow::Error::new(stopped()).context("a report")), 143);
        assert_eq!(failure_code(&read().context(stopped())), 143);
        assert_eq!(failure_code(&anyhow::Error::new(io::Error::from(io::ErrorKind::Interrupted))), 1);

        let code = |body: anyhow::Result<Outcome>| format!("{:?}", run(|| body));
        assert_eq!(code(Err(usage().into())), format!("{:?}", ExitCode::from(2)));
        assert_eq!(code(Err(read())), format!("{:?}", ExitCode::from(1)));
        assert_eq!(code(Ok(Outcome::Losses)), format!("{:?}", ExitCode::from(3)));
        assert_eq!(code(Ok(Outcome::Done)), format!("{:?}", ExitCode::SUCCESS));
    }
}
