//! Where tensors live and in which precision the towers compute.

use serde::{Deserialize, Serialize};
use tch::{Cuda, Device, Kind, Tensor};

use crate::error::{Error, Result};
use crate::torch;

/// What towers compute in. Weights of the trained tower, losses and softmaxes are float32 either way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// bfloat16 on a GPU, float32 on a CPU.
    #[default]
    Auto,
    /// float32.
    Float32,
    /// bfloat16.
    Bfloat16,
}

impl Precision {
    /// The kind for `device`.
    pub fn kind(self, device: Device) -> Kind {
        match self {
            Self::Bfloat16 => Kind::BFloat16,
            Self::Auto if device.is_cuda() => Kind::BFloat16,
            Self::Float32 | Self::Auto => Kind::Float,
        }
    }
}

/// The device of that name: `auto` (a GPU where there is one), `cpu`, `cuda`, `cuda:N`.
///
/// Call before any tensor is made: libtorch remembers whether it saw a GPU when first asked.
pub fn open(name: &str) -> Result<Device> {
    let refuse = |problem: String| Error::Device { device: name.to_owned(), problem };
    let index = match name {
        "cpu" => return Ok(Device::Cpu),
        "auto" | "cuda" => 0,
        _ => name
            .strip_prefix("cuda:")
            .and_then(|n| n.parse().ok())
            .ok_or_else(|| refuse("unknown; use auto, cpu, cuda or cuda:N".to_owned()))?,
    };
    let loaded = torch::load_cuda();
    let count = if loaded.is_ok() { Cuda::device_count() } else { 0 };
    if count > index as i64 {
        torch::full_float32()?;
        return Ok(Device::Cuda(index));
    }
    match (name, loaded) {
        ("auto", _) => Ok(Device::Cpu),
        (_, Err(why)) => Err(refuse(format!(
            "libtorch's CUDA half cannot be loaded ({why}); link .torch to a full torch 2.11"
        ))),
        (_, Ok(())) => Err(refuse(format!("there are {count} GPUs here"))),
    }
}

/// The device of that name for a process that shares its machine with others: without a number, its own GPU.
pub fn open_for_rank(name: &str, local_rank: usize) -> Result<Device> {
    match name {
        "cuda" => open(&format!("cuda:{local_rank}")),
        "auto" => match open("auto")? {
            Device::Cuda(_) => open(&format!("cuda:{local_rank}")),
            other => Ok(other),
        },
        _ => open(name),
    }
}

/// Brings a tensor to the device without waiting for the kernels that are under way there, as a copy from memory that is
/// not pinned would.
pub fn send(tensor: &Tensor, device: Device) -> Tensor {
    if !device.is_cuda() {
        return tensor.shallow_clone();
    }
    match torch::pin(&tensor.contiguous()) {
        Ok(pinned) => pinned.to_device_(device, tensor.kind(), true, false),
        // Without memory to pin there is still the slow way.
        Err(_) => tensor.to_device(device),
    }
}

/// Limits libtorch to `threads` CPU threads; 0 leaves its choice, one a core.
pub fn limit_threads(threads: usize) {
    if threads > 0 {
        tch::set_num_threads(threads as i32);
    }
}
