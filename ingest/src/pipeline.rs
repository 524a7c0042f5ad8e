//! The shape that `download` and `shard` share: rows of the input, in order -> pictures, in any order, on all cores ->
//! shards, in the order of the input.
//!
//! ```text
//! feed (this thread) --Task--> submit --Job--> workers (one a core) --Event--> writer (one thread)
//!        \------------------------- Open, Close, failed rows ------------------/
//! ```

mod feed;

use std::any::Any;
use std::fs;
use std::io::Read as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crossbeam::channel::{self, Receiver, RecvTimeoutError, Sender};
use loader::program::{Progress, interrupted};

use self::feed::Feeder;
use crate::error::Error;
use crate::image;
use crate::rows::{Row, Rows};
use crate::sample::{Picture, Problem, Sample};
use crate::set::Set;
use crate::shard::ShardWriter;
use crate::stats::Totals;
use crate::watch::Watch;

/// Shards being filled at a time: more than one, so that a slow picture at the end of a shard holds up nothing.
const OPEN_SHARDS: usize = 4;
/// How soon threads that wait notice that the run was stopped.
const NOTICE: Duration = Duration::from_millis(100);

/// A row and its place in the set.
pub(crate) struct Task {
    pub(crate) shard: u32,
    pub(crate) index: u32,
    pub(crate) row: Row,
}

/// Where a task's picture comes from.
pub(crate) enum Source {
    /// Bytes in memory, and what to release when they are used up.
    Bytes(Vec<u8>, Option<Box<dyn Any + Send>>),
    /// A file of at most so many bytes.
    File(PathBuf, u64),
    /// A picture made earlier, and what to release when it is handed on.
    Made(Picture, Option<Box<dyn Any + Send>>),
    /// There is none.
    Failed(Problem),
}

struct Job {
    task: Task,
    source: Source,
}

/// The way to the picture workers.
#[derive(Clone)]
pub(crate) struct Workers {
    jobs: Sender<Job>,
}

impl Workers {
    /// Hands a task over; a run that is being stopped ignores it.
    pub(crate) fn submit(&self, task: Task, source: Source) {
        let _ = self.jobs.send(Job { task, source });
    }
}

enum Event {
    Open(Box<ShardWriter>),
    Done(Box<Sample>),
    Close { shard: u32, count: u32 },
}

/// What happens on the threads of one run, and how it is stopped.
struct Run {
    stop: AtomicBool,
}

impl Run {
    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed) || interrupted()
    }

    /// Next message; None when there are no more, or the run was stopped.
    fn next<T>(&self, from: &Receiver<T>) -> Option<T> {
        loop {
            if self.stopped() {
                return None;
            }
            match from.recv_timeout(NOTICE) {
                Ok(message) => return Some(message),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return None,
            }
        }
    }

    fn work(&self, jobs: &Receiver<Job>, events: &Sender<Event>, settings: &image::Settings) {
        while let Some(Job { task, source }) = self.next(jobs) {
            let outcome = match source {
                Source::Failed(problem) => Err(problem),
                Source::Made(picture, _held) => Ok(picture),
                Source::File(path, most) => {
                    read(&path, most).and_then(|bytes| settings.process(&bytes, &task.row))
                }
                Source::Bytes(bytes, held) => {
                    let outcome = settings.process(&bytes, &task.row);
                    drop((bytes, held));
                    outcome
                }
            };
            let Task { shard, index, row } = task;
            if events.send(Event::Done(Box::new(Sample { shard, index, row, outcome }))).is_err() {
                return;
            }
        }
    }

    /// Fills the open shards, and finishes each when all its rows are in.
    fn write(
        &self,
        events: &Receiver<Event>,
        finished: &Receiver<()>,
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
                        writer.push(*sample)?;
                    }
                    shard
                }
                Event::Close { shard, count } => {
                    if let Some(writer) = open.iter_mut().find(|writer| writer.shard() == shard) {
                        writer.expect(count);
                    }
                    shard
                }
            };
            let complete = open.iter().position(|writer| writer.shard() == shard && writer.is_complete());
            if let Some(position) = complete {
                open.swap_remove(position).finish()?;
                watch.totals().shards += 1;
                let _ = finished.recv();
            }
        }
        if self.stopped() {
            return Err(Error::Interrupted);
        }
        progress.finish(&watch.message());
        Ok(watch.totals().clone())
    }
}

