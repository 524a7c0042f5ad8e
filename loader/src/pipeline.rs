//! The iterator over batches. The threads of `samples::worker` make the rows.
//!
//! The consumer's thread decides which sample goes into which row and puts one job per row into a queue. A thread takes
//! a job, reads only the bytes of that sample, decodes it and writes the pixels directly into the row's part of the
//! batch. If shards are remote, additional threads, which mostly wait, read ahead of those that decode.
//!
//! # Memory
//! At any time, `prefetch` + 1 batches are in the queue and the consumer has one, so memory is bounded by
//! - `(prefetch + 2) * rows * (size^2 * 3 + 8 * context)` bytes of batches, and those that the consumer keeps;
//! - one decoded image per thread;
//! - the indices of the open shards (see [`crate::shards::Index`]);
//! - for remote shards, `(prefetch + 1) * rows` encoded images.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::Poll;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use concepts::sidecar::Metadata;
use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, bounded, unbounded};

use crate::Error;
use crate::order::{Epoch, Position, SampleId};
use crate::samples::batch::{Batch, Counters, Mentions};
use crate::samples::buffers::{Allocator, HeapBuffer, ImageBuffer, Images, RowBuffer};
use crate::samples::set::Set;
use crate::samples::worker::{Job, Made, Row, decode_jobs, read_jobs};
use crate::settings::Settings;
use crate::shards::set_index::INDEX;
use crate::shards::store::Expected;
use crate::shards::{Identity, MAX_OPEN};

/// Number of threads that read remote shards. Each waits for one request at a time: at 30 ms a request they read 8,500 images/s.
const READERS: usize = 256;

/// From this number of shards on, a user is told that an index would save requests: at 64 requests at once, those for fewer take
/// less than a second.
const MANY_ASKED: usize = 1000;

/// An opened dataset (or mixture of datasets).
#[derive(Debug, Clone)]
pub struct Loader(Arc<Set>);

impl Loader {
    /// Checks the settings and counts the samples: from the [indices](crate::shards::set_index) of the folders, from the shards'
    /// `_stats.json`, or, for shards without one (written by other tools), by a pass over the headers. With a concept vocabulary,
    /// checks the footers of all sidecars.
    pub fn open(settings: Settings) -> Result<Self, Error> {
        Self::open_counting(settings, &AtomicU64::new(0))
    }

    /// The same, which adds 1 to `done` for every shard that is counted, and with a vocabulary 1 for every footer. Where no index
    /// has the shards, this can take minutes.
    pub fn open_counting(settings: Settings, done: &AtomicU64) -> Result<Self, Error> {
        Ok(Self(Arc::new(Set::open(settings, done)?)))
    }

    /// A warning for the user if shards may have been cut, are so small that reading them is slow, or had to be asked for one by one;
    /// `None` if none of these.
    pub fn warning(&self) -> Option<String> {
        let all: Vec<String> = [self.cut(), self.slow(), self.asked()].into_iter().flatten().collect();
        (!all.is_empty()).then(|| all.join(". "))
    }

    /// A warning if many remote shards are in no index.
    fn asked(&self) -> Option<String> {
        let unknown = || self.0.store.unknown().filter(|shard| shard.is_remote());
        let (count, first) = (unknown().count(), unknown().next()?);
        (count >= MANY_ASKED).then(|| {
            format!(
                "{count} shards are in no {INDEX}, so that files of each were asked for before the first batch; \
                 `tools index {}` writes it once for all runs",
                first.parent().unwrap_or_default()
            )
        })
    }

    /// A warning if shards may have been cut.
    fn cut(&self) -> Option<String> {
        let cut = self.0.store.perhaps_cut();
        cut.first().map(|first| {
            format!(
                "{} shards without table and _stats.json have no mark of the end of a tar, the first is {}: they may have been cut \
                 between two samples. Compare their size with that of the original",
                cut.len(),
                first
            )
        })
    }

    /// A warning if more shards are in use than stay open.
    fn slow(&self) -> Option<String> {
        let Set { settings, in_use, order, .. } = &*self.0;
        (*in_use > MAX_OPEN as u64).then(|| {
            format!(
                "{in_use} shards are in use at the same time, because a shard has only {} samples on average and {} streams of \
                 {} samples are shuffled; at most {MAX_OPEN} stay open, so most samples open their shard again, which is \
                 slow. Write larger shards, or lower the number of streams or the window",
                self.samples() / order.counts().len().max(1) as u64,
                self.0.streams.end - self.0.streams.start,
                settings.options.window,
            )
        })
    }

