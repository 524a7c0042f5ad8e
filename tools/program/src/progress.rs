//! How far the work is.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use disk::foreign_files::visible;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

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
