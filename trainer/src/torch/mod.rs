//! The only unsafe code of the trainer: functions of libtorch that tch does not offer (through `cpp/`), NCCL, and loading the CUDA
//! library of libtorch at run time.

#![allow(unsafe_code)]

mod collectives;
mod cuda;
mod nccl;
mod pinned;
mod profiler;
mod staging;

use std::ffi::{CStr, c_char};
use std::ptr;

use tch::Tensor;
use torch_sys::C_tensor;

pub use collectives::{Gloo, Store};
pub use cuda::load_cuda;
pub use nccl::{Id, Nccl};
pub use pinned::{PinnedBuffer, pin};
pub use profiler::Profiler;
pub use staging::{StagingBuffer, peak_memory};

unsafe extern "C" {
    fn torch_shim_fused_adamw(
        count: usize,
        parameters: *const *mut C_tensor,
        gradients: *const *mut C_tensor,
        first_moments: *const *mut C_tensor,
        second_moments: *const *mut C_tensor,
        steps: *const *mut C_tensor,
        lr: f64,
        beta1: f64,
        beta2: f64,
        weight_decay: f64,
        eps: f64,
    ) -> *mut c_char;
    fn torch_shim_clip_gradients(count: usize, gradients: *const *mut C_tensor, max_norm: f64)
    -> *mut c_char;
    fn torch_shim_linear_gelu(
        x: *mut C_tensor,
        weight: *mut C_tensor,
        bias: *mut C_tensor,
        out: *mut *mut C_tensor,
    ) -> *mut c_char;
    fn torch_shim_full_float32() -> *mut c_char;
}

/// The message of an exception in libtorch.
#[derive(Debug, thiserror::Error)]
#[error("libtorch: {0}")]
pub struct ShimError(String);

fn check(message: *mut c_char) -> Result<(), ShimError> {
    if message.is_null() {
        return Ok(());
    }
    // SAFETY: the shim returns null or a string from strdup that is owned by us, so it is read and freed once.
    let text = unsafe {
        let text = CStr::from_ptr(message).to_string_lossy().into_owned();
        libc::free(message.cast());
        text
    };
    // The first line is the message; the rest is a C++ stack trace.
    Err(ShimError(text.lines().next().unwrap_or_default().to_owned()))
}

fn pointer(tensor: &Tensor) -> *mut C_tensor {
    tensor.as_ptr().cast_mut()
}

fn pointers<'a>(tensors: impl IntoIterator<Item = &'a Tensor>) -> Vec<*mut C_tensor> {
    tensors.into_iter().map(pointer).collect()
}

/// The hyperparameters of an AdamW step.
#[derive(Debug, Clone, Copy)]
pub struct AdamW {
    /// Learning rate.
    pub lr: f64,
    /// Decay rates of the two moments.
    pub betas: (f64, f64),
    /// Decoupled weight decay, times `lr`.
    pub weight_decay: f64,
    /// Added to the denominator for numerical stability.
    pub eps: f64,
}

/// A parameter and its optimizer state. All tensors except `step` have the shape of the parameter.
#[derive(Debug)]
pub struct ParameterState {
    /// The parameter (shares storage with the tensor of the tower).
    pub parameter: Tensor,
    /// Running mean of the gradient.
    pub first_moment: Tensor,
    /// Running mean of the squared gradient.
    pub second_moment: Tensor,
    /// Number of steps taken, a float32 scalar on the device of the parameter.
    pub step: Tensor,
}

/// One fused AdamW step over `states`, in place. All parameters must have gradients.
pub fn fused_adamw(states: &[&ParameterState], settings: &AdamW) -> Result<(), ShimError> {
    let gradients: Vec<Tensor> = states.iter().map(|s| s.parameter.grad()).collect();
    // SAFETY: every pointer comes from a Tensor that outlives the call, the five arrays have `count` entries.
    check(unsafe {
        torch_shim_fused_adamw(
            states.len(),
            pointers(states.iter().map(|s| &s.parameter)).as_ptr(),
            pointers(&gradients).as_ptr(),
            pointers(states.iter().map(|s| &s.first_moment)).as_ptr(),
            pointers(states.iter().map(|s| &s.second_moment)).as_ptr(),
            pointers(states.iter().map(|s| &s.step)).as_ptr(),
            settings.lr,
            settings.betas.0,
            settings.betas.1,
            settings.weight_decay,
            settings.eps,
        )
    })
}

/// Scales `gradients` in place so that the L2 norm of all of them together is at most `max_norm`. Does not wait for the device.
pub fn clip_gradients(gradients: &[Tensor], max_norm: f64) -> Result<(), ShimError> {
    // SAFETY: every pointer comes from a Tensor that outlives the call.
    check(unsafe { torch_shim_clip_gradients(gradients.len(), pointers(gradients).as_ptr(), max_norm) })
}

/// gelu(x Wᵀ + b) for rows `x`, [n, d], as one operation; on a GPU with the tanh approximation of GELU.
pub fn linear_gelu(x: &Tensor, weight: &Tensor, bias: &Tensor) -> Result<Tensor, ShimError> {
    made(|out| {
        // SAFETY: the tensors are alive; `out` is written when the call succeeds.
        unsafe { torch_shim_linear_gelu(pointer(x), pointer(weight), pointer(bias), out) }
    })
}

/// The new tensor that a function of the shim returns in its last argument.
fn made(function: impl FnOnce(*mut *mut C_tensor) -> *mut c_char) -> Result<Tensor, ShimError> {
    let mut out = ptr::null_mut();
    check(function(&raw mut out))?;
    // SAFETY: the function succeeded, so this is a new tensor, which nobody else frees.
    Ok(unsafe { Tensor::from_ptr(out) })
}

/// Makes libtorch reuse the memory of large tensors on a CPU, in huge pages where the system has them. Otherwise each tensor of more than
/// 32 MB is new memory that the system has to clear, 4 kB at a time: a sixth of the time of a ViT-B's blocks. What is freed stays with the process.
///
/// Call this before anything else: libtorch reads the variable once, and no other thread may read or write the environment meanwhile.
pub fn reuse_memory() {
    const HUGE_PAGES: &str = "THP_MEM_ALLOC_ENABLE";
    /// Larger tensors are new memory all the same.
    #[cfg(target_env = "gnu")]
    const REUSED: i32 = 1 << 30;

    if std::env::var_os(HUGE_PAGES).is_none() {
        // SAFETY: no other thread exists yet.
        unsafe { std::env::set_var(HUGE_PAGES, "1") };
    }
    #[cfg(target_env = "gnu")]
    // SAFETY: these are settings of the allocator; one that it refuses has no effect.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, REUSED);
        libc::mallopt(libc::M_TRIM_THRESHOLD, REUSED);
    }
}

/// Disables TF32 for float32 matrix products and convolutions on a GPU. (For speed there is bfloat16.)
pub fn full_float32() -> Result<(), ShimError> {
    // SAFETY: no pointers are passed.
    check(unsafe { torch_shim_full_float32() })
}
