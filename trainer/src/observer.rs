//! Messages, progress and interruption: how the library reports to the program that runs it. The library itself prints nothing
//! and handles no signals.

use std::fmt::Debug;

/// Receives the reports of long work. The program prints them; [`Silent`] ignores them.
pub trait Observer: Debug + Sync {
    /// A line for the user: a warning, or what has been done.
    fn message(&self, line: &str);

    /// Work begins: `what` (such as "training") and what is counted in it (`unit`, such as "steps"), of which there are `total`;
    /// 0 if that is unknown.
    fn progress(&self, what: &'static str, unit: &'static str, total: u64) -> Box<dyn Progress>;

    /// Whether the work is to stop. This is asked between two units of work.
    fn interrupted(&self) -> bool;
}

/// The progress of some work.
pub trait Progress: Debug {
    /// Counts `count` more finished units. `message` has other figures; it is called only when they are shown.
    fn advance(&mut self, count: u64, message: &dyn Fn() -> String);

    /// The work is done.
    fn finish(self: Box<Self>, message: &str);
}

/// Ignores everything, and never stops the work.
#[derive(Debug, Clone, Copy)]
pub struct Silent;

impl Observer for Silent {
    fn message(&self, _: &str) {}

    fn progress(&self, _: &'static str, _: &'static str, _: u64) -> Box<dyn Progress> {
        Box::new(Self)
    }

    fn interrupted(&self) -> bool {
        false
    }
}

impl Progress for Silent {
    fn advance(&mut self, _: u64, _: &dyn Fn() -> String) {}

    fn finish(self: Box<Self>, _: &str) {}
}
