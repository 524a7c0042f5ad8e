//! What the programs `ingest`, `tools` and `trainer` have in common: exit codes, the error line, progress, the `--json`
//! summary line, and stopping on Ctrl-C.

use std::fmt::Arguments;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::{Duration, Instant};

use concepts::foreign_files::{is_hidden, visible, visible_lines};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// How a program ended when there was no error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Everything was done: exit code 0.
    Done,
    /// Finished, but more samples failed than `--max-failures` allows: exit code 3.
    Losses,
    /// A signal asked the program to stop, and its work so far is saved. The exit code is 128 + the signal's number, as
    /// for a process that the signal itself ended, so that job schedulers start it again.
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
/// | 128 + signal | stopped by that signal, with the work so far saved: 130 after Ctrl-C, 143 after SIGTERM |
///
/// An error is printed on standard error as one line: what went wrong, where, and what to do.
pub fn run(body: impl FnOnce() -> anyhow::Result<Outcome>) -> ExitCode {
    catch_signals();
    let outcome = body();
    crate::source::forget_copies();
    match outcome {
        Ok(Outcome::Done) => ExitCode::SUCCESS,
        Ok(Outcome::Losses) => ExitCode::from(3),
        Ok(Outcome::Stopped) => {
            // Without a signal of its own, this process stopped because another one of its run was told to.
            let signal = if interrupted() { signal() } else { signal_hook::consts::SIGTERM };
            ExitCode::from(128 + signal as u8)
        }
        Err(error) => {
            eprintln!("error: {}", line_of(&error));
            ExitCode::from(failure_code(&error))
        }
    }
}

/// The exit code for an error: 2 for wrong use, in the error itself, as a context or among its causes; otherwise 1.
fn failure_code(error: &anyhow::Error) -> u8 {
    // `is` also finds contexts; the chain also finds the `#[source]` fields of other error types.
    if error.is::<UsageError>() || error.chain().any(is_wrong_use) { 2 } else { 1 }
}

/// Whether an error of one of the libraries, or a [`UsageError`], says that an option or a setting has a wrong value.
fn is_wrong_use(error: &(dyn std::error::Error + 'static)) -> bool {
    error.is::<UsageError>()
        || matches!(error.downcast_ref(), Some(crate::Error::Settings(_) | crate::Error::Ranks { .. }))
        || matches!(error.downcast_ref(), Some(concepts::Error::UnknownTagger(_)))
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

/// Wrong use that is found only after the command line has been parsed, such as a missing option, two options that
/// exclude each other, or a setting with an unknown value. [`run`] prints the message and ends the program with exit
/// code 2.
///
/// The message names the option and says what to do:
///
/// ```
/// # use loader::program::UsageError;
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

/// The signal that asked the program to stop; 0 for none.
static SIGNAL: AtomicI32 = AtomicI32::new(0);

/// Whether the program was asked to stop, by Ctrl-C, SIGTERM, SIGHUP, or SIGUSR1 (which job schedulers send before a
/// time limit). Long work calls this between units of work (a shard, a batch), finishes or drops the current unit, and
/// returns.
pub fn interrupted() -> bool {
    signal() != 0
}

fn signal() -> i32 {
    SIGNAL.load(Ordering::Relaxed)
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
            if SIGNAL.swap(signal, Ordering::Relaxed) != 0 {
                std::process::exit(128 + signal);
            }
            eprintln!("stopping; complete output is kept. Press Ctrl-C again to quit now");
        }
    });
}

/// Time between two lines of progress when standard error is not a terminal.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// A progress bar on a terminal; otherwise one line on standard error every 5 seconds.
#[derive(Debug)]
pub struct Progress {
    bar: ProgressBar,
    what: &'static str,
    unit: &'static str,
    started: Instant,
    printed: Instant,
    terminal: bool,
}

