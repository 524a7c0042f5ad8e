//! The work of the threads: read a sample, decode it into its row of the batch, prepare its text.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use crossbeam::channel::{Receiver, Sender, select_biased};

use crate::decode_error::DecodeError;
use crate::error::{Error, SampleError};
use crate::order::{Epoch, SampleId, Visit};
use crate::samples::batch::{Counters, Skipped};
use crate::samples::buffers::RowBuffer;
use crate::samples::crop::View;
use crate::samples::pixels::Preprocessor;
use crate::samples::set::Set;
use crate::samples::text::{Labels, Name, TOKENIZER, Text};
use crate::settings::Settings;
use crate::shards::{Caption, CaptionSource, RawCaption, Shard, from_json, panic_message};

/// Number of broken samples in a row after which the run stops, because the whole dataset is probably damaged.
const MAX_BROKEN: usize = 100;

/// One row to make.
pub(crate) struct Job {
    /// Number of its batch since the iterator was started.
    pub(crate) batch: u64,
    pub(crate) row: usize,
    /// The epoch of its dataset, and the epoch's number.
    pub(crate) epoch: Arc<Epoch>,
    pub(crate) number_of_epoch: u64,
    /// Number of its dataset's first shard in the list of all shards.
    pub(crate) first_shard: u32,
    pub(crate) stream: u64,
    pub(crate) position: u64,
    pub(crate) pixels: Box<dyn RowBuffer>,
    /// The bytes that a reading thread has already fetched.
    pub(crate) fetched: Option<Fetched>,
}

impl Job {
    /// The sample of the row, unless that is broken.
    fn sample(&self) -> Visit {
        self.within_all(self.epoch.sample(self.stream, self.position))
    }

    /// A sample of the job's dataset, with the number of its shard in the list of all shards.
    fn within_all(&self, Visit { id: SampleId { shard, sample }, copy }: Visit) -> Visit {
        Visit { id: SampleId { shard: shard + self.first_shard, sample }, copy }
    }
}

/// The result of a job.
pub(crate) struct Made {
    pub(crate) batch: u64,
    pub(crate) row: usize,
    pub(crate) pixels: Box<dyn RowBuffer>,
    pub(crate) counters: Counters,
    pub(crate) result: Result<Row, Error>,
}

#[derive(Default)]
pub(crate) struct Row {
    pub(crate) key: String,
    pub(crate) number: u64,
    pub(crate) text: Text,
}

/// The bytes of a sample's image, and its caption, or why they cannot be read.
type Stored = Result<(Option<Vec<u8>>, Option<RawCaption>), Fault>;

/// A sample's image and caption, read ahead.
pub(crate) struct Fetched {
    stored: Stored,
    counters: Counters,
}

/// The loop of a thread that reads ahead.
pub(crate) fn read_jobs(set: &Set, queue: &Receiver<Job>, read: &Sender<Job>, stop: &AtomicBool) {
    for mut job in queue {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let visit = job.sample();
        let mut counters = Counters::default();
        let stored = guarded(set, &Cell::new(visit.id), || {
            let shard = set.store.get(visit.id.shard)?;
            Ok(stored(set, &shard, (visit, job.number_of_epoch), Vec::new(), &mut counters))
        });
        let stored = stored.unwrap_or_else(|error| Err(Fault::Stop(error)));
        job.fetched = Some(Fetched { stored, counters });
        if read.send(job).is_err() {
            return;
        }
    }
}

/// The loop of a thread that decodes.
pub(crate) fn decode_jobs(set: &Set, queue: &Receiver<Job>, finished: &Sender<Made>, quit: &Receiver<()>) {
    let mut preprocessor = Preprocessor::default();
    loop {
        let mut job = select_biased! {
            recv(quit) -> _ => return,
            recv(queue) -> job => match job {
                Ok(job) => job,
                Err(_) => return,
            },
        };
        let mut counters = Counters::default();
        let at = Cell::new(job.sample().id);
        let result = guarded(set, &at, || make(set, &mut job, &mut preprocessor, &mut counters, &at));
        let made = Made { batch: job.batch, row: job.row, pixels: job.pixels, counters, result };
        if finished.send(made).is_err() {
            return;
        }
    }
}

