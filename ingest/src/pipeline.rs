//! The pipeline that `download` and `shard` share: rows in the order of the input -> images processed on all cores in any
//! order -> shards in the order of the input.
//!
//! ```text
//! feed (this thread) --Task--> submit --Job--> workers (one per core) --Event--> writer (one thread)
//!        \------------------------- Open, Close, failed rows ------------------/
//! ```

mod feed;
mod metrics;
mod totals;
pub(crate) mod watch;

use std::any::Any;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crossbeam::channel::{self, Receiver, RecvTimeoutError, Sender};
use disk::foreign_files::read_regular;
use program::{Progress, interrupted};
use storage::Location;

use self::feed::Feeder;
pub use self::totals::Totals;
use self::watch::{Network, Watch};
use crate::dataset::Dataset;
use crate::dataset::ShardStats;
use crate::deny::Deny;
use crate::error::Error;
use crate::image;
use crate::image::EncodedImage;
use crate::problem::{DENIED, Problem, Status};
use crate::request::Request;
use crate::rows::{Inputs, Row, Rows};
use crate::sample::Sample;
use crate::shard::ShardWriter;
use crate::shard::spool::Spool;
use crate::signals::Language;

/// How often waiting threads check whether the run was stopped.
pub(crate) const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// A row and its position in the dataset.
pub(crate) struct Task {
    pub(crate) shard: u32,
    pub(crate) index: u32,
    pub(crate) row: Row,
    /// What requests for its image taught.
    pub(crate) request: Request,
    /// The temporary file of the shard.
    pub(crate) spool: Arc<Spool>,
}

/// Where a task's image comes from.
pub(crate) enum Source {
    /// An image file in memory, and the permit to drop once it is processed.
    Bytes(Vec<u8>, Option<Box<dyn Any + Send>>),
    /// A file, which may be at an address, and its maximum size in bytes.
    File(Location, u64),
    /// An image that was processed by an earlier run, and the permit to drop once it is passed on.
    Processed(EncodedImage, Option<Box<dyn Any + Send>>),
    /// There is no image.
    Failed(Problem),
}

/// A row, or what stops the run.
type Submitted = Result<Job, Error>;

struct Job {
    task: Task,
    source: Source,
}

/// The queue of the image workers.
#[derive(Clone)]
pub(crate) struct Workers {
    jobs: Sender<Submitted>,
    run: Arc<Run>,
}

impl Workers {
    /// Queues a task; ignored if the run is being stopped.
    pub(crate) fn submit(&self, task: Task, source: Source) {
        let _ = self.jobs.send(Ok(Job { task, source }));
    }

    /// Ends the run with an error.
    pub(crate) fn fail(&self, error: Error) {
        let _ = self.jobs.send(Err(error));
    }

    /// Whether the run is being stopped.
    pub(crate) fn stopped(&self) -> bool {
        self.run.stopped()
    }
}

enum Event {
    Open(Box<ShardWriter>),
    Done(Box<Sample>),
    Close { shard: u32, count: u32 },
    Failed(Error),
}

/// The work of the threads of one run, and the flag that stops them.
struct Run {
    stop: AtomicBool,
}

