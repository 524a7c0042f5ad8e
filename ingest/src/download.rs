//! `ingest download`: rows of URLs to shards.
//!
//! Each row is one asynchronous task: it waits for its turn, fetches the image and hands the bytes to the image workers. The
//! shard writer restores the order of the input. Three limits bound the memory: the number of started rows, of requests in
//! flight (each held until its image is processed), and of open shards. A row whose host is paused or has many rows already
//! is not started but set aside on the disk, so that rows of other hosts are.

mod address;
mod data_url;
mod failure;
mod fetch;
mod hosts;
mod optout;
pub mod refresh;
mod resolver;
pub mod response;
mod retry;
mod robots;
mod settings;

use std::sync::Arc;

use serde_json::json;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use url::Url;

pub use self::address::is_public;
pub use self::failure::Failure;
use self::fetch::{Attempt, Fetched, Fetcher};
use self::hosts::{Aside, Host};
pub use self::optout::OPT_OUTS;
pub use self::settings::{Allowed, Settings};
use crate::dataset::{DOWNLOAD, Dataset, Part};
use crate::deny::Deny;
use crate::error::Error;
use crate::pipeline::{self, POLL_INTERVAL, Plan, Resources, Source, Task, Totals, Work, Workers};
use crate::problem::{DENIED, Problem};
use crate::request::Request;
use crate::rows::Input;

/// Started rows per request in flight, in total and per host: rows that wait for another attempt must not block the others.
const ROWS_PER_REQUEST: usize = 8;
/// Threads for DNS lookups: the system's interface blocks one thread per lookup.
const LOOK_UP_THREADS: usize = 256;
/// Open files other than the connections of requests: shards, inputs, idle connections.
const OTHER_FILES: u64 = 200;

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
    network: Arc<Rows>,
}

/// The rows that are under way.
struct Rows {
    fetcher: Fetcher,
    started: Arc<Semaphore>,
    most_started: usize,
    runtime: Handle,
}

/// A row with its permits: of its host, and to be started at all.
struct Started {
    task: Task,
    /// Number of earlier attempts.
    attempt: u32,
    /// URLs of the redirects so far; the last is the next to ask for.
    urls: Vec<Url>,
    host: Arc<Host>,
    permits: [OwnedSemaphorePermit; 2],
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
        let most_started = settings.in_flight * ROWS_PER_REQUEST;
        let network = {
            // The client must be created inside its runtime.
            let _inside = runtime.enter();
            Arc::new(Rows {
                fetcher: Fetcher::new(settings)?,
                started: Arc::new(Semaphore::new(most_started)),
                most_started,
                runtime: runtime.handle().clone(),
            })
        };
        Ok(Self { runtime, network })
    }

    /// Downloads the rows of `input` into the shards of `dataset`, but nothing of `deny`.
    pub fn download(
        &self,
        input: &Input,
        dataset: &Dataset,
        deny: Option<&Deny>,
        resources: &Resources,
    ) -> Result<Totals, Error> {
        let inspected = input.inspect()?;
        dataset.claim(&json!({ "command": DOWNLOAD, "from": inspected.description }))?;
        let total = inspected.rows.filter(|_| dataset.part == Part::ALL).unwrap_or(0);
        let watch = resources.watch(self.network.fetcher.network())?;
        let plan = Plan {
            what: "downloading",
            total,
            threads: resources.threads,
            queue: None,
            watch,
            deny,
            idle: &|| self.network.is_waiting(),
        };
        let work = Work::Inputs(&|| input.open());
        let totals =
            pipeline::run(dataset, &plan, work, &mut |task, workers| self.submit(task, deny, workers))?;
        totals.require_rows(&input.path(), dataset)
    }

    /// A permit to start a row; blocks while too many rows are started.
    fn start_row(&self, workers: &Workers) -> Result<OwnedSemaphorePermit, Error> {
        let started = &self.network.started;
        if let Ok(permit) = Arc::clone(started).try_acquire_owned() {
            return Ok(permit);
        }
        self.runtime.block_on(async {
            loop {
                if workers.stopped() {
                    return Err(Error::interrupted());
                }
                // The semaphore is never closed.
                if let Ok(Ok(permit)) = timeout(POLL_INTERVAL, Arc::clone(started).acquire_owned()).await {
                    return Ok(permit);
                }
            }
        })
    }

    /// Starts a row or sets it aside; blocks while too many rows are started.
    fn submit(&self, task: Task, deny: Option<&Deny>, workers: &Workers) -> Result<(), Error> {
        if deny.is_some_and(|deny| deny.has_url(&task.row.url)) {
            workers.submit(task, Source::Failed(Problem::removed(DENIED)));
            return Ok(());
        }
        if let Some(bytes) = data_url::decode(&task.row.url, self.network.fetcher.max_bytes()) {
            let source = match bytes {
                Ok(bytes) => Source::Bytes(bytes, Some(Box::new(self.start_row(workers)?))),
                Err(failure) => Source::Failed(Problem::download(failure.to_string())),
            };
            workers.submit(task, source);
            return Ok(());
        }
        let Some(url) = parsed(&task.row.url) else {
            workers.submit(task, Source::Failed(bad_url()));
            return Ok(());
        };
        let host = self.network.fetcher.host(&url);
        match host.start() {
            Some(permit) => {
                let permits = [permit, self.start_row(workers)?];
                self.network.start(Started { task, attempt: 0, urls: vec![url], host, permits }, workers);
            }
            None => self.network.set_aside(&host, task, (0, Vec::new()), workers),
        }
        Ok(())
    }

    /// Cancels the requests that are still in flight.
    pub fn stop(self) {
        self.runtime.shutdown_background();
    }
}