    /// The footers of the shards' sidecars, in the order of the settings; empty if no mentions are loaded.
    pub fn sidecars(&self) -> &[Metadata] {
        &self.0.sidecars
    }

    /// Rejects shards that differ from those that something was computed from before: those opened so far now, the others when
    /// they are opened.
    pub fn expect(&self, expected: Expected) -> Result<(), Error> {
        self.0.store.expect(expected)
    }

    /// The shards that were opened since the last call, by their numbers in the settings, and what was found in them.
    pub fn opened(&self) -> Vec<(u32, Identity)> {
        self.0.store.opened()
    }

    /// The settings that it was opened with.
    pub fn settings(&self) -> &Settings {
        &self.0.settings
    }

    /// Number of samples in an epoch: of all shards, or of the selection.
    pub fn samples(&self) -> u64 {
        self.0.order.samples()
    }

    /// A check of the selection's file ([`shards::selection`](crate::shards::selection)), on which the order of the samples depends;
    /// `None` without one.
    pub fn selection(&self) -> Option<u64> {
        self.0.selection
    }

    /// Number of samples of each shard, selected or not, in the order of the settings.
    pub fn shard_samples(&self) -> &[u32] {
        self.0.order.counts()
    }

    /// Number of streams in use, over all ranks.
    pub fn streams(&self) -> u64 {
        self.0.order.streams()
    }

    /// Number of global batches in an epoch.
    pub fn steps_per_epoch(&self) -> u64 {
        self.0.order.steps_per_epoch()
    }

    /// Number of rows in this rank's part of a batch.
    pub fn rows(&self) -> usize {
        self.0.rows()
    }

    /// For each of this rank's rows of the batch at a position: its sample, and then those that replace it, in this order, if it
    /// is broken.
    pub fn samples_of(&self, at: Position) -> Vec<impl Iterator<Item = SampleId> + use<>> {
        self.0.samples_of(at.normalised(self.steps_per_epoch()))
    }

    /// Iterates over batches from a position, over all following epochs without end. The first error ends the
    /// iteration. Starts the threads; dropping the iterator ends them.
    pub fn batches(&self, from: Position) -> Batches {
        self.batches_in(from, Box::new(|_| Ok(Box::new(HeapBuffer::default()))))
    }

    /// The same with images in memory that the consumer allocates; the decoding threads write directly into it.
    /// `allocator` is called when no buffer in the pool is free, so about `prefetch` + 2 times in a run; see [`ImageBuffer`].
    pub fn batches_in(&self, from: Position, allocator: Allocator) -> Batches {
        Batches::start(Arc::clone(&self.0), from.normalised(self.steps_per_epoch()), allocator)
    }
}

/// An image buffer and its row buffers.
type Lent = (Box<dyn ImageBuffer>, Vec<Box<dyn RowBuffer>>);

/// A batch whose rows are being made.
struct Pending {
    position: Position,
    buffer: Box<dyn ImageBuffer>,
    rows: Vec<Option<Made>>,
    missing: usize,
}

/// The batches of a [`Loader`], in order.
pub struct Batches {
    set: Arc<Set>,
    /// None when the iteration is over.
    jobs: Option<Sender<Job>>,
    made: Receiver<Made>,
    stop: Arc<AtomicBool>,
    /// Dropped to end the decoding threads.
    quit: Option<Sender<()>>,
    threads: Vec<JoinHandle<()>>,
    /// Batches in the queue that the consumer has not received; the front one is number `first`.
    pending: VecDeque<Pending>,
    first: u64,
    /// Position of the next batch to put into the queue.
    next: Position,
    /// For each dataset, the epoch in use and its number.
    epochs: Vec<Option<(u64, Arc<Epoch>)>>,
    allocator: Allocator,
    /// The buffer pool: the buffers of batches that the consumer has dropped.
    free: Receiver<Box<dyn ImageBuffer>>,
    pool: Sender<Box<dyn ImageBuffer>>,
    failed: Option<Error>,
    /// How long the consumer has waited for the front batch in vain.
    waited: Duration,
}

impl std::fmt::Debug for Batches {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Batches").field("next", &self.position()).finish_non_exhaustive()
    }
}

