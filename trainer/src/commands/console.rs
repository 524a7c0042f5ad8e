//! Prints the messages and the progress of the library on standard error, and stops its work after a signal.

use trainer::{Observer, Progress};

/// Standard error and the signals of this process.
#[derive(Debug)]
pub(crate) struct Console;

impl Observer for Console {
    fn message(&self, line: &str) {
        eprintln!("{line}");
    }

    fn progress(&self, what: &'static str, unit: &'static str, total: u64) -> Box<dyn Progress> {
        Box::new(Bar(program::Progress::new(what, unit, total)))
    }

    fn interrupted(&self) -> bool {
        program::interrupted()
    }
}

#[derive(Debug)]
struct Bar(program::Progress);

impl Progress for Bar {
    fn advance(&mut self, count: u64, message: &dyn Fn() -> String) {
        self.0.advance(count, message);
    }

    fn finish(self: Box<Self>, message: &str) {
        self.0.finish(message);
    }
}
