//! Pinned host memory, from which a GPU can copy while the CPU continues. The threads of the loader decode images into it.

use std::any::Any;
use std::ffi::c_char;
use std::slice;
use std::sync::Arc;

use loader::{ImageBuffer, RowBuffer};
use tch::{Device, Kind, Tensor};
use torch_sys::C_tensor;

use super::{ShimError, made, pointer};

unsafe extern "C" {
    fn torch_shim_pin(tensor: *mut C_tensor, out: *mut *mut C_tensor) -> *mut c_char;
}

/// A copy of a tensor on the host in pinned memory.
pub fn pin(tensor: &Tensor) -> Result<Tensor, ShimError> {
    // SAFETY: the tensor is alive; `out` is written when the call succeeds.
    made(|out| unsafe { torch_shim_pin(pointer(tensor), out) })
}

/// Pinned memory for the images of a batch.
#[derive(Debug)]
pub struct PinnedBuffer {
    memory: Arc<Memory>,
    /// Number of pieces that are lent.
    lent: usize,
}

/// A uint8 tensor in pinned memory; references to it keep the memory alive.
#[derive(Debug)]
struct Memory(Tensor);

// SAFETY: the tensor is never written through this handle. Its bytes are accessed through the pieces, which are disjoint, and
// through `bytes`, which returns them only while no piece is lent.
unsafe impl Sync for Memory {}

/// The part of the memory that one thread writes.
#[derive(Debug)]
struct PinnedRow {
    memory: Arc<Memory>,
    start: usize,
    length: usize,
}

impl AsMut<[u8]> for PinnedRow {
    fn as_mut(&mut self) -> &mut [u8] {
        // SAFETY: inside the storage of the tensor, which the Arc keeps alive; `lend` makes pieces that do not overlap, and makes no
        // others before all have been returned.
        unsafe {
            slice::from_raw_parts_mut(self.memory.0.data_ptr().cast::<u8>().add(self.start), self.length)
        }
    }
}

impl PinnedBuffer {
    /// Pinned memory of this many bytes.
    pub fn new(bytes: usize) -> Result<Self, String> {
        let plain = Tensor::f_zeros([bytes as i64], (Kind::Uint8, Device::Cpu)).map_err(|e| e.to_string())?;
        let memory = pin(&plain).map_err(|e| e.to_string())?;
        Ok(Self { memory: Arc::new(Memory(memory)), lent: 0 })
    }

    /// Memory from which this device can copy: pinned for a GPU, ordinary for a CPU.
    pub fn for_device(bytes: usize, device: Device) -> Result<Self, String> {
        if device.is_cuda() {
            return Self::new(bytes);
        }
        let plain = Tensor::f_zeros([bytes as i64], (Kind::Uint8, Device::Cpu)).map_err(|e| e.to_string())?;
        Ok(Self { memory: Arc::new(Memory(plain)), lent: 0 })
    }

    /// Its first bytes as a tensor with this shape, of uint8.
    pub fn tensor(&self, shape: &[i64]) -> Tensor {
        let numbers: i64 = shape.iter().product();
        self.memory.0.narrow(0, 0, numbers).view(shape)
    }
}

impl ImageBuffer for PinnedBuffer {
    fn lend(&mut self, rows: usize, bytes: usize) -> Vec<Box<dyn RowBuffer>> {
        if self.lent > 0 || rows * bytes > self.memory.0.numel() {
            return Vec::new();
        }
        self.lent = rows;
        (0..rows)
            .map(|row| {
                let memory = Arc::clone(&self.memory);
                Box::new(PinnedRow { memory, start: row * bytes, length: bytes }) as Box<dyn RowBuffer>
            })
            .collect()
    }

    fn take_back(&mut self, pieces: Vec<Box<dyn RowBuffer>>) {
        let ours = |piece: &dyn RowBuffer| {
            let piece: &dyn Any = piece;
            piece.downcast_ref::<PinnedRow>().is_some_and(|p| Arc::ptr_eq(&p.memory, &self.memory))
        };
        self.lent = self.lent.saturating_sub(pieces.iter().filter(|piece| ours(&***piece)).count());
    }

    fn bytes(&self) -> &[u8] {
        if self.lent > 0 {
            return &[];
        }
        // SAFETY: no piece is lent, so no thread writes; the slice does not outlive the tensor.
        unsafe { slice::from_raw_parts(self.memory.0.data_ptr().cast::<u8>(), self.memory.0.numel()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With ordinary memory, because pinning needs a GPU.
    #[test]
    fn pieces_are_the_rows_of_the_tensor() {
        let memory = Tensor::zeros([12], (Kind::Uint8, Device::Cpu));
        let mut slot = PinnedBuffer { memory: Arc::new(Memory(memory)), lent: 0 };
        let mut pieces = slot.lend(3, 4);
        assert!(slot.bytes().is_empty() && slot.lend(3, 4).is_empty(), "lent once at a time");
        for (row, piece) in pieces.iter_mut().enumerate() {
            (**piece).as_mut().fill(row as u8 + 1);
        }
        slot.take_back(pieces);
        assert_eq!(slot.bytes(), [1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3]);
        assert_eq!(Vec::<u8>::try_from(slot.tensor(&[3, 2, 2]).get(1).reshape([-1])).unwrap(), [2; 4]);
        assert!(slot.lend(4, 4).is_empty(), "more than there is");
    }
}
