//! A buffer on the GPU that is filled from pinned memory while kernels run.

use std::ffi::{c_char, c_int, c_void};
use std::ptr;

use tch::Tensor;
use torch_sys::C_tensor;

use super::{ShimError, check, pointer};

unsafe extern "C" {
    fn torch_shim_peak_memory(device: c_int, out: *mut i64) -> *mut c_char;
    fn torch_shim_lane_new(buffer: *mut C_tensor, out: *mut *mut c_void) -> *mut c_char;
    fn torch_shim_lane_send(lane: *mut c_void, buffer: *mut C_tensor, pinned: *mut C_tensor) -> *mut c_char;
    fn torch_shim_lane_receive(lane: *mut c_void, buffer: *mut C_tensor) -> *mut c_char;
    fn torch_shim_lane_release(lane: *mut c_void, buffer: *mut C_tensor) -> *mut c_char;
    fn torch_shim_lane_free(lane: *mut c_void);
}

/// Most bytes that tensors have held on the GPU `device` at a time.
pub fn peak_memory(device: usize) -> Result<u64, ShimError> {
    let mut bytes = 0;
    // SAFETY: `bytes` outlives the call.
    check(unsafe { torch_shim_peak_memory(device as c_int, &raw mut bytes) })?;
    Ok(bytes as u64)
}

/// A buffer on the GPU with a copy stream of its own. The order is send, receive, release, send, ..
#[derive(Debug)]
pub struct Lane {
    lane: *mut c_void,
    buffer: Tensor,
    /// What is being copied: held until the copy is over.
    pinned: Option<Tensor>,
}

impl Lane {
    /// Around a buffer on the GPU.
    pub fn new(buffer: Tensor) -> Result<Self, ShimError> {
        let mut lane = ptr::null_mut();
        // SAFETY: the buffer is alive, `lane` is written when the call succeeds.
        check(unsafe { torch_shim_lane_new(pointer(&buffer), &raw mut lane) })?;
        Ok(Self { lane, buffer, pinned: None })
    }

    /// Begins to copy a tensor in pinned memory into the buffer, which has its shape.
    pub fn send(&mut self, pinned: Tensor) -> Result<(), ShimError> {
        // SAFETY: lane and tensors are alive; `pinned` is kept until the copy was waited for.
        check(unsafe { torch_shim_lane_send(self.lane, pointer(&self.buffer), pointer(&pinned)) })?;
        self.pinned = Some(pinned);
        Ok(())
    }

    /// The buffer, for kernels that are started from now on; the pinned memory is free again.
    pub fn receive(&mut self) -> Result<&Tensor, ShimError> {
        // SAFETY: lane and buffer are alive.
        check(unsafe { torch_shim_lane_receive(self.lane, pointer(&self.buffer)) })?;
        self.pinned = None;
        Ok(&self.buffer)
    }

    /// Says that every kernel that reads the buffer has been started.
    pub fn release(&mut self) -> Result<(), ShimError> {
        // SAFETY: lane and buffer are alive.
        check(unsafe { torch_shim_lane_release(self.lane, pointer(&self.buffer)) })
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        if self.pinned.is_some() {
            // The copy still reads the pinned memory; when waiting fails, the device is lost anyway.
            let _ = self.receive();
        }
        // SAFETY: made by torch_shim_lane_new, freed once.
        unsafe { torch_shim_lane_free(self.lane) }
    }
}
