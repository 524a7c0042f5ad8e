//! `ingest download`: rows of URLs to shards.
//!
//! Each row is one asynchronous task: it waits for its turn, fetches the image and hands the bytes to the image workers. The
//! shard writer restores the order of the input. Three limits bound the memory: the number of started rows, of requests in
//! flight (each held until its image is processed), and of open shards.

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
use crate::dataset::Dataset;
use crate::error::Error;
use crate::input::Input;
use crate::part::Part;
use crate::pipeline::{self, Plan, Source, Task, Workers};
use crate::sample::Problem;
use crate::stats::Totals;

/// Started rows per request in flight: rows that wait for a retry or for a busy host must not block the others.
const ROWS_PER_REQUEST: usize = 8;
/// Threads for DNS lookups: the system's interface blocks one thread per lookup.
const LOOK_UP_THREADS: usize = 64;
/// Open files other than the connections of requests: shards, inputs, idle connections.
const OTHER_FILES: u64 = 200;

/// Limits and behaviour of the network side.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Maximum number of requests at a time, over all hosts.
    pub in_flight: usize,
    /// Maximum number of requests at a time to one host.
    pub per_host: usize,
    /// Connect, first-byte and read timeout.
    pub timeout: Duration,
    /// Maximum duration of one attempt, including redirects and the response.
    pub deadline: Duration,
    /// Minimum transfer rate of a response in bytes per second, checked once `timeout` has passed.
    pub min_speed: u64,
    /// Maximum size of a response, in bytes.
    pub max_bytes: u64,
    /// Maximum number of attempts after the first.
    pub retries: u32,
    /// Wait before the first retry: exponential backoff with jitter.
    pub backoff: Duration,
    /// Maximum `Retry-After` to wait for.
    pub max_retry_after: Duration,
    /// Maximum number of redirects to follow.
    pub max_redirects: usize,
    /// Name of the crawler in the user agent, for which directives of `X-Robots-Tag` can be given.
    pub user_agent_token: Option<String>,
    /// `X-Robots-Tag` directives that are obeyed, in lower case.
    pub opt_outs: Vec<String>,
    /// Addresses that are allowed although they are not public.
    pub allow_private: Allowed,
    /// PEM file of CA certificates to trust in addition to the system's.
    pub ca_certificates: Option<PathBuf>,
    /// Proxy for all requests.
    pub proxy: Option<String>,
}

impl Settings {
    /// The User-Agent header: the program's own name, never that of a browser.
    pub fn user_agent(&self) -> String {
        let version = env!("CARGO_PKG_VERSION");
        let token =
            self.user_agent_token.as_ref().map_or(String::new(), |token| format!(" (compatible; {token})"));
        format!("simzss-ingest/{version}{token}")
    }
}

/// Exceptions to the rule that only public addresses are contacted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Allowed {
    /// All addresses.
    pub everything: bool,
    /// Hosts by name or address, spelled as in the URLs.
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

/// Raises the process's limit of open files to the maximum that the system allows. (The usual default, 1,024, is too low.)
fn allow_open_files(in_flight: usize) -> Result<(), Error> {
    let needed = 2 * in_flight as u64 + OTHER_FILES;
    match rlimit::increase_nofile_limit(u64::MAX) {
        Ok(allowed) if allowed < needed => Err(Error::Usage(format!(
            "--concurrency {in_flight} needs {needed} open files, but the system allows {allowed}: raise the limit \
             (ulimit -n) or lower --concurrency"
        ))),
        _ => Ok(()),
    }
}

/// The network side of a run: takes rows and hands the downloaded bytes to the workers.
pub struct Downloader {
    runtime: tokio::runtime::Runtime,
    fetcher: Arc<Fetcher>,
    started_rows: Arc<Semaphore>,
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
        let started_rows = Arc::new(Semaphore::new(settings.in_flight * ROWS_PER_REQUEST));
        let fetcher = {
            // The client must be created inside its runtime.
            let _inside = runtime.enter();
            Arc::new(Fetcher::new(settings)?)
        };
        Ok(Self { runtime, fetcher, started_rows })
    }

    /// Downloads the rows of `input` into the shards of `dataset`.
    pub fn download(&self, input: &Input, dataset: &Dataset) -> Result<Totals, Error> {
        let inspected = input.inspect()?;
        dataset.claim(&json!({ "command": "download", "from": inspected.description }))?;
        let total = inspected.rows.filter(|_| dataset.part == Part::ALL).unwrap_or(0);
        let watch = dataset.watch(self.fetcher.network())?;
        let plan = Plan { what: "downloading", total, shards: None, queue: None, watch };
        let totals = pipeline::run(dataset, &plan, &mut input.open(), &mut |task, workers| {
            self.submit(task, workers);
            Ok(())
        })?;
        totals.require_rows(input.path(), dataset)
    }

    /// A permit to start a row; blocks while too many rows are started.
    fn start_row(&self) -> Option<OwnedSemaphorePermit> {
        // The semaphore is never closed.
        self.runtime.block_on(Arc::clone(&self.started_rows).acquire_owned()).ok()
    }

    /// Starts a row; blocks while too many rows are started.
    fn submit(&self, task: Task, workers: &Workers) {
        let permit = self.start_row();
        let (fetcher, workers) = (Arc::clone(&self.fetcher), workers.clone());
        self.runtime.spawn(async move {
            let source = match fetcher.fetch(&task.row.url).await {
                Ok(Fetched { bytes, permit }) => {
                    Source::Bytes(bytes, permit.map(|permit| Box::new(permit) as _))
                }
                Err(failure) => Source::Failed(Problem::download(failure.to_string())),
            };
            workers.submit(task, source);
            drop(permit);
        });
    }

    /// Cancels the requests that are still in flight.
    pub fn stop(self) {
        self.runtime.shutdown_background();
    }
}