impl Run {
    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed) || interrupted()
    }

    /// The next message; None if there are no more or the run was stopped.
    fn next<T>(&self, from: &Receiver<T>) -> Option<T> {
        loop {
            if self.stopped() {
                return None;
            }
            match from.recv_timeout(POLL_INTERVAL) {
                Ok(message) => return Some(message),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return None,
            }
        }
    }

    fn work(
        &self,
        jobs: &Receiver<Submitted>,
        events: &Sender<Event>,
        settings: &image::Settings,
        deny: Option<&Deny>,
    ) {
        while let Some(job) = self.next(jobs) {
            let Job { mut task, source } = match job {
                Ok(job) => job,
                Err(error) => {
                    // If the writer has ended, its own error is the cause.
                    let _ = events.send(Event::Failed(error));
                    return;
                }
            };
            let outcome = match source {
                Source::Failed(problem) => Err(problem),
                Source::Processed(image, _permit) => Ok(image),
                Source::File(path, limit) => {
                    read(&path, limit).and_then(|bytes| settings.process(&bytes, &task.row))
                }
                Source::Bytes(bytes, permit) => {
                    let final_url = task.request.final_url.as_deref();
                    let is_denied = |deny: &Deny| {
                        final_url.is_some_and(|url| deny.has_url(url)) || deny.has_image(&bytes)
                    };
                    let outcome = if deny.is_some_and(is_denied) {
                        Err(Problem::removed(DENIED))
                    } else {
                        settings.process(&bytes, &task.row)
                    };
                    drop((bytes, permit));
                    outcome
                }
            };
            if outcome.as_ref().is_err_and(|problem| problem.status == Status::Removed)
                && task.row.removed.is_none()
            {
                (task.row, task.request) = (task.row.without_texts(), Request::default());
            }
            let Task { shard, index, row, request, .. } = task;
            let caption = row.caption.as_deref().filter(|_| outcome.is_ok());
            let language = caption.filter(|_| settings.perceptual_hash).and_then(Language::of);
            let sample = Sample { shard, index, row, request, language, outcome };
            if events.send(Event::Done(Box::new(sample))).is_err() {
                return;
            }
        }
    }

    /// Fills the open shards, and finishes each when all its samples have arrived.
    fn write(
        &self,
        events: &Receiver<Event>,
        finished: &Sender<()>,
        watch: &Watch,
        mut progress: Progress,
    ) -> Result<Totals, Error> {
        let mut open: Vec<ShardWriter> = Vec::new();
        while let Some(event) = self.next(events) {
            let shard = match event {
                Event::Open(writer) => {
                    open.push(*writer);
                    continue;
                }
                Event::Done(sample) => {
                    let warning = watch.totals().sample(&sample);
                    if let Some(warning) = warning {
                        eprintln!("{warning}");
                    }
                    progress.advance(1, || watch.message());
                    let shard = sample.shard;
                    if let Some(writer) = open.iter_mut().find(|writer| writer.shard() == shard) {
                        writer.push(&sample)?;
                    }
                    shard
                }
                Event::Close { shard, count } => {
                    if let Some(writer) = open.iter_mut().find(|writer| writer.shard() == shard) {
                        writer.expect(count);
                    }
                    shard
                }
                Event::Failed(error) => return Err(error),
            };
            let complete = open.iter().position(|writer| writer.shard() == shard && writer.is_complete());
            if let Some(position) = complete {
                open.swap_remove(position).finish()?;
                watch.totals().shards += 1;
                // Fails only if the feeder has ended, which then waits for no shard.
                let _ = finished.send(());
            }
        }
        if self.stopped() {
            return Err(Error::interrupted());
        }
        let totals = watch.totals().clone();
        // A run that had nothing to do prints no rates and percentages of nothing.
        if totals.stats.count > 0 {
            progress.finish(&watch.message());
        }
        Ok(totals)
    }
}

/// Where the rows come from.
pub(crate) enum Work<'a> {
    /// Opens the inputs. They are read once more if a process that makes some of their shards is lost. Complete shards are
    /// skipped.
    Inputs(&'a dyn Fn() -> Inputs<'a>),
    /// Complete shards to make again with their statistics, and a function that opens the rows of one.
    Again(&'a [(u32, ShardStats)], &'a mut dyn FnMut(u32) -> Result<Box<dyn Rows>, Error>),
}

/// How a run uses this machine.
#[derive(Debug, Clone, Copy)]
pub struct Resources {
    /// Threads that decode, resize and encode images.
    pub threads: usize,
    /// Address at which Prometheus metrics are served.
    pub metrics: Option<SocketAddr>,
}

impl Resources {
    /// The counters of a run, served to Prometheus if `metrics` is set.
    pub(crate) fn watch(&self, network: Arc<Network>) -> Result<Arc<Watch>, Error> {
        let watch = Watch::new(network);
        if let Some(address) = self.metrics {
            let address = metrics::serve(address, Arc::clone(&watch))?;
            eprintln!("metrics at http://{address}/metrics");
        }
        Ok(watch)
    }
}