/// The URL of a row; None if it is not one.
fn parsed(url: &str) -> Option<Url> {
    Url::parse(url.trim()).ok()
}

impl Rows {
    /// Whether requests could be made but for the rows, which wait for their hosts: fewer are started than a quarter of the requests that
    /// may be in flight.
    fn is_waiting(&self) -> bool {
        let started = self.most_started - self.started.available_permits();
        4 * started < self.most_started / ROWS_PER_REQUEST
    }

    fn start(self: &Arc<Self>, row: Started, workers: &Workers) {
        let (rows, workers) = (Arc::clone(self), workers.clone());
        self.runtime.spawn(async move { rows.fetch(row, &workers).await });
    }

    /// Downloads an image, with retries after transient failures.
    async fn fetch(self: Arc<Self>, row: Started, workers: &Workers) {
        let Started { mut task, mut attempt, mut urls, host, permits } = row;
        let source = loop {
            if urls.is_empty() {
                urls.extend(parsed(&task.row.url));
            }
            let failure =
                match self.fetcher.attempt(std::mem::take(&mut urls), &host, &mut task.request, None).await {
                    Attempt::Complete(Fetched { bytes, permit }) => {
                        break Source::Bytes(bytes, permit.map(|permit| Box::new(permit) as _));
                    }
                    Attempt::Aside(other, urls) => {
                        drop(permits);
                        return self.set_aside(&other, task, (attempt, urls), workers);
                    }
                    Attempt::Failed(failure, other) => {
                        match self.fetcher.retry(&task.row.url, attempt, &failure) {
                            None => failure,
                            // The host is paused for this time.
                            Some(_) if matches!(failure, Failure::Http { retry_after: Some(_), .. }) => {
                                drop(permits);
                                return self.set_aside(&other, task, (attempt + 1, Vec::new()), workers);
                            }
                            Some(wait) => {
                                tokio::time::sleep(wait).await;
                                attempt += 1;
                                continue;
                            }
                        }
                    }
                };
            break Source::Failed(Problem::download(failure.to_string()));
        };
        workers.submit(task, source);
        drop(permits);
    }

    /// Moves a row to the disk until `host` can take it, with the number of its attempts and the URLs of the next one.
    fn set_aside(
        self: &Arc<Self>,
        host: &Arc<Host>,
        task: Task,
        (attempt, urls): (u32, Vec<Url>),
        workers: &Workers,
    ) {
        let Task { shard, index, row, spool, .. } = task;
        let place = match spool.put_row(&row) {
            Ok(place) => place,
            Err(error) => return workers.fail(error),
        };
        if host.set_aside(Aside { spool, place, shard, index, attempt, urls }) {
            let (rows, host, workers) = (Arc::clone(self), Arc::clone(host), workers.clone());
            self.runtime.spawn(async move { rows.start_aside(&host, &workers).await });
        }
    }

    /// Starts the rows that were set aside for a host, as soon as it can take them.
    async fn start_aside(self: Arc<Self>, host: &Arc<Host>, workers: &Workers) {
        // The semaphores are never closed.
        while let (Some(of_host), Ok(permit)) =
            (host.wait().await, Arc::clone(&self.started).acquire_owned().await)
        {
            let Some(Aside { spool, place, shard, index, attempt, urls }) = host.next_aside() else { return };
            match spool.row(place) {
                Ok(row) => {
                    let task = Task { shard, index, row, request: Request::default(), spool };
                    let host = Arc::clone(host);
                    self.start(Started { task, attempt, urls, host, permits: [of_host, permit] }, workers);
                }
                Err(error) => return workers.fail(error),
            }
        }
    }
}

fn bad_url() -> Problem {
    Problem::download(Failure::BadUrl.to_string())
}
