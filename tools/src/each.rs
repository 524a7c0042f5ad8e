//! Work on each of several files, on several threads.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use anyhow::{Result, anyhow, bail};
use program::{Interrupted, Progress};

/// Calls `work` with every number below `count`, on several threads; returns the results in order, or an error.
pub(crate) fn each<T: Send>(
    count: usize,
    threads: usize,
    what: &'static str,
    work: impl Fn(usize) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    let next = AtomicUsize::new(0);
    let progress = Mutex::new(Progress::new(what, "shards", count as u64));
    let run = || -> Result<Vec<(usize, T)>> {
        let mut done = Vec::new();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= count || program::interrupted() {
                return Ok(done);
            }
            let result = work(number).inspect_err(|_| next.store(count, Ordering::Relaxed))?;
            done.push((number, result));
            progress.lock().unwrap_or_else(PoisonError::into_inner).advance(1, String::new);
        }
    };
    let parts: Result<Vec<_>> = thread::scope(|scope| {
        let started: Vec<_> = (0..threads.clamp(1, count.max(1))).map(|_| scope.spawn(run)).collect();
        started.into_iter().map(|thread| thread.join().map_err(|_| anyhow!("a thread panicked"))?).collect()
    });
    let mut done: Vec<_> = parts?.into_iter().flatten().collect();
    if program::interrupted() {
        bail!(Interrupted::new("nothing was written".to_owned()));
    }
    progress.into_inner().unwrap_or_else(PoisonError::into_inner).finish("");
    done.sort_unstable_by_key(|(number, _)| *number);
    Ok(done.into_iter().map(|(_, result)| result).collect())
}
