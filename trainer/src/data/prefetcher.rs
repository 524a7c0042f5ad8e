//! Batches on the device: on a GPU, they are copied while earlier batches are computed.

use std::collections::VecDeque;

use loader::{Batch, Batches, ImageBuffer, Loader, Position};
use tch::{Device, Kind, Tensor};

use super::feature_cache::{FeatureBuffer, FeatureReader, PatchesOf};
use super::vision_source::VisionSource;
use crate::error::{Error, Result};
use crate::torch::{PinnedBuffer, ShimError, StagingBuffer};
use crate::towers::{VisionFeatures, pixels};

/// A batch whose images are on the device.
#[derive(Debug)]
pub struct DeviceBatch {
    /// The batch from the loader.
    pub batch: Batch,
    /// Its images.
    pub images: DeviceImages,
}

/// The images of a batch on the device.
#[derive(Debug)]
pub enum DeviceImages {
    /// [B, H, W, 3] uint8.
    Pixels(Tensor),
    /// From a cache, in bfloat16: class tokens [B, d_v], and the patches of the rows that need them, [R, N, d_v].
    Features(VisionFeatures),
    /// From a cache of head means, in bfloat16: [B, heads, d_v].
    HeadMeans(Tensor),
}

/// Copies batches to the device ahead of time.
///
/// On a GPU, batches are copied from pinned memory on separate CUDA streams while kernels run.
#[derive(Debug)]
pub struct Prefetcher {
    source: Source,
    device: Device,
    /// On a GPU: where the batch that is used is, and one more for each batch that is being copied. Empty on a CPU.
    slots: Vec<Vec<StagingBuffer>>,
    copied: VecDeque<HostBatch>,
    /// The features that the last batch uses, on a CPU.
    in_use: Option<FeatureBuffer>,
    /// Number of batches whose copy was started, and number of batches returned.
    sent: usize,
    given: usize,
}

#[derive(Debug)]
enum Source {
    Pixels(Box<Batches>, i64),
    Features(FeatureReader),
}

/// A batch in memory on the host.
#[derive(Debug)]
struct HostBatch {
    batch: Batch,
    /// Its pixels; its class tokens and, if they are needed, patches; or its head means.
    images: Vec<Tensor>,
    /// The memory of its features.
    features: Option<FeatureBuffer>,
}

/// Batches that are being copied while one is used: the loader makes more of them at a time, a cache of features one.
const PIXELS_AHEAD: usize = 2;
const FEATURES_AHEAD: usize = 1;

impl Prefetcher {
    /// Starts at a position.
    pub fn new(loader: &Loader, from: Position, source: &VisionSource, device: Device) -> Result<Self> {
        let rows = loader.rows() as i64;
        let (source, ahead, shapes) = match source {
            VisionSource::Frozen(_, size) | VisionSource::Trained(_, size) => {
                let batches = if device.is_cuda() {
                    let pinned = |bytes| Ok(Box::new(PinnedBuffer::new(bytes)?) as Box<dyn ImageBuffer>);
                    loader.batches_in(from, Box::new(pinned))
                } else {
                    loader.batches(from)
                };
                let shapes = vec![(vec![rows, *size, *size, 3], Kind::Uint8)];
                (Source::Pixels(Box::new(batches), *size), PIXELS_AHEAD, shapes)
            }
            VisionSource::Cache { cache, patches } => {
                let reader = FeatureReader::start(cache, loader, from, *patches, device)?;
                let shapes =
                    cache.shapes(rows, *patches != PatchesOf::None).map(|shape| (shape, Kind::BFloat16));
                (Source::Features(reader), FEATURES_AHEAD, shapes.collect())
            }
        };
        let mut slots = Vec::new();
        if device.is_cuda() {
            for _ in 0..=ahead {
                let buffer = |(shape, kind): &(Vec<i64>, Kind)| {
                    StagingBuffer::new(Tensor::zeros(&shape[..], (*kind, device)))
                };
                slots.push(shapes.iter().map(buffer).collect::<std::result::Result<_, ShimError>>()?);
            }
        }
        Ok(Self { source, device, slots, copied: VecDeque::new(), in_use: None, sent: 0, given: 0 })
    }

    /// The next batch. All kernels that read the images of the previous batch must have been launched.
    pub fn next_batch(&mut self) -> Result<DeviceBatch> {
        self.give_back();
        let count = self.slots.len();
        if count == 0 {
            let HostBatch { batch, images, features } = self.load()?;
            self.in_use = features;
            let images = images.into_iter().map(|tensor| tensor.to_device(self.device)).collect();
            return Ok(DeviceBatch { batch, images: self.images(images) });
        }
        if self.given > 0 {
            for buffer in &mut self.slots[(self.given - 1) % count] {
                buffer.release()?;
            }
        }
        while self.copied.len() < count {
            let host = self.load()?;
            for (buffer, tensor) in self.slots[self.sent % count].iter_mut().zip(&host.images) {
                buffer.send(tensor.shallow_clone())?;
            }
            self.sent += 1;
            self.copied.push_back(host);
        }
        let HostBatch { batch, images: _, features } = self.copied.pop_front().ok_or_else(no_batch)?;
        let slot = &mut self.slots[self.given % count];
        let images =
            slot.iter_mut().map(StagingBuffer::receive).collect::<std::result::Result<_, ShimError>>()?;
        self.given += 1;
        self.in_use = features;
        self.give_back();
        Ok(DeviceBatch { batch, images: self.images(images) })
    }

    fn load(&mut self) -> Result<HostBatch> {
        match &mut self.source {
            Source::Pixels(batches, size) => {
                let batch = batches.next().ok_or_else(no_batch)??;
                let images = match batch.images.buffer::<PinnedBuffer>() {
                    Some(pinned) => pinned.tensor(&[batch.size as i64, *size, *size, 3]),
                    None => pixels(&batch.images, *size),
                };
                Ok(HostBatch { batch, images: vec![images], features: None })
            }
            Source::Features(reader) => {
                let made = reader.next_batch().ok_or_else(no_batch)??;
                let images = reader.tensors(&made);
                Ok(HostBatch { batch: made.batch, images, features: Some(made.buffer) })
            }
        }
    }

    /// What the tensors of a batch are.
    fn images(&self, tensors: Vec<Tensor>) -> DeviceImages {
        let mut tensors = tensors.into_iter();
        let mut next = || tensors.next().unwrap_or_default();
        match &self.source {
            Source::Pixels(..) => DeviceImages::Pixels(next()),
            Source::Features(reader) if reader.of_head_means() => DeviceImages::HeadMeans(next()),
            Source::Features(_) => DeviceImages::Features(VisionFeatures { class: next(), patches: next() }),
        }
    }

    /// The memory of features that are not read any more can be filled again.
    fn give_back(&mut self) {
        if let (Source::Features(reader), Some(buffer)) = (&self.source, self.in_use.take()) {
            reader.give_back(buffer);
        }
    }
}

pub(super) fn no_batch() -> Error {
    Error::Failed("the loader gave no batch".to_owned())
}
