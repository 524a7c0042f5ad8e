//! Work on every shard, on several threads.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use storage::Location;

use crate::Error;

/// Number of threads for requests, of which each waits for one at a time.
pub(crate) const MANY: usize = 64;

/// Calls `work` with the number of every shard, on several threads, and returns the results in order, or the first error.
/// `doing` is what `work` has done, for the message if it panics.
pub(crate) fn for_each_shard<T: Send>(
    shards: &[Location],
    threads: usize,
    doing: &str,
    work: impl Fn(usize) -> Result<T, Error> + Sync,
) -> Result<Vec<T>, Error> {
    let next = AtomicUsize::new(0);
    let run = || {
        let mut done = Vec::new();
        loop {
            let shard = next.fetch_add(1, Ordering::Relaxed);
            let Some(path) = shards.get(shard) else { return done };
            let result = catch_unwind(AssertUnwindSafe(|| work(shard))).unwrap_or_else(|panic| {
                let (shard, doing) = (path.clone(), doing.to_owned());
                Err(Error::Panicked { shard, doing, problem: panic_message(&*panic) })
            });
            if result.is_err() {
                next.store(shards.len(), Ordering::Relaxed);
            }
            done.push((shard, result));
        }
    };
    let done: Result<Vec<_>, Error> = thread::scope(|scope| {
        let started: Vec<_> = (0..threads.min(shards.len())).map(|_| scope.spawn(run)).collect();
        let ended = |_| Error::Threads(std::io::Error::other("a thread that reads shards panicked"));
        started.into_iter().map(|thread| thread.join().map_err(ended)).collect()
    });
    let mut done: Vec<_> = done?.into_iter().flatten().collect();
    done.sort_by_key(|(shard, _)| *shard);
    done.into_iter().map(|(_, result)| result).collect()
}

/// The text of a panic.
pub(crate) fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_while_shards_are_read_is_an_error_that_names_the_shard() {
        let shards: Vec<Location> = (0..6).map(|shard| format!("{shard:05}.tar").into()).collect();
        for threads in [1, 3] {
            let counts = for_each_shard(&shards, threads, "tried", |shard| Ok(10 * shard)).unwrap();
            assert_eq!(counts, [0, 10, 20, 30, 40, 50]);
            let panicking = |shard: usize| -> Result<usize, Error> {
                assert!(shard != 3, "on purpose");
                Ok(10 * shard)
            };
            let error = for_each_shard(&shards, threads, "tried", panicking).unwrap_err().to_string();
            assert!(error.contains("00003.tar") && error.contains("on purpose"), "{error}");
        }
    }
}