/// What one run does.
pub(crate) struct Plan<'a> {
    /// Name of the work for the progress line.
    pub(crate) what: &'static str,
    /// Expected number of samples; 0 if unknown.
    pub(crate) total: u64,
    /// Threads that process images.
    pub(crate) threads: usize,
    /// Maximum number of queued jobs; None if `submit` limits them itself.
    pub(crate) queue: Option<usize>,
    /// The counters.
    pub(crate) watch: Arc<Watch>,
    /// What must not be taken.
    pub(crate) deny: Option<&'a Deny>,
    /// Whether nearly all rows of the open shards wait for something, so that looking further ahead in the inputs is worthwhile.
    pub(crate) idle: &'a dyn Fn() -> bool,
}

/// Makes the shards of `dataset`. `submit` starts a row.
pub(crate) fn run(
    dataset: &Dataset,
    plan: &Plan<'_>,
    work: Work<'_>,
    submit: &mut dyn FnMut(Task, &Workers) -> Result<(), Error>,
) -> Result<Totals, Error> {
    let run = Arc::new(Run { stop: AtomicBool::new(false) });
    let (jobs_in, jobs) = plan.queue.map_or_else(channel::unbounded, channel::bounded);
    let (events_in, events) = channel::bounded(2 * plan.threads);
    let (finished_in, finished) = channel::unbounded();
    let progress = Progress::new(plan.what, "samples", plan.total);
    let workers = Workers { jobs: jobs_in, run: Arc::clone(&run) };
    let watch = &plan.watch;
    thread::scope(|scope| {
        for _ in 0..plan.threads {
            let (run, jobs, events, image) = (&run, jobs.clone(), events_in.clone(), &dataset.image);
            let deny = plan.deny;
            scope.spawn(move || run.work(&jobs, &events, image, deny));
        }
        drop(jobs);
        let writer = scope.spawn(|| {
            let (events, finished) = (events, finished_in);
            let written = run.write(&events, &finished, watch, progress);
            // Threads that wait to send fail when the receivers are dropped; the others check this flag.
            run.stop.store(written.is_err(), Ordering::Relaxed);
            written
        });
        let mut feeder = Feeder::new(dataset, &run, events_in, finished, plan.idle, plan.deny);
        let fed = feeder.feed(work, &mut |task| submit(task, &workers));
        drop(workers);
        if fed.is_err() {
            run.stop.store(true, Ordering::Relaxed);
        }
        let earlier = feeder.close();
        let written = writer.join().unwrap_or(Err(Error::Bug("the thread that writes shards")));
        match (fed, written) {
            // Of two errors, the one that is not "interrupted" is the cause.
            (Err(Error::Interrupted(_)) | Ok(()), Err(error)) | (Err(error), _) => Err(error),
            (Ok(()), Ok(mut totals)) => {
                totals.add_earlier(&earlier);
                Ok(totals)
            }
        }
    })
}

/// The same for a file at an address.
fn read_remote(file: &Location, limit: u64) -> Result<Vec<u8>, Problem> {
    let file = storage::Source::open(file).map_err(|error| {
        Problem::read(if storage::is_missing(&error) { "file not found" } else { "file cannot be read" })
    })?;
    if file.len() > limit {
        return Err(Problem::read("larger than --max-bytes"));
    }
    let bytes = file.read(0, file.len()).map_err(|_| Problem::read("file cannot be read"))?;
    Ok(bytes.to_vec())
}

/// Reads an image file of at most `limit` bytes.
fn read(file: &Location, limit: u64) -> Result<Vec<u8>, Problem> {
    let Location::Local(path) = file else { return read_remote(file, limit) };
    let failed = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => Problem::read("file not found"),
        std::io::ErrorKind::PermissionDenied => Problem::read("no permission to read the file"),
        std::io::ErrorKind::InvalidInput => Problem::read("not a file"),
        std::io::ErrorKind::FileTooLarge => Problem::read("larger than --max-bytes"),
        _ => Problem::read("file cannot be read"),
    };
    read_regular(path, limit).map_err(failed)
}