/// Turns a panic in `work` into an error that names the sample `at` which it was. Without this the thread would end, and
/// the consumer would wait for the row for ever.
fn guarded<T>(set: &Set, at: &Cell<SampleId>, work: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let SampleId { shard, sample } = at.get();
        // This may panic as well, if the index of the shard is what is wrong.
        let key =
            catch_unwind(AssertUnwindSafe(|| Some(set.store.get(shard).ok()?.index.key(sample).to_owned())));
        let key = key.ok().flatten().map_or(String::new(), |key| format!(", key {key}"));
        Err(Error::Panicked {
            shard: set.store.shards()[shard as usize].clone(),
            doing: format!("loaded sample number {sample}{key}"),
            problem: panic_message(&*panic),
        })
    })
}

/// Why a sample is not in the batch.
enum Fault {
    /// The sample is broken: another one replaces it.
    Broken(SampleError),
    /// The run ends with this error.
    Stop(Error),
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Stop(error)
    }
}

/// Makes a row from the job's sample or, if it is broken, from the first good one of those that may replace it. `at` is
/// set to the sample in work.
fn make(
    set: &Set,
    job: &mut Job,
    preprocessor: &mut Preprocessor,
    counters: &mut Counters,
    at: &Cell<SampleId>,
) -> Result<Row, Error> {
    let epoch = Arc::clone(&job.epoch);
    let mut broken = Vec::new();
    for visit in epoch.replacements(job.stream, job.position).take(MAX_BROKEN) {
        let visit = job.within_all(visit);
        let id = visit.id;
        at.set(id);
        let shard = set.store.get(id.shard)?;
        let key = shard.index.key(id.sample);
        match sample(set, &shard, visit, job, preprocessor, counters) {
            Ok(text) => {
                counters.skipped = broken;
                let number = set.starts[id.shard as usize] + u64::from(id.sample);
                return Ok(Row { key: key.to_owned(), number, text });
            }
            Err(Fault::Stop(error)) => return Err(error),
            Err(Fault::Broken(cause)) => {
                let shard = shard.archive.location().clone();
                broken.push(Skipped { shard, key: key.to_owned(), cause });
            }
        }
    }
    let tries = broken.len();
    Err(match broken.pop() {
        Some(Skipped { shard, key, cause }) => Error::Broken { shard, key, tries, cause },
        None => Error::TooFewSamples { samples: 0, batch_size: set.settings.options.batch_size },
    })
}

/// Reads and decodes one sample into the job's row.
fn sample(
    set: &Set,
    shard: &Shard,
    visit: Visit,
    job: &mut Job,
    preprocessor: &mut Preprocessor,
    counters: &mut Counters,
) -> Result<Text, Fault> {
    let (image, caption) = match job.fetched.take() {
        Some(fetched) => {
            counters.add(fetched.counters);
            fetched.stored?
        }
        None => stored(set, shard, (visit, job.number_of_epoch), preprocessor.take_file(), counters)?,
    };

    if let Some(bytes) = image {
        let started = Instant::now();
        let placed = place(set, &bytes, visit, job, preprocessor);
        counters.decode += started.elapsed();
        preprocessor.keep_file(bytes);
        placed.map_err(|error| Fault::Broken(error.into()))?;
    }

    match caption {
        Some(caption) => {
            let text = text(set, shard, visit.id.sample, &caption)?;
            // Also where a null became an empty file: neither makes a pair.
            if text.caption.is_empty() {
                return Err(Fault::Broken(SampleError::EmptyCaption));
            }
            Ok(text)
        }
        None => Ok(Text::default()),
    }
}

