//! `ingest download`: rows of URLs to shards.
//!
//! A task a row waits for its turn, fetches, and hands the bytes to the picture workers; the shard writer brings the
//! results back into the order of the input. Three bounds keep memory flat: rows under way, requests in flight (held
//! until the picture is made), and open shards.

mod address;
mod failure;
mod fetch;
mod hosts;
mod optout;
mod resolver;
mod retry;

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

pub use self::address::is_public;
pub use self::failure::Failure;
use self::fetch::{Fetched, Fetcher};
pub use self::optout::DIRECTIVES;
use crate::error::Error;
use crate::input::Input;
use crate::part::Part;
use crate::pipeline::{self, Plan, Source, Task, Workers};
use crate::sample::Problem;
use crate::set::Set;
use crate::stats::Totals;

/// Rows under way for each request in flight: those that wait for a retry or a busy host do not hold up the others.
const ROWS_PER_REQUEST: usize = 8;
/// Threads for name look-ups, which the system does one a thread.
const LOOK_UP_THREADS: usize = 64;
/// Files open at a time besides the connections of requests: shards, inputs, connections that are kept for a moment.
const OTHER_FILES: u64 = 200;

/// Manners and bounds of the network side.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Requests at a time, all hosts together.
    pub in_flight: usize,
    /// Requests at a time to one host.
    pub per_host: usize,
    /// For a connection, for the response's headers, for a silence in the body.
    pub timeout: Duration,
    /// For a whole attempt, redirects and body included.
    pub deadline: Duration,
    /// Bytes a second that a body must reach once `timeout` has passed.
    pub min_speed: u64,
    /// Largest body, in bytes.
    pub max_bytes: u64,
    /// Attempts after the first.
    pub retries: u32,
    /// Wait before the first of them; doubles each time, half of it at random.
    pub backoff: Duration,
    /// Longest `Retry-After` that is waited for.
    pub longest_retry_after: Duration,
    /// Redirects followed.
    pub redirects: usize,
    /// Name by which owners can address this robot; part of the user agent.
    pub user_agent_token: Option<String>,
    /// `X-Robots-Tag` directives that are honoured, lower-case.
    pub opt_outs: Vec<String>,
    /// Addresses allowed though they are not public.
    pub allow_private: Allowed,
    /// PEM file of certificate authorities to trust besides the system's.
    pub authorities: Option<PathBuf>,
    /// Proxy for all requests.
    pub proxy: Option<String>,
}

impl Settings {
    /// What the program calls itself: its own name, never a browser's.
    pub fn user_agent(&self) -> String {
        let version = env!("CARGO_PKG_VERSION");
        let token =
            self.user_agent_token.as_ref().map_or(String::new(), |token| format!(" (compatible; {token})"));
        format!("simzss-ingest/{version}{token}")
    }
}

/// Exceptions to the rule that only public addresses are asked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Allowed {
    /// All of them.
    pub everything: bool,
    /// Hosts by name or address, as in URLs.
    pub hosts: Vec<String>,
}

impl Allowed {
    fn host(&self, name: &str) -> bool {
        self.everything || self.hosts.iter().any(|host| host.eq_ignore_ascii_case(name))
    }

    fn address(&self, address: IpAddr) -> bool {
        self.host(&address.to_string())
    }
}

/// Raises the process's limit of open files to what the system allows it. (The usual one, 1,024, is for old programs.)
fn allow_open_files(in_flight: usize) -> Result<(), Error> {
    let needed = 2 * in_flight as u64 + OTHER_FILES;
    match rlimit::increase_nofile_limit(u64::MAX) {
        Ok(allowed) if allowed < needed => Err(Error::Usage(format!(
            "--concurrency {in_flight} needs {needed} open files, but the system allows {allowed}: raise that (ulimit -n) or \
             lower --concurrency"
        ))),
        _ => Ok(()),
    }
}

/// The network side of a run: takes rows, gives bytes to the workers.
pub struct Downloader {
    runtime: tokio::runtime::Runtime,
    fetcher: Arc<Fetcher>,
    under_way: Arc<Semaphore>,
}

impl Downloader {
    /// Starts the network threads.
    pub fn new(settings: Settings) -> Result<Self, Error> {
        allow_open_files(settings.in_flight)?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .max_blocking_threads(LOOK_UP_THREADS)
            .thread_name("network")
            .enable_all()
            .build()
            .map_err(|error| Error::Client(error.to_string()))?;
        let under_way = Arc::new(Semaphore::new(settings.in_flight * ROWS_PER_REQUEST));
        let fetcher = {
            // The client binds to the runtime it is made in.
            let _inside = runtime.enter();
            Arc::new(Fetcher::new(settings)?)
        };
        Ok(Self { runtime, fetcher, under_way })
    }

    /// Downloads the rows of `input` into the shards of `set`.
    pub fn download(&self, input: &Input, set: &Set) -> Result<Totals, Error> {
        let looked = input.look()?;
        set.claim(&json!({ "command": "download", "from": looked.description }))?;
        let total = looked.rows.filter(|_| set.part == Part::ALL).unwrap_or(0);
        let watch = set.watch(self.fetcher.network())?;
        let plan = Plan { what: "downloading", total, shards: None, queue: None, watch };
        let totals = pipeline::run(set, &plan, &mut input.open(), &mut |task, workers| {
            self.submit(task, workers);
            Ok(())
        })?;
        totals.refuse_nothing(input.path(), set)
    }

    /// A place among the rows under way; blocks until there is one.
    fn place(&self) -> Option<OwnedSemaphorePermit> {
        // The semaphore is never closed.
        self.runtime.block_on(Arc::clone(&self.under_way).acquire_owned()).ok()
    }

    /// Starts on a row; blocks while enough rows are under way.
    fn submit(&self, task: Task, workers: &Workers) {
        let place = self.place();
        let (fetcher, workers) = (Arc::clone(&self.fetcher), workers.clone());
        self.runtime.spawn(async move {
            let source = match fetcher.fetch(&task.row.url).await {
                Ok(Fetched { bytes, slot }) => Source::Bytes(bytes, slot.map(|slot| Box::new(slot) as _)),
                Err(failure) => Source::Failed(Problem::download(failure.to_string())),
            };
            workers.submit(task, source);
            drop(place);
        });
    }

    /// Drops what is still under way.
    pub fn stop(self) {
        self.runtime.shutdown_background();
    }
}