impl Progress {
    /// `what` is the work ("tagging"), `unit` what is counted ("captions"), `total` the number of units, 0 if unknown.
    pub fn new(what: &'static str, unit: &'static str, total: u64) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let bar = if total == 0 { ProgressBar::no_length() } else { ProgressBar::new(total) };
        bar.set_draw_target(if terminal {
            ProgressDrawTarget::stderr()
        } else {
            ProgressDrawTarget::hidden()
        });
        let template = if total == 0 {
            format!("{what} {{pos}} {unit} {{msg}} {{per_sec}} [{{elapsed}}]")
        } else {
            format!("{what} {{wide_bar}} {{pos}}/{{len}} {unit} {{msg}} {{per_sec}} [{{elapsed}} < {{eta}}]")
        };
        if let Ok(style) = ProgressStyle::with_template(&template) {
            bar.set_style(style);
        }
        let now = Instant::now();
        Self { bar, what, unit, started: now, printed: now, terminal }
    }

    /// Counts `n` more finished units. `message` adds other figures to the display; it is called only when something is
    /// printed.
    pub fn advance(&mut self, n: u64, message: impl FnOnce() -> String) {
        self.bar.inc(n);
        if self.terminal {
            self.bar.set_message(visible(&message()).into_owned());
        } else if self.printed.elapsed() >= LINE_EVERY {
            self.printed = Instant::now();
            self.line(&message());
        }
    }

    fn line(&self, message: &str) {
        let done = self.bar.position();
        let rate = done as f64 / self.started.elapsed().as_secs_f64().max(1e-9);
        let of = self.bar.length().map_or(String::new(), |total| format!("/{total}"));
        let separator = if message.is_empty() { "" } else { ", " };
        eprintln!("{}: {done}{of} {}{separator}{message} ({rate:.1} {}/s)", self.what, self.unit, self.unit);
    }

    /// Removes the bar and prints one last line with the total, `message` and the mean rate.
    pub fn finish(self, message: &str) {
        self.bar.finish_and_clear();
        self.line(message);
    }
}

/// Prints a message on standard error; for the macro [`eprintln!`](crate::eprintln). Captions, keys, hosts and errors of
/// servers may contain what a terminal obeys, which is shown as its code.
pub fn message(text: Arguments<'_>) {
    // In one piece, so that the messages of several processes are not mixed within a line.
    let _ = io::stderr().write_all(format!("{}\n", visible_lines(&text.to_string())).as_bytes());
}

/// Prints results on standard output, for the macro [`println!`](crate::println). That the reader closes the pipe early,
/// as `head` does, is not an error; after any other failure the program ends with exit code 1. What a terminal obeys is
/// shown as its code, as by [`message`].
pub fn result(text: Arguments<'_>) {
    match io::stdout().write_all(visible_lines(&text.to_string()).as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            message(format_args!("error: cannot write to standard output: {error}"));
            std::process::exit(1);
        }
        _ => {}
    }
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
    use std::path::Path;

    use super::*;

    #[test]
    fn an_error_is_one_line_without_repetition() {
        use std::io::{Error, ErrorKind};
        let line = |source: Error| {
            let error = anyhow::Error::new(crate::Error::read(Path::new("a.tar"))(source));
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
        assert_eq!(failure_code(&crate::Error::Settings("batch_size is 0".to_owned()).into()), 2);
        assert_eq!(failure_code(&concepts::Error::UnknownTagger("none".to_owned()).into()), 2);
        assert_eq!(failure_code(&read()), 1);
        assert_eq!(failure_code(&read().context("option --out is missing")), 1);
        assert_eq!(UsageError::from_error(read().context("--out a")).to_string(), "--out a: disk");

        let code = |body: anyhow::Result<Outcome>| format!("{:?}", run(|| body));
        assert_eq!(code(Err(usage().into())), format!("{:?}", ExitCode::from(2)));
        assert_eq!(code(Err(read())), format!("{:?}", ExitCode::from(1)));
        assert_eq!(code(Ok(Outcome::Losses)), format!("{:?}", ExitCode::from(3)));
        assert_eq!(code(Ok(Outcome::Done)), format!("{:?}", ExitCode::SUCCESS));
    }
}
