//! What the three programs share: exit codes, the error line, progress, the summary line, Ctrl-C.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// How a program ended, other than by an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Everything was done: exit code 0.
    Done,
    /// Finished, with more losses than `--max-failures` allows: exit code 3.
    Losses,
    /// A signal asked it to stop, and what it had done is saved: 128 + the signal's number, as of a process that the signal
    /// ended, so that schedulers start it again.
    Stopped,
}

/// Runs a program's body and turns what it returns into the exit code: 0 done, 1 failed, 3 finished with
/// losses. (2, wrong use, comes from the argument parser or [`UsageError`].)
///
/// An error is printed as one line: what went wrong, where, and what to do.
pub fn run(body: impl FnOnce() -> anyhow::Result<Outcome>) -> ExitCode {
    catch_signals();
    match body() {
        Ok(Outcome::Done) => ExitCode::SUCCESS,
        Ok(Outcome::Losses) => ExitCode::from(3),
        Ok(Outcome::Stopped) => ExitCode::from(128 + signal() as u8),
        Err(error) => {
            eprintln!("error: {}", line_of(&error));
            ExitCode::from(if error.is::<UsageError>() { 2 } else { 1 })
        }
    }
}

/// An error and its causes as one line, even when a cause's own message has several; causes that an error
/// has in its message already are not said twice.
fn line_of(error: &anyhow::Error) -> String {
    let mut line = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !line.contains(&cause) {
            line = format!("{line}: {cause}");
        }
    }
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Arguments that parse but make no sense together: exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct UsageError(pub String);

/// The signal that asked the program to stop; 0 for none.
static SIGNAL: AtomicI32 = AtomicI32::new(0);

/// Whether Ctrl-C (or SIGTERM, or SIGUSR1, which schedulers send ahead of a time limit) asked the program to stop. Long work
/// asks between units, finishes or drops the unit in hand and returns an error.
pub fn interrupted() -> bool {
    signal() != 0
}

fn signal() -> i32 {
    SIGNAL.load(Ordering::Relaxed)
}

/// The second signal ends the process at once: everything is written atomically, so nothing is left half-done.
fn catch_signals() {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
    // Without handlers the system's own behaviour is left: the process ends.
    let Ok(mut signals) = signal_hook::iterator::Signals::new([SIGHUP, SIGINT, SIGTERM, SIGUSR1]) else {
        return;
    };
    std::thread::spawn(move || {
        for signal in signals.forever() {
            if SIGNAL.swap(signal, Ordering::Relaxed) != 0 {
                std::process::exit(128 + signal);
            }
            eprintln!("stopping after the unit in hand; once more to stop at once");
        }
    });
}

/// Without a terminal a line of progress is printed this often.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// A progress bar on a terminal; elsewhere one line on standard error every few seconds.
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
    /// `what` names the work ("tagging"), `unit` what is counted ("captions"); `total` 0 means unknown.
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

    /// Counts `n` more units; `message` (made only when it is shown) says what matters now.
    pub fn advance(&mut self, n: u64, message: impl FnOnce() -> String) {
        self.bar.inc(n);
        if self.terminal {
            self.bar.set_message(message());
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
        eprintln!("{}: {done}{of} {}{separator}{message} ({rate:.1}/s)", self.what, self.unit);
    }

    /// Ends the bar and leaves one line with the totals.
    pub fn finish(self, message: &str) {
        self.bar.finish_and_clear();
        self.line(message);
    }
}

/// Prints the machine-readable summary that `--json` asks for, as the last line of standard output.
pub fn print_json(summary: &serde_json::Value) -> anyhow::Result<()> {
    writeln!(std::io::stdout().lock(), "{summary}")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn an_error_says_everything_once() {
        let missing = std::io::Error::new(std::io::ErrorKind::NotFound, "no such\nfile");
        let error =
            anyhow::Error::new(crate::Error::io(Path::new("a.tar"))(missing)).context("reading the set");
        assert_eq!(line_of(&error), "reading the set: a.tar: no such file");
    }
}
