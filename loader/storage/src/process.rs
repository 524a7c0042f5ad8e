//! What is kept once for the process.
//!
//! It is one static, which no function of this crate hands out. Handed in, it would be an argument of everything that may
//! meet a remote file, down to the threads that decode samples; and it has to be one anyway: two of them would ask the hub for
//! two commits of one branch, open connections twice, copy files twice and report a dead server twice. Signals and environment
//! variables, which it depends on, are the process's, too.
//!
//! The runtime is started by the first request. A process that forks must do so before: its threads do not survive a fork.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use object_store::ObjectStore;
use reqwest::header::HeaderValue;
use tokio::runtime::Runtime;

use crate::{Location, RETRY_FOR, interrupted};

/// Number of threads of the network runtime.
const NETWORK_THREADS: usize = 2;

static PROCESS: LazyLock<Process> = LazyLock::new(Process::default);

#[derive(Default)]
pub(crate) struct Process {
    runtime: OnceLock<io::Result<Runtime>>,
    stores: Mutex<HashMap<String, Arc<dyn ObjectStore>>>,
    commits: Mutex<HashMap<String, String>>,
    hosts: Mutex<HashMap<String, Host>>,
    copies: Mutex<Option<Copies>>,
    tokens: OnceLock<Vec<(String, HeaderValue)>>,
    retry_for: OnceLock<Duration>,
    report: OnceLock<fn(&str)>,
    stop_when_interrupted: AtomicBool,
    /// When it was first asked whether to stop, after the signal.
    stopping_since: OnceLock<Instant>,
}

/// What is known about a host.
pub(crate) enum Host {
    Answers,
    Fails { since: Instant, reported: bool },
}

/// The folder of this process's copies.
pub(crate) struct Copies {
    pub(crate) folder: PathBuf,
    /// Its lock, by which other processes see that it is in use.
    #[expect(dead_code, reason = "held until the end of the process")]
    pub(crate) held: File,
    pub(crate) by_location: HashMap<Location, PathBuf>,
}

/// The process's own.
pub(crate) fn process() -> &'static Process {
    &PROCESS
}

impl Process {
    /// The threads that wait for servers.
    pub(crate) fn runtime(&self) -> Result<&Runtime, &io::Error> {
        let start = || {
            tokio::runtime::Builder::new_multi_thread()
                .worker_threads(NETWORK_THREADS)
                .thread_name("loader-network")
                .enable_all()
                .build()
        };
        self.runtime.get_or_init(start).as_ref()
    }

    /// Stores by the beginning of their addresses, with their connections.
    pub(crate) fn stores(&self) -> MutexGuard<'_, HashMap<String, Arc<dyn ObjectStore>>> {
        lock(&self.stores)
    }

    /// The commits of revisions on the hub.
    pub(crate) fn commits(&self) -> MutexGuard<'_, HashMap<String, String>> {
        lock(&self.commits)
    }

    /// What is known about hosts.
    pub(crate) fn hosts(&self) -> MutexGuard<'_, HashMap<String, Host>> {
        lock(&self.hosts)
    }

    /// The copies of remote files on this disk.
    pub(crate) fn copies(&self) -> MutexGuard<'_, Option<Copies>> {
        lock(&self.copies)
    }

    /// The bearer tokens of the environment, with their hosts; `read` is asked once.
    pub(crate) fn tokens(&self, read: fn() -> Vec<(String, HeaderValue)>) -> &[(String, HeaderValue)] {
        self.tokens.get_or_init(read)
    }

    /// How long a failing request is repeated.
    pub(crate) fn retry_for(&self) -> Duration {
        *self.retry_for.get_or_init(|| {
            let seconds = std::env::var("LOADER_RETRY_SECONDS").ok().and_then(|text| text.parse().ok());
            seconds.map_or(RETRY_FOR, Duration::from_secs)
        })
    }

    /// Whether requests are to end: this much time has passed since the first question after the signal.
    pub(crate) fn is_stopping(&self, after: Duration) -> bool {
        self.stop_when_interrupted.load(Ordering::Relaxed)
            && interrupted()
            && self.stopping_since.get_or_init(Instant::now).elapsed() > after
    }

    /// Shows the user a message, if the program has said how.
    pub(crate) fn report(&self, message: &str) {
        if let Some(report) = self.report.get() {
            report(message);
        }
    }
}

/// Ignores poisoning: every change under these locks is one assignment.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// From now on, requests that are still under way three seconds after the program was asked to stop ([`interrupted`]) end
/// with an error. Without this call they run to their end, for programs that save their work then.
pub fn stop_when_interrupted() {
    PROCESS.stop_when_interrupted.store(true, Ordering::Relaxed);
}

/// Where messages for the user go: that a server cannot be reached while requests to it are repeated, and that a token of the
/// environment is not used. Without this call they are lost, because a library does not print. Only the first call counts.
pub fn report_to(report: fn(&str)) {
    let _ = PROCESS.report.set(report);
}
