//! Long work on other threads, whose progress is reported.

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::error::Result;
use crate::observer::{Observer, Progress};

/// Work that is done before this is not mentioned.
const SILENT: Duration = Duration::from_secs(2);
/// How often to look how far it is.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Runs `work` on another thread. It counts what is done of `total` shards; this thread reports it.
pub(super) fn watched<T: Send>(
    observer: &dyn Observer,
    what: &'static str,
    total: u64,
    work: impl FnOnce(&AtomicU64) -> Result<T> + Send,
) -> Result<T> {
    let (done, started) = (AtomicU64::new(0), Instant::now());
    thread::scope(|scope| {
        let working = scope.spawn(|| work(&done));
        let mut progress = observer.progress(what, "shards", total);
        let mut reported = 0;
        let mut report = |progress: &mut dyn Progress| {
            let now = done.load(Ordering::Relaxed);
            progress.advance(now - reported, &String::new);
            reported = now;
        };
        while !working.is_finished() {
            thread::sleep(LOOK_EVERY);
            report(&mut *progress);
        }
        report(&mut *progress);
        if started.elapsed() > SILENT {
            progress.finish("");
        }
        working.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
