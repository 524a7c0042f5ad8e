//! What one process reports for all processes of a run.

use super::group::Group;
use crate::observer::{Observer, Progress, Silent};

/// Reports on rank 0 and is silent on all others, for what is the same on every rank. Signals count on every rank.
#[derive(Debug, Clone, Copy)]
pub struct FirstRank<'a> {
    /// For what concerns this rank only.
    pub this_rank: &'a dyn Observer,
    is_first: bool,
}

impl<'a> FirstRank<'a> {
    /// Reports to the observer of this process.
    pub fn new(this_rank: &'a dyn Observer, group: &Group) -> Self {
        Self { this_rank, is_first: group.is_first() }
    }

    fn observer(&self) -> &dyn Observer {
        if self.is_first { self.this_rank } else { &Silent }
    }
}

impl Observer for FirstRank<'_> {
    fn message(&self, line: &str) {
        self.observer().message(line);
    }

    fn progress(&self, what: &'static str, unit: &'static str, total: u64) -> Box<dyn Progress> {
        self.observer().progress(what, unit, total)
    }

    fn interrupted(&self) -> bool {
        self.this_rank.interrupted()
    }
}
