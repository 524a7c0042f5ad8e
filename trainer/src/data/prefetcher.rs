//! Batches on the device: on a GPU, their pixels are copied while earlier batches are computed.

use std::collections::VecDeque;

use loader::{Batch, Batches, ImageBuffer, Loader, Position};
use tch::{Device, Kind, Tensor};

use super::vision_source::VisionSource;
use crate::error::{Error, Result};
use crate::torch::{PinnedBuffer, StagingBuffer};
use crate::towers::pixels;

/// A batch whose pixels are on the device.
#[derive(Debug)]
pub struct DeviceBatch {
    /// The batch from the loader.
    pub batch: Batch,
    /// [B, H, W, 3] uint8, on the device; `None` if features come from a cache.
    pub pixels: Option<Tensor>,
}

/// Copies batches to the device ahead of time.
///
/// On a GPU, two batches are in preparation: their pixels are copied from pinned memory on a separate CUDA stream while kernels
/// run.
#[derive(Debug)]
pub struct Prefetcher {
    batches: Batches,
    device: Device,
    size: Option<i64>,
    /// On the GPU: one that is being read, and one per batch in preparation. Empty on a CPU.
    buffers: Vec<StagingBuffer>,
    ahead: VecDeque<(Batch, usize)>,
    /// Number of batches whose copy was started, and number of batches returned.
    sent: usize,
    given: usize,
}

/// Batches whose pixels are being copied while one is computed.
const AHEAD: usize = 2;

impl Prefetcher {
    /// Starts at a position.
    pub fn new(loader: &Loader, from: Position, source: &VisionSource, device: Device) -> Result<Self> {
        let mut buffers = Vec::new();
        if let (Device::Cuda(_), Some(size)) = (device, source.size()) {
            for _ in 0..=AHEAD {
                let shape = [loader.rows() as i64, size, size, 3];
                buffers.push(StagingBuffer::new(Tensor::zeros(shape, (Kind::Uint8, device)))?);
            }
        }
        let batches = if buffers.is_empty() {
            loader.batches(from)
        } else {
            let pinned = |bytes| Ok(Box::new(PinnedBuffer::new(bytes)?) as Box<dyn ImageBuffer>);
            loader.batches_in(from, Box::new(pinned))
        };
        Ok(Self { batches, device, size: source.size(), buffers, ahead: VecDeque::new(), sent: 0, given: 0 })
    }

    /// The next batch. All kernels that read the pixels of the previous batch must have been launched.
    pub fn next_batch(&mut self) -> Result<DeviceBatch> {
        let Some(size) = self.size else { return Ok(DeviceBatch { batch: self.load()?, pixels: None }) };
        if self.buffers.is_empty() {
            let batch = self.load()?;
            let pixels = pixels(&batch.images, size).to_device(self.device);
            return Ok(DeviceBatch { batch, pixels: Some(pixels) });
        }
        let count = self.buffers.len();
        if self.given > 0 {
            self.buffers[(self.given - 1) % count].release()?;
        }
        while self.ahead.len() <= AHEAD {
            let batch = self.load()?;
            let buffer = self.sent % count;
            let slot = batch.images.buffer::<PinnedBuffer>().ok_or_else(no_batch)?;
            self.buffers[buffer].send(slot.tensor(&[batch.size as i64, size, size, 3]))?;
            self.sent += 1;
            self.ahead.push_back((batch, buffer));
        }
        let (batch, buffer) = self.ahead.pop_front().ok_or_else(no_batch)?;
        self.given += 1;
        let pixels = Some(self.buffers[buffer].receive()?.shallow_clone());
        Ok(DeviceBatch { batch, pixels })
    }

    fn load(&mut self) -> Result<Batch> {
        Ok(self.batches.next().ok_or_else(no_batch)??)
    }
}

pub(super) fn no_batch() -> Error {
    Error::Failed("the loader gave no batch".to_owned())
}
