//! Reads the features of the next batch while a batch is used.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Instant;

use loader::{Batch, Batches, Loader, Position};
use tch::{Device, Tensor};

use super::reader::{FeatureBuffer, FeatureCache};
use crate::error::{Error, Result};
use crate::towers::VisionFeatures;

/// One whose batch is used, and one that is filled.
const BUFFERS: usize = 2;

/// The samples of a batch whose patches are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PatchesOf {
    /// None: for objectives without a concept loss, and for head means.
    None,
    /// Those with mentions.
    Mentions,
    /// All: for embeddings of images that are made of patches.
    All,
}

/// A thread that reads the features of a loader's batches, in order.
#[derive(Debug)]
pub(crate) struct FeatureReader {
    cache: Arc<FeatureCache>,
    made: Receiver<Result<FeatureBatch>>,
    free: Sender<FeatureBuffer>,
}

/// A batch, and its features in memory on the host.
#[derive(Debug)]
pub(crate) struct FeatureBatch {
    /// The batch from the loader, without images.
    pub(crate) batch: Batch,
    /// Its features; to be given back.
    pub(crate) buffer: FeatureBuffer,
    /// Rows that have patches.
    with_patches: usize,
}

impl FeatureReader {
    /// Starts at a position. `patches`: the samples whose patches are read, too.
    pub(crate) fn start(
        cache: &Arc<FeatureCache>,
        loader: &Loader,
        from: Position,
        patches: PatchesOf,
        device: Device,
    ) -> Result<Self> {
        let (free, to_fill) = channel();
        for _ in 0..BUFFERS {
            // The receiver is alive.
            let _ = free.send(cache.buffer(loader.rows(), patches != PatchesOf::None, device)?);
        }
        let (send, made) = channel();
        let mut batches = loader.batches(from);
        let threads = loader.settings().options.thread_count();
        let reads = Arc::clone(cache);
        let work = move || {
            while let Ok(buffer) = to_fill.recv() {
                let batch = read_next(&reads, &mut batches, buffer, patches, threads);
                let last = batch.is_err();
                if send.send(batch).is_err() || last {
                    break;
                }
            }
        };
        let failed = |e| Error::Failed(format!("cannot start a thread that reads features: {e}"));
        thread::Builder::new().name("features".to_owned()).spawn(work).map_err(failed)?;
        Ok(Self { cache: Arc::clone(cache), made, free })
    }

    /// The next batch; waits until its features have been read. `None` if there are no more, which happens only after an error.
    pub(crate) fn next_batch(&mut self) -> Option<Result<FeatureBatch>> {
        let started = Instant::now();
        let mut made = self.made.recv().ok()?;
        if let Ok(made) = &mut made {
            made.batch.counters.waited = started.elapsed();
        }
        Some(made)
    }

    /// The features of a batch, class tokens and patches or head means: tensors that share the memory of its buffer.
    pub(crate) fn tensors(&self, batch: &FeatureBatch) -> Vec<Tensor> {
        let samples = batch.batch.size;
        if self.of_head_means() {
            return vec![self.cache.head_means(&batch.buffer, samples)];
        }
        let VisionFeatures { class, patches } =
            self.cache.features(&batch.buffer, samples, batch.with_patches);
        vec![class, patches]
    }

    /// Whether the features are head means.
    pub(crate) fn of_head_means(&self) -> bool {
        self.cache.holds_head_means()
    }

    /// Returns the buffer of a batch whose features are not needed any more.
    pub(crate) fn give_back(&self, buffer: FeatureBuffer) {
        // Without a receiver, the thread has ended after an error.
        let _ = self.free.send(buffer);
    }
}

fn read_next(
    cache: &FeatureCache,
    batches: &mut Batches,
    mut buffer: FeatureBuffer,
    patches: PatchesOf,
    threads: usize,
) -> Result<FeatureBatch> {
    let no_batch = || Error::Failed("the loader gave no batch".to_owned());
    let batch = batches.next().ok_or_else(no_batch)??;
    let rows = match patches {
        PatchesOf::None => Vec::new(),
        PatchesOf::Mentions => rows_with_mentions(&batch),
        PatchesOf::All => (0..batch.size as u32).collect(),
    };
    cache.read(&batch.samples, &rows, &mut buffer, threads)?;
    Ok(FeatureBatch { batch, buffer, with_patches: rows.len() })
}

/// The rows of a batch that mention a concept, in ascending order: those whose patches are pooled.
pub(crate) fn rows_with_mentions(batch: &Batch) -> Vec<u32> {
    let offsets = batch.mentions.offsets.windows(2).zip(0..);
    offsets.filter(|(range, _)| range[0] < range[1]).map(|(_, row)| row).collect()
}