impl Batches {
    fn start(set: Arc<Set>, from: Position, allocator: Allocator) -> Self {
        // No channel needs a bound: `fill_queue` starts only as many batches as may be pending.
        let (jobs, mut queue) = unbounded::<Job>();
        let (quit, quitting) = bounded(0);
        let (finished, made) = unbounded();
        let stop = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::new();
        let mut failed = None;
        let mut start = |name: &str, work: Box<dyn FnOnce() + Send>| {
            let started = thread::Builder::new().name(name.to_owned()).spawn(work);
            started.map_err(|e| failed = Some(Error::Threads(e))).ok()
        };
        if set.store.is_remote() {
            let (read, after) = unbounded();
            for _ in 0..READERS {
                let (set, queue, read, stop) =
                    (Arc::clone(&set), queue.clone(), read.clone(), Arc::clone(&stop));
                // Not joined at the end: it may take long until a request gives up.
                start("loader-read", Box::new(move || read_jobs(&set, &queue, &read, &stop)));
            }
            queue = after;
        }
        for _ in 0..set.settings.options.thread_count() {
            let (set, queue, finished, quitting) =
                (Arc::clone(&set), queue.clone(), finished.clone(), quitting.clone());
            let work = move || decode_jobs(&set, &queue, &finished, &quitting);
            threads.extend(start("loader", Box::new(work)));
        }
        let epochs = vec![None; set.order.sets().len()];
        let (pool, free) = unbounded();
        let mut batches = Self {
            set,
            jobs: Some(jobs),
            made,
            stop,
            quit: Some(quit),
            threads,
            pending: VecDeque::new(),
            first: 0,
            next: from,
            epochs,
            allocator,
            free,
            pool,
            failed,
            waited: Duration::ZERO,
        };
        batches.fill_queue();
        batches
    }

    /// Position of the batch that comes next: save it to resume from here.
    pub fn position(&self) -> Position {
        self.pending.front().map_or(self.next, |batch| batch.position)
    }

    /// Puts the rows of batches into the queue until as many are pending as the settings allow.
    fn fill_queue(&mut self) {
        while self.failed.is_none() && self.pending.len() <= self.set.settings.options.prefetch {
            if let Err(error) = self.queue_batch() {
                self.failed = Some(error);
            }
        }
    }

    fn queue_batch(&mut self) -> Result<(), Error> {
        let (buffer, lent) = self.buffer()?;
        let Some(jobs) = &self.jobs else { return Ok(()) };
        let (set, position) = (&self.set, self.next);
        let batch = self.first + self.pending.len() as u64;
        let places = set.order.rows(position, set.streams.clone());
        for (row, (place, pixels)) in places.zip(lent).enumerate() {
            let epoch = match &self.epochs[place.set] {
                Some((number, epoch)) if *number == place.epoch => Arc::clone(epoch),
                _ => {
                    let epoch = Arc::new(set.order.sets()[place.set].epoch(place.epoch));
                    self.epochs[place.set] = Some((place.epoch, Arc::clone(&epoch)));
                    epoch
                }
            };
            let job = Job {
                batch,
                row,
                epoch,
                number_of_epoch: place.epoch,
                first_shard: set.order.first_shard(place.set),
                stream: place.stream,
                position: place.position,
                pixels,
                fetched: None,
            };
            // Fails only if no thread is left; receiving then reports it.
            let _ = jobs.send(job);
        }
        let rows: Vec<Option<Made>> = (0..set.rows()).map(|_| None).collect();
        self.pending.push_back(Pending { position, buffer, missing: rows.len(), rows });
        self.next = position.next(set.order.steps_per_epoch());
        Ok(())
    }

    /// An image buffer for a batch, and its row buffers.
    fn buffer(&mut self) -> Result<Lent, Error> {
        let (rows, settings) = (self.set.rows(), &self.set.settings);
        let bytes = if settings.images { settings.options.image().bytes() } else { 0 };
        let mut buffer = match self.free.try_recv() {
            Ok(buffer) => buffer,
            Err(_) if bytes == 0 => Box::new(HeapBuffer::default()),
            Err(_) => (self.allocator)(rows * bytes).map_err(|e| Error::Buffer(e.to_string()))?,
        };
        let mut lent = buffer.lend(rows, bytes);
        if lent.len() != rows || lent.iter_mut().any(|row| (**row).as_mut().len() != bytes) {
            let problem = format!("the buffer was not lent as {rows} row buffers of {bytes} bytes");
            return Err(Error::Buffer(problem));
        }
        Ok((buffer, lent))
    }

