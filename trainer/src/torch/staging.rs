//! A staging buffer: memory on the GPU that is filled from pinned host memory while kernels run.

use std::ffi::{c_char, c_int, c_void};
use std::ptr;

use tch::Tensor;
use torch_sys::C_tensor;

use super::{ShimError, check, pointer};

unsafe extern "C" {
    fn torch_shim_peak_memory(device: c_int, out: *mut i64) -> *mut c_char;
    fn torch_shim_staging_new(buffer: *mut C_tensor, out: *mut *mut c_void) -> *mut c_char;
    fn torch_shim_staging_send(
        handle: *mut c_void,
        buffer: *mut C_tensor,
        pinned: *mut C_tensor,
    ) -> *mut c_char;
    fn torch_shim_staging_receive(handle: *mut c_void, buffer: *mut C_tensor) -> *mut c_char;
    fn torch_shim_staging_release(handle: *mut c_void, buffer: *mut C_tensor) -> *mut c_char;
    fn torch_shim_staging_free(handle: *mut c_void);
}

/// Peak memory of all tensors on the GPU `device`, in bytes.
pub fn peak_memory(device: usize) -> Result<u64, ShimError> {
    let mut bytes = 0;
    // SAFETY: `bytes` outlives the call.
    check(unsafe { torch_shim_peak_memory(device as c_int, &raw mut bytes) })?;
    Ok(bytes as u64)
}

/// A buffer on the GPU with its own CUDA stream for copies. The order of calls is send, receive, release, send, ..
#[derive(Debug)]
pub struct StagingBuffer {
    handle: *mut c_void,
    buffer: Tensor,
    /// The source of the current copy; kept until the copy is finished.
    pinned: Option<Tensor>,
}

impl StagingBuffer {
    /// With a buffer on the GPU.
    pub fn new(buffer: Tensor) -> Result<Self, ShimError> {
        let mut handle = ptr::null_mut();
        // SAFETY: the buffer is alive, `handle` is written when the call succeeds.
        check(unsafe { torch_shim_staging_new(pointer(&buffer), &raw mut handle) })?;
        Ok(Self { handle, buffer, pinned: None })
    }

    /// Starts to copy a tensor in pinned memory to the buffer's first rows; it has at most the buffer's rows, and their shape.
    pub fn send(&mut self, pinned: Tensor) -> Result<(), ShimError> {
        let rows = self.buffer.narrow(0, 0, pinned.size()[0]);
        // SAFETY: handle and tensors are alive; `pinned` is kept until the copy was waited for.
        check(unsafe { torch_shim_staging_send(self.handle, pointer(&rows), pointer(&pinned)) })?;
        self.pinned = Some(pinned);
        Ok(())
    }

    /// Waits for the copy, and returns the rows that were copied. They can be used by kernels that are launched from now on, and
    /// the pinned memory is free again.
    pub fn receive(&mut self) -> Result<Tensor, ShimError> {
        // SAFETY: handle and buffer are alive.
        check(unsafe { torch_shim_staging_receive(self.handle, pointer(&self.buffer)) })?;
        let rows = self.pinned.take().map_or(0, |pinned| pinned.size()[0]);
        Ok(self.buffer.narrow(0, 0, rows))
    }

    /// Declares that all kernels that read the buffer have been launched.
    pub fn release(&mut self) -> Result<(), ShimError> {
        // SAFETY: handle and buffer are alive.
        check(unsafe { torch_shim_staging_release(self.handle, pointer(&self.buffer)) })
    }
}

impl Drop for StagingBuffer {
    fn drop(&mut self) {
        if self.pinned.is_some() {
            // The copy still reads the pinned memory. If waiting for it fails, the device is unusable anyway.
            let _ = self.receive();
        }
        // SAFETY: made by torch_shim_staging_new, freed once.
        unsafe { torch_shim_staging_free(self.handle) }
    }
}