/// Reads a sample's image, into a buffer, and its caption.
fn stored(
    set: &Set,
    shard: &Shard,
    (visit, epoch): (Visit, u64),
    buffer: Vec<u8>,
    counters: &mut Counters,
) -> Stored {
    let Shard { archive, index, .. } = shard;
    let id = visit.id;
    if id.sample as usize >= index.len() {
        return Err(
            Error::archive(archive.location(), "it has fewer samples than when they were counted").into()
        );
    }
    let started = Instant::now();
    let image = if set.settings.images { Some(image(shard, id.sample, buffer, counters)?) } else { None };
    let caption =
        if set.settings.captions { Some(caption(set, shard, (visit, epoch), counters)?) } else { None };
    counters.read += started.elapsed();
    Ok((image, caption))
}

/// Decodes an image and writes the crop that is drawn for the sample into the job's row.
fn place(
    set: &Set,
    bytes: &[u8],
    visit: Visit,
    job: &mut Job,
    preprocessor: &mut Preprocessor,
) -> Result<(), DecodeError> {
    let Settings { seed, options, .. } = &set.settings;
    let image = options.image();
    let drawn = (visit.seed(*seed), job.number_of_epoch, visit.id);
    let pixels = (*job.pixels).as_mut();
    // A decoder that panics on a malicious file must not end the run.
    let placed = catch_unwind(AssertUnwindSafe(|| {
        let choose = |width, height| View::choose(&image, drawn, width, height);
        preprocessor.preprocess(bytes, options.decoding, options.size, choose, pixels)
    }));
    placed.unwrap_or_else(|_| {
        *preprocessor = Preprocessor::default();
        Err(DecodeError::Panicked)
    })
}

/// The image's encoded bytes.
fn image(shard: &Shard, sample: u32, mut buffer: Vec<u8>, counters: &mut Counters) -> Result<Vec<u8>, Fault> {
    let (offset, length) = shard.index.image(sample).ok_or(Fault::Broken(SampleError::NoImage))?;
    counters.bytes += length;
    shard.archive.read_into(offset, length, &mut buffer)?;
    Ok(buffer)
}

/// The raw caption.
fn caption(
    set: &Set,
    shard: &Shard,
    (visit, epoch): (Visit, u64),
    counters: &mut Counters,
) -> Result<RawCaption, Fault> {
    let Settings { seed, options, .. } = &set.settings;
    let id = visit.id;
    let bytes = match shard.index.caption(id.sample) {
        Some(Caption::Text(text)) => return Ok(RawCaption::only(text.to_owned())),
        Some(Caption::At(offset, length)) => {
            counters.bytes += length;
            shard.archive.read(offset, length)?
        }
        None => {
            let cause = if shard.index.has_captions() {
                SampleError::NullCaption
            } else {
                SampleError::NoCaption { extension: options.captions.extension() }
            };
            return Err(Fault::Broken(cause));
        }
    };
    match &options.captions {
        CaptionSource::Text => match String::from_utf8(bytes) {
            Ok(text) => Ok(RawCaption::only(text)),
            Err(_) => Err(Fault::Broken(SampleError::NotUtf8)),
        },
        CaptionSource::Json { key, choice } => {
            from_json(&bytes, key, *choice, (visit.seed(*seed), epoch, id)).map_err(Fault::Broken)
        }
    }
}

fn text(set: &Set, shard: &Shard, sample: u32, raw: &RawCaption) -> Result<Text, Error> {
    let Settings { bank, context, options, .. } = &set.settings;
    let (Some((bank, matching)), Some(sidecar)) = (bank, &shard.sidecar) else {
        return Ok(Text::new(&raw.text, &TOKENIZER, *context));
    };
    let labels = Labels {
        bank,
        matching: *matching,
        most: options.max_mentions,
        longest: options.max_mention_tokens,
        field: options.captions.field().is_some(),
        siblings: set.settings.siblings,
    };
    let name = Name { shard: shard.archive.location(), sample, key: shard.index.key(sample) };
    Text::with_mentions(raw, &TOKENIZER, *context, sidecar, labels, name)
}
