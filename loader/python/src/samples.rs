//! The iterator over samples as they are stored, in the order of the batches. A thread reads one step ahead.

use std::collections::HashMap;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError, TryLockError};
use std::thread;

use ::loader::shards::{Archive, Sample};
use ::loader::{Position, SampleId};
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList};

use crate::error::{Error, IntoPython};
use crate::loader::Loader;
use crate::waiting::{self, Process};

/// Number of shards that stay open.
const OPEN: usize = 64;
/// Number of threads that read remote shards. They mostly wait.
const READERS: usize = 32;

/// A sample: where its shard is, its key, and the extension and content of each member.
struct Stored {
    shard: String,
    key: String,
    members: Vec<(String, Vec<u8>)>,
}

type Step = Result<Vec<Stored>, Problem>;

enum Problem {
    Loader(::loader::Error),
    Data(String),
}

impl From<::loader::Error> for Problem {
    fn from(error: ::loader::Error) -> Self {
        Self::Loader(error)
    }
}

#[pyclass(frozen)]
pub(crate) struct Samples {
    steps: Mutex<Option<Receiver<Step>>>,
    process: Process,
}

impl Drop for Samples {
    fn drop(&mut self) {
        if !self.process.is_here() {
            // Its thread is the parent's.
            std::mem::forget(self.steps.get_mut().unwrap_or_else(PoisonError::into_inner).take());
        }
    }
}

#[pymethods]
impl Samples {
    /// From a position to the end of its epoch.
    #[new]
    fn start(loader: &Bound<'_, Loader>, epoch: u64, step: u64) -> PyResult<Self> {
        let loader = loader.get().get()?.clone();
        let (sender, steps) = sync_channel(1);
        let first = Position { epoch, step };
        thread::Builder::new().name("samples".into()).spawn(move || read(&loader, first, &sender))?;
        Ok(Self { steps: Mutex::new(Some(steps)), process: Process::this() })
    }

    /// The samples of the next step, as dicts; `None` after the last one.
    fn next<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyList>>> {
        self.process.check("this iteration")?;
        let mut steps = match self.steps.try_lock() {
            Ok(steps) => steps,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => {
                return Err(PyRuntimeError::new_err(
                    "another thread is waiting for samples of this iteration",
                ));
            }
        };
        let Some(receiver) = steps.take() else { return Ok(None) };
        let receiver = Mutex::new(receiver);
        let step = waiting::until(py, |tick| {
            match receiver.lock().unwrap_or_else(PoisonError::into_inner).recv_timeout(tick) {
                Ok(step) => Some(Some(step)),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => Some(None),
            }
        });
        if !matches!(step, Ok(Some(Err(_)) | None)) {
            *steps = Some(receiver.into_inner().unwrap_or_else(PoisonError::into_inner));
        }
        match step? {
            None => Ok(None),
            Some(Ok(samples)) => {
                let samples: PyResult<Vec<_>> = samples.iter().map(|sample| sample.dict(py)).collect();
                PyList::new(py, samples?).map(Some)
            }
            Some(Err(Problem::Loader(error))) => Err(error.into_python()),
            Some(Err(Problem::Data(problem))) => Err(Error::new_err(problem)),
        }
    }
}

impl Stored {
    fn dict<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let dict = PyDict::new(py);
        dict.set_item("__key__", &self.key)?;
        dict.set_item("__url__", &self.shard)?;
        for (extension, content) in &self.members {
            dict.set_item(extension, PyBytes::new(py, content))?;
        }
        Ok(dict)
    }
}

/// Reads until the end of the epoch, the first error, or nobody listens any more.
fn read(loader: &::loader::Loader, first: Position, sender: &SyncSender<Step>) {
    let store = Store { loader, open: Mutex::default() };
    for step in first.step..loader.steps_per_epoch() {
        let rows = loader.samples_of(Position { step, ..first }).into_iter().filter_map(|mut row| row.next());
        let samples = store.read(&rows.collect::<Vec<SampleId>>());
        let is_last = samples.is_err();
        if sender.send(samples).is_err() || is_last {
            return;
        }
    }
}

/// A shard and its members.
type Opened = Arc<(Archive, Vec<Sample>)>;

/// The shards that are open.
struct Store<'a> {
    loader: &'a ::loader::Loader,
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    /// By their numbers, with the time of their last use, which is a count of uses.
    shards: HashMap<u32, (u64, Opened)>,
    clock: u64,
}

impl Store<'_> {
    fn read(&self, rows: &[SampleId]) -> Step {
        let settings = self.loader.settings();
        let remote = settings.shards.iter().any(storage::Location::is_remote);
        let threads = if remote { READERS } else { settings.options.thread_count() };
        let piece = rows.len().div_ceil(threads).max(1);
        let pieces: Vec<Step> = thread::scope(|scope| {
            let work = |rows: &'_ [SampleId]| rows.iter().map(|&row| self.sample(row)).collect::<Step>();
            let started: Vec<_> = rows.chunks(piece).map(|rows| scope.spawn(move || work(rows))).collect();
            let panicked = |_| Err(Problem::Data("a thread that reads shards panicked".to_owned()));
            started.into_iter().map(|thread| thread.join().unwrap_or_else(panicked)).collect()
        });
        let pieces: Result<Vec<Vec<Stored>>, Problem> = pieces.into_iter().collect();
        Ok(pieces?.into_iter().flatten().collect())
    }

    fn sample(&self, id: SampleId) -> Result<Stored, Problem> {
        let shard = self.shard(id.shard)?;
        let (archive, samples) = &*shard;
        let Some(sample) = samples.get(id.sample as usize) else {
            return Err(Problem::Data(format!(
                "{} has {} samples, but its _stats.json counts more; download or write it again",
                archive.location(),
                samples.len()
            )));
        };
        let read = |member: &::loader::shards::Member| {
            Ok((member.extension.clone(), archive.read(member.offset, member.length)?))
        };
        let members: Result<_, ::loader::Error> = sample.members.iter().map(read).collect();
        Ok(Stored { shard: archive.location().to_string(), key: sample.key.clone(), members: members? })
    }

    fn shard(&self, number: u32) -> Result<Opened, Problem> {
        // Held while a shard is opened, so that it is opened once.
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let Open { shards, clock } = &mut *open;
        *clock += 1;
        if let Some((used, shard)) = shards.get_mut(&number) {
            *used = *clock;
            return Ok(Arc::clone(shard));
        }
        let settings = self.loader.settings();
        let location = &settings.shards[number as usize];
        let archive = match &settings.options.cache {
            Some(cache) => Archive::open_cached(location, cache)?,
            None => Archive::open(location)?,
        };
        let samples = archive.samples()?;
        let shard = Arc::new((archive, samples));
        if shards.len() >= OPEN
            && let Some(oldest) = shards.iter().min_by_key(|(_, (used, _))| *used).map(|(&number, _)| number)
        {
            shards.remove(&oldest);
        }
        shards.insert(number, (*clock, Arc::clone(&shard)));
        Ok(shard)
    }
}
