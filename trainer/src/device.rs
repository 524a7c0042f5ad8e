//! The device on which tensors are stored and its memory, the precision in which the towers compute, and the number of threads.

use serde::{Deserialize, Serialize};
use tch::{Cuda, Device, Kind, Tensor};

use crate::error::{Error, Result};
use crate::torch;

/// Number format in which the towers compute. The weights of trained towers, losses and softmaxes are always float32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "kebab-case")]
pub enum Precision {
    /// What [`Precision::chosen`] says.
    #[default]
    Auto,
    /// float32.
    Float32,
    /// bfloat16.
    Bfloat16,
    /// bfloat16 for a frozen vision tower, float32 for everything else.
    Bfloat16Vision,
    /// float8 for the products in the blocks of a frozen vision tower, bfloat16 for its other parts; everything else in bfloat16 on a GPU
    /// and in float32 on a CPU.
    Float8Vision,
}

impl Precision {
    /// The same, with what `auto` stands for on `device`: bfloat16 on a GPU, `bfloat16-vision` on a CPU that multiplies matrices in
    /// bfloat16 (`multiplies`), float32 on others.
    #[must_use]
    pub fn chosen(self, device: Device, multiplies: bool) -> Self {
        match self {
            Self::Auto if device.is_cuda() => Self::Bfloat16,
            Self::Auto if multiplies => Self::Bfloat16Vision,
            Self::Auto => Self::Float32,
            given => given,
        }
    }

    /// The same for scores that are compared with those of other machines: on a CPU, `auto` stands for float32.
    #[must_use]
    pub fn for_scores(self, device: Device) -> Self {
        self.chosen(device, false)
    }

    /// The tensor kind in which a frozen vision tower computes on `device`; `Float8e4m3fn` is for the products in its blocks only.
    pub fn frozen_kind(self, device: Device) -> Kind {
        match self.chosen(device, multiplies_bfloat16()) {
            Self::Float8Vision => Kind::Float8e4m3fn,
            Self::Bfloat16 | Self::Bfloat16Vision => Kind::BFloat16,
            Self::Float32 | Self::Auto => Kind::Float,
        }
    }

    /// The tensor kind in which all other towers compute on `device`.
    pub fn kind(self, device: Device) -> Kind {
        match self.for_scores(device) {
            Self::Bfloat16 => Kind::BFloat16,
            Self::Float8Vision if device.is_cuda() => Kind::BFloat16,
            Self::Float32 | Self::Bfloat16Vision | Self::Float8Vision | Self::Auto => Kind::Float,
        }
    }

    /// In words; `None` for `auto`, which says nothing.
    pub fn describe(self) -> Option<&'static str> {
        match self {
            Self::Auto => None,
            Self::Float32 => Some("float32"),
            Self::Bfloat16 => Some("bfloat16"),
            Self::Bfloat16Vision => Some("bfloat16 for the frozen vision tower, float32 for everything else"),
            Self::Float8Vision => Some(
                "float8 for the products in the blocks of the frozen vision tower, bfloat16 for its other parts; everything else in \
                 bfloat16 on a GPU, in float32 on a CPU",
            ),
        }
    }
}

/// Whether this processor multiplies matrices in bfloat16 (AVX512-BF16, which every processor with AMX has too). Others compute
/// bfloat16 with instructions for float32, which is slower than float32.
pub fn multiplies_bfloat16() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::arch::is_x86_feature_detected!("avx512bf16");
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// Why there is no CUDA, and how to get it.
const CPU_ONLY: &str = "this libtorch is CPU-only. Install PyTorch 2.11 with CUDA and link .torch to it: \
    python3 -m venv cuda && cuda/bin/pip install 'torch==2.11.0' && rm -r .torch && \
    ln -s \"$PWD\"/cuda/lib/python3.*/site-packages .torch";

/// The device called `name`: `auto` (the first GPU if there is one, otherwise the CPU), `cpu`, `cuda` or `cuda:N`.
///
/// Call this before any tensor is created: libtorch looks for GPUs only once, when first asked.
pub fn open(name: &str) -> Result<Device> {
    let refuse = |problem: String| Error::Device { device: name.to_owned(), problem };
    let index = match name {
        "cpu" => return Ok(Device::Cpu),
        "auto" | "cuda" => 0,
        _ => name.strip_prefix("cuda:").and_then(|n| n.parse().ok()).ok_or_else(|| Error::Setting {
            name: "device".to_owned(),
            problem: format!("is {name}; it must be auto, cpu, cuda or cuda:N"),
        })?,
    };
    let loaded = torch::load_cuda();
    let count = if loaded.is_ok() { Cuda::device_count() } else { 0 };
    if count > index as i64 {
        torch::full_float32()?;
        return Ok(Device::Cuda(index));
    }
    match (name, loaded) {
        ("auto", _) => Ok(Device::Cpu),
        (_, Err(why)) => Err(refuse(format!("{CPU_ONLY} ({why})"))),
        (_, Ok(())) if count == 0 => {
            Err(refuse("libtorch finds no GPU; check the driver with nvidia-smi".to_owned()))
        }
        (_, Ok(())) => Err(refuse(format!("this machine has {count} GPUs, numbered from 0"))),
    }
}

