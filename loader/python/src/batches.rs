//! The iterator over batches.

use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, PoisonError, TryLockError};
use std::task::Poll;
use std::thread;
use std::time::Duration;

use ::loader::{Batch, Position};
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::error::IntoPython;
use crate::loader::Loader;
use crate::memory::{Lent, Memory, allocator};
use crate::waiting::{self, Process};

#[pyclass(frozen)]
pub(crate) struct Batches {
    batches: Mutex<Option<::loader::Batches>>,
    /// What Python raised while it lent memory.
    raised: Arc<Mutex<Option<PyErr>>>,
    process: Process,
    context: usize,
    side: usize,
}

/// How long to wait for the threads of an iteration to end. Those that read from a slow place end later, by themselves.
const PATIENCE: Duration = Duration::from_secs(1);

impl Drop for Batches {
    fn drop(&mut self) {
        let batches = self.batches.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        if self.process.is_here() {
            end(batches);
        } else {
            // Its threads are the parent's: waiting for their end would take forever.
            std::mem::forget(batches);
        }
    }
}

fn end(batches: Option<::loader::Batches>) {
    let Some(batches) = batches else { return };
    let (ended, end) = channel::<()>();
    let thread = thread::Builder::new().name("simzss_data".into()).spawn(move || {
        drop(batches);
        drop(ended);
    });
    if thread.is_ok() {
        // Disconnected when they have ended.
        let _ = end.recv_timeout(PATIENCE);
    }
}

#[pymethods]
impl Batches {
    #[new]
    #[pyo3(signature = (loader, epoch, step, lend = None))]
    fn start(
        py: Python<'_>,
        loader: &Bound<'_, Loader>,
        epoch: u64,
        step: u64,
        lend: Option<Py<PyAny>>,
    ) -> PyResult<Self> {
        let loader = loader.get().get()?;
        let raised = Arc::default();
        let at = Position { epoch, step };
        let lend = lend.map(|lend| allocator(lend, Arc::clone(&raised)));
        let batches = py.detach(|| match lend {
            Some(lend) => loader.batches_in(at, lend),
            None => loader.batches(at),
        });
        let settings = loader.settings();
        Ok(Self {
            batches: Mutex::new(Some(batches)),
            raised,
            process: Process::this(),
            context: settings.context,
            side: settings.options.size as usize,
        })
    }

    /// The next batch as a dict, or `None` after an error or [`Batches::close`].
    fn next<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyDict>>> {
        self.process.check("this iteration")?;
        let mut batches = match self.batches.try_lock() {
            Ok(batches) => batches,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => {
                return Err(PyRuntimeError::new_err(
                    "another thread is waiting for a batch of this iteration",
                ));
            }
        };
        let Some(open) = &mut *batches else { return Ok(None) };
        let batch = waiting::until(py, |tick| match open.next_timeout(tick) {
            Poll::Ready(batch) => Some(batch),
            Poll::Pending => None,
        })?;
        match batch {
            Some(Ok(batch)) => self.dict(py, batch).map(Some),
            None => Ok(None),
            Some(Err(error)) => {
                let ended = batches.take();
                py.detach(|| end(ended));
                let raised = self.raised.lock().unwrap_or_else(PoisonError::into_inner).take();
                Err(raised.unwrap_or_else(|| error.into_python()))
            }
        }
    }

    /// Ends the threads.
    fn close(&self, py: Python<'_>) {
        if self.process.is_here()
            && let Ok(mut batches) = self.batches.try_lock()
        {
            let batches = batches.take();
            py.detach(|| end(batches));
        }
    }
}

impl Batches {
    fn dict<'py>(&self, py: Python<'py>, batch: Batch) -> PyResult<Bound<'py, PyDict>> {
        let dict = PyDict::new(py);
        let (rows, side) = (batch.size, self.side);
        let mentions = PyDict::new(py);
        let [starts, ends] = characters(&batch);
        for (name, column) in [
            ("offsets", batch.mentions.offsets),
            ("label", batch.mentions.labels),
            ("token_start", batch.mentions.token_starts),
            ("token_end", batch.mentions.token_ends),
            ("start", starts),
            ("end", ends),
        ] {
            mentions.set_item(name, Memory::small(column))?;
        }
        if let Some(lent) = batch.images.buffer::<Lent>() {
            dict.set_item("lent", lent.take(py))?;
        } else if !batch.images.is_empty() {
            dict.set_item("image", Memory::images(batch.images, vec![rows, side, side, 3]))?;
        }
        if !batch.tokens.is_empty() {
            dict.set_item("text", Memory::signed(batch.tokens, vec![rows, self.context]))?;
            dict.set_item("caption", batch.captions)?;
        }
        dict.set_item("key", batch.keys)?;
        dict.set_item("sample", Memory::large(batch.samples))?;
        dict.set_item("mentions", mentions)?;
        dict.set_item("position", (batch.position.epoch, batch.position.step))?;
        let skipped = batch.counters.skipped.into_iter();
        let skipped =
            skipped.map(|skipped| (skipped.shard.to_string(), skipped.key, skipped.cause.to_string()));
        dict.set_item("skipped", skipped.collect::<Vec<_>>())?;
        Ok(dict)
    }
}

/// The mentions' bytes as characters of the captions.
fn characters(batch: &Batch) -> [Vec<u32>; 2] {
    let mut spans = [batch.mentions.byte_starts.clone(), batch.mentions.byte_ends.clone()];
    for (row, caption) in batch.captions.iter().enumerate().filter(|(_, caption)| !caption.is_ascii()) {
        let of_row = batch.mentions.offsets[row] as usize..batch.mentions.offsets[row + 1] as usize;
        for span in spans.iter_mut().flat_map(|spans| &mut spans[of_row.clone()]) {
            *span = caption.get(..*span as usize).map_or(*span, |before| before.chars().count() as u32);
        }
    }
    spans
}
