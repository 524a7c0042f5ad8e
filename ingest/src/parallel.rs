//! The same work on several threads, until one of them fails or the user interrupts the run.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use program::interrupted;

use crate::error::Error;

/// Stops all threads when one of them has failed or the user has interrupted the run.
#[derive(Default)]
pub(crate) struct StopFlag(AtomicBool);

impl StopFlag {
    pub(crate) fn check(&self) -> Result<(), Error> {
        if interrupted() || self.0.load(Ordering::Acquire) { Err(Error::interrupted()) } else { Ok(()) }
    }
}

/// Runs `work` on several threads, including this one; returns the first error.
pub(crate) fn run_parallel(
    threads: usize,
    work: impl Fn(&StopFlag) -> Result<(), Error> + Sync,
) -> Result<(), Error> {
    let stop = StopFlag::default();
    let first = Mutex::new(None);
    let one = || {
        if let Err(error) = work(&stop) {
            // First this: the others end with `interrupted` as soon as they see the flag.
            first.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
            stop.0.store(true, Ordering::Release);
        }
    };
    thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(one);
        }
        one();
    });
    first.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
}