/// The same for one of several processes on a machine: without a number, the GPU with the number `local_rank`.
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

/// Copies a tensor to the device without waiting for the kernels that are running there; a copy from memory that is not pinned
/// would wait for them.
pub fn send(tensor: &Tensor, device: Device) -> Tensor {
    if !device.is_cuda() {
        return tensor.shallow_clone();
    }
    match torch::pin(&tensor.contiguous()) {
        Ok(pinned) => pinned.to_device_(device, tensor.kind(), true, false),
        // If no memory can be pinned, the slower copy still works.
        Err(_) => tensor.to_device(device),
    }
}

/// The values of a tensor on the host, in order.
pub fn to_vec(tensor: &Tensor) -> Vec<f32> {
    let tensor = tensor.detach().to_device(Device::Cpu).to_kind(Kind::Float).contiguous();
    let mut out = vec![0.0; tensor.numel()];
    tensor.copy_data(&mut out, tensor.numel());
    out
}

/// Peak memory in bytes: of tensors on a GPU, of the whole process on a CPU. 0 if the system does not tell.
pub fn peak_memory(device: Device) -> u64 {
    if let Device::Cuda(index) = device {
        return torch::peak_memory(index).unwrap_or(0);
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
    kilobytes.unwrap_or(0) * 1024
}

/// Limits libtorch to `threads` CPU threads; 0 keeps its default, one per core, but not more than the CPU limit of a container
/// (cgroup) allows, of which libtorch does not know.
pub fn limit_threads(threads: usize) {
    let default = tch::get_num_threads().max(1) as usize;
    let allowed = std::thread::available_parallelism().map_or(default, usize::from);
    let chosen = std::env::var_os("OMP_NUM_THREADS").is_some();
    let wanted = threads_to_use(threads, default, if chosen { default } else { allowed });
    if wanted != default {
        tch::set_num_threads(wanted as i32);
    }
}

fn threads_to_use(wanted: usize, default: usize, allowed: usize) -> usize {
    if wanted > 0 { wanted } else { default.min(allowed) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auto_is_bfloat16_only_where_it_is_fast() {
        let (cpu, gpu) = (Device::Cpu, Device::Cuda(0));
        let auto = Precision::Auto;
        assert_eq!(auto.chosen(cpu, true), Precision::Bfloat16Vision);
        assert_eq!(auto.chosen(cpu, false), Precision::Float32);
        assert_eq!(auto.chosen(gpu, false), Precision::Bfloat16);
        assert_eq!(auto.for_scores(cpu), Precision::Float32);
        assert_eq!(auto.kind(cpu), Kind::Float, "trained towers");
        for multiplies in [true, false] {
            for given in
                [Precision::Float32, Precision::Bfloat16, Precision::Bfloat16Vision, Precision::Float8Vision]
            {
                assert_eq!((given.chosen(cpu, multiplies), given.chosen(gpu, multiplies)), (given, given));
            }
            for device in [cpu, gpu] {
                assert_ne!(auto.chosen(device, multiplies), Precision::Float8Vision);
            }
        }
        let kinds = |precision: Precision| (precision.frozen_kind(cpu), precision.kind(cpu));
        assert_eq!(kinds(Precision::Float32), (Kind::Float, Kind::Float));
        assert_eq!(kinds(Precision::Bfloat16Vision), (Kind::BFloat16, Kind::Float));
        assert_eq!(kinds(Precision::Bfloat16), (Kind::BFloat16, Kind::BFloat16));
        let float8 = Precision::Float8Vision;
        assert_eq!(kinds(float8), (Kind::Float8e4m3fn, Kind::Float));
        assert_eq!((float8.frozen_kind(gpu), float8.kind(gpu)), (Kind::Float8e4m3fn, Kind::BFloat16));
    }

    /// Linux says the same about its processor.
    #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
    #[test]
    fn the_processor_is_asked() {
        let text = std::fs::read_to_string("/proc/cpuinfo").unwrap();
        let flags = text.lines().find(|line| line.starts_with("flags")).unwrap();
        assert_eq!(multiplies_bfloat16(), flags.split_whitespace().any(|flag| flag == "avx512_bf16"));
    }

    #[test]
    fn a_container_has_no_more_threads_than_its_limit() {
        assert_eq!(threads_to_use(0, 16, 16), 16);
        assert_eq!(threads_to_use(0, 16, 2), 2, "a CPU limit of 2 on a machine with 16 cores");
        assert_eq!(threads_to_use(0, 8, 16), 8, "libtorch counts cores, not hardware threads");
        assert_eq!(threads_to_use(6, 16, 2), 6, "what the user asks for");
    }
}