    /// As [`Iterator::next`], but waits no longer than `timeout`: [`Poll::Pending`] if the batch is not ready by then, and
    /// `Poll::Ready(None)` after the end. With it, a caller that must not block can look for signals meanwhile:
    ///
    /// ```
    /// # use std::{task::Poll, time::Duration};
    /// # fn interrupted() -> bool { false }
    /// fn next(batches: &mut loader::Batches) -> Option<Result<loader::Batch, loader::Error>> {
    ///     while !interrupted() {
    ///         if let Poll::Ready(batch) = batches.next_timeout(Duration::from_millis(100)) {
    ///             return batch;
    ///         }
    ///     }
    ///     None
    /// }
    /// ```
    pub fn next_timeout(&mut self, timeout: Duration) -> Poll<Option<Result<Batch, Error>>> {
        // A time that does not exist is beyond all others.
        self.receive(Instant::now().checked_add(timeout))
    }

    fn receive(&mut self, until: Option<Instant>) -> Poll<Option<Result<Batch, Error>>> {
        if self.jobs.is_none() {
            return Poll::Ready(None);
        }
        let started = Instant::now();
        let batch = match self.wait(until) {
            Err(RecvTimeoutError::Timeout) => {
                self.waited += started.elapsed();
                return Poll::Pending;
            }
            Err(error) => Err(Error::Threads(std::io::Error::other(error))),
            Ok(()) => self.collect(started),
        };
        if let Ok(Some(_)) = batch {
            self.fill_queue();
        } else {
            self.end();
        }
        Poll::Ready(batch.transpose())
    }

    /// Waits for the rows of the front batch.
    fn wait(&mut self, until: Option<Instant>) -> Result<(), RecvTimeoutError> {
        while self.failed.is_none() && self.pending.front().is_some_and(|batch| batch.missing > 0) {
            let made = match until {
                Some(until) => self.made.recv_deadline(until)?,
                None => self.made.recv()?,
            };
            let batch = &mut self.pending[(made.batch - self.first) as usize];
            batch.missing -= 1;
            let row = made.row;
            batch.rows[row] = Some(made);
        }
        Ok(())
    }

    /// The front batch, whose rows are there; the consumer waits for them since `started`. `None` if there is none.
    fn collect(&mut self, started: Instant) -> Result<Option<Batch>, Error> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        let waited = std::mem::take(&mut self.waited) + started.elapsed();
        let Some(batch) = self.pending.pop_front() else { return Ok(None) };
        self.first += 1;
        let mut batch = batch.assemble(&self.set.settings, &self.pool)?;
        batch.counters.waited = waited;
        Ok(Some(batch))
    }

    fn end(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.jobs = None;
        self.quit = None;
        for thread in self.threads.drain(..) {
            // A thread that panicked has ended too.
            let _ = thread.join();
        }
    }
}

impl Iterator for Batches {
    type Item = Result<Batch, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.receive(None) {
            Poll::Ready(batch) => batch,
            // Not without a time to wait for.
            Poll::Pending => None,
        }
    }
}

impl std::iter::FusedIterator for Batches {}

impl Drop for Batches {
    fn drop(&mut self) {
        self.end();
    }
}

impl Pending {
    /// The batch, or the error of the first row that has one.
    fn assemble(self, settings: &Settings, pool: &Sender<Box<dyn ImageBuffer>>) -> Result<Batch, Error> {
        let Settings { context, siblings, .. } = *settings;
        let size = self.rows.len();
        let mut buffer = self.buffer;
        let mut lent = Vec::with_capacity(size);
        let mentions = |made: &Made| made.result.as_ref().map_or(0, |row| row.text.mentions.len());
        let mentions = self.rows.iter().flatten().map(mentions).sum();
        let mut batch = Batch {
            position: self.position,
            size,
            images: Images::default(),
            keys: Vec::with_capacity(size),
            samples: Vec::with_capacity(size),
            captions: Vec::with_capacity(size),
            tokens: Vec::with_capacity(size * context),
            mentions: Mentions::with_capacity(size, mentions),
            siblings: Vec::new(),
            counters: Counters::default(),
        };
        for made in self.rows.into_iter().flatten() {
            let Row { key, number, text } = made.result?;
            lent.push(made.pixels);
            batch.keys.push(key);
            batch.samples.push(number);
            if !text.tokens.is_empty() {
                batch.captions.push(text.caption);
                batch.tokens.extend(text.tokens.into_iter().map(i64::from));
            }
            batch.mentions.push_row(text.mentions);
            batch.siblings.extend(siblings.then_some(text.siblings));
            batch.counters.add(made.counters);
            batch.counters.mentions_left_out += text.left_out;
            batch.counters.captions_without_mentions += u32::from(text.is_other);
        }
        buffer.take_back(lent);
        batch.images = Images::new(buffer, pool.clone());
        Ok(batch)
    }
}