/// Opened inputs, in order; each starts a new shard.
pub(crate) type Inputs<'a> = &'a mut dyn Iterator<Item = Result<Box<dyn Rows>, Error>>;

/// What one run does.
pub(crate) struct Plan<'a> {
    /// The work, for the progress line.
    pub(crate) what: &'static str,
    /// Samples to come; 0 when unknown.
    pub(crate) total: u64,
    /// Numbers of the shards that the inputs make; None counts from 0 and passes over finished ones.
    pub(crate) shards: Option<&'a [u32]>,
    /// Bounds the jobs that wait for a worker; None where `submit` bounds them itself.
    pub(crate) queue: Option<usize>,
    /// Where the counts are kept.
    pub(crate) watch: Arc<Watch>,
}

/// Makes the shards of `set` from `inputs`. `submit` starts on a row.
pub(crate) fn run(
    set: &Set,
    plan: &Plan<'_>,
    inputs: Inputs<'_>,
    submit: &mut dyn FnMut(Task, &Workers) -> Result<(), Error>,
) -> Result<Totals, Error> {
    let run = Run { stop: AtomicBool::new(false) };
    let (jobs_in, jobs) = plan.queue.map_or_else(channel::unbounded, channel::bounded);
    let (events_in, events) = channel::bounded(2 * set.threads);
    let (opened, finished) = channel::bounded(OPEN_SHARDS);
    let progress = Progress::new(plan.what, "samples", plan.total);
    let workers = Workers { jobs: jobs_in };
    thread::scope(|scope| {
        for _ in 0..set.threads {
            let (run, jobs, events, image) = (&run, jobs.clone(), events_in.clone(), &set.image);
            scope.spawn(move || run.work(&jobs, &events, image));
        }
        drop(jobs);
        let writer = scope.spawn(|| {
            let (events, finished) = (events, finished);
            let written = run.write(&events, &finished, &plan.watch, progress);
            // Whoever still waits to send gives up when the receivers go; others look at this.
            run.stop.store(written.is_err(), Ordering::Relaxed);
            written
        });
        let mut feeder = Feeder { set, run: &run, events: events_in, opened, finished: Totals::default() };
        let fed = feeder.feed(plan.shards, inputs, &mut |task| submit(task, &workers));
        drop(workers);
        if fed.is_err() {
            run.stop.store(true, Ordering::Relaxed);
        }
        let earlier = feeder.close();
        let written = writer.join().unwrap_or(Err(Error::Bug("the thread that writes shards")));
        match (fed, written) {
            // Of two errors the one that is not "stopped" says why.
            (Err(Error::Interrupted) | Ok(()), Err(error)) | (Err(error), _) => Err(error),
            (Ok(()), Ok(mut totals)) => {
                totals.add_earlier(&earlier);
                Ok(totals)
            }
        }
    })
}

/// Reads a picture's file, if it is of a reasonable size.
fn read(path: &PathBuf, most: u64) -> Result<Vec<u8>, Problem> {
    let failed = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => Problem::read("file not found"),
        std::io::ErrorKind::PermissionDenied => Problem::read("file may not be read"),
        _ => Problem::read("file cannot be read"),
    };
    let mut bytes = Vec::new();
    let file = fs::File::open(path).map_err(failed)?;
    if !file.metadata().map_err(failed)?.is_file() {
        return Err(Problem::read("not a file"));
    }
    file.take(most.saturating_add(1)).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > most {
        return Err(Problem::read("larger than --max-bytes"));
    }
    Ok(bytes)
}
