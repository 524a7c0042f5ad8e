//! Named tensors in files: safetensors and PyTorch's are read, with every missing, extra or misshapen tensor named;
//! safetensors are written, whole or not at all.

pub mod convert;
pub mod download;
pub(crate) mod families;
mod pickle;
pub mod published;
mod torch_file;

pub use families::Family;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use tch::{Device, Tensor};

use crate::error::{Error, Result, at};
use families::{Named, full};

const UNKNOWN_FAMILY: &str = "its names are not DINOv2's, timm's, Hugging Face's, open_clip's or SimZSS's: there is no \
                              tensor patch_embed.proj.weight or token_embedding.weight";

/// The tensors of one file, taken out by name until none is left.
#[derive(Debug)]
pub struct Weights {
    path: PathBuf,
    tensors: Named,
}

impl Weights {
    /// Reads every tensor of a safetensors or PyTorch file to `device`.
    pub fn read(path: &Path, device: Device) -> Result<Self> {
        let tensors =
            tensors(path)?.into_iter().map(|(name, tensor)| (name, tensor.to_device(device))).collect();
        Ok(Self { path: path.to_owned(), tensors })
    }

    /// Around tensors that were read from `path`.
    pub(crate) fn of(path: &Path, tensors: Named) -> Self {
        Self { path: path.to_owned(), tensors }
    }

    /// The vision tower among them under DINOv2's names, whatever family named them.
    pub fn into_vision(self) -> Result<Self> {
        let Self { path, tensors } = self;
        let problem = |problem: &str| Error::Weights { path: path.clone(), problem: problem.to_owned() };
        match families::parts(tensors) {
            None => Err(problem(UNKNOWN_FAMILY)),
            Some((_, parts)) if parts.vision.is_empty() => Err(problem("holds no vision tower of DINOv2")),
            Some((_, parts)) => Ok(Self { path, tensors: parts.vision }),
        }
    }

    /// The text tower among them under open_clip's names, or the whole CLIP where it has a vision tower of its own.
    pub fn into_open_clip(self) -> Result<Self> {
        let Self { path, tensors } = self;
        match families::parts(tensors) {
            Some((_, parts)) if !parts.text.is_empty() => {
                Ok(Self { path, tensors: families::whole_clip(&parts) })
            }
            Some(_) => Err(Error::Weights { path, problem: "holds no text tower".to_owned() }),
            None => Err(Error::Weights { path, problem: UNKNOWN_FAMILY.to_owned() }),
        }
    }

    /// Size of a tensor, without taking it: how a tower learns its width and depth.
    pub fn size(&self, name: &str) -> Result<Vec<i64>> {
        self.tensors
            .get(name)
            .map(Tensor::size)
            .ok_or_else(|| self.problem(format!("tensor {name} is missing")))
    }

    /// Whether a tensor of that name is left.
    pub fn has(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// Takes a tensor of exactly this size out; half precision comes as float32.
    pub fn take(&mut self, name: &str, size: &[i64]) -> Result<Tensor> {
        let found = self.size(name)?;
        if found != size {
            return Err(self.problem(format!("tensor {name} is {found:?} and must be {size:?}")));
        }
        self.tensors.remove(name).map(full).ok_or_else(|| self.problem(format!("tensor {name} is missing")))
    }

    /// Takes every tensor whose name starts with `prefix` out, under the rest of its name.
    #[must_use]
    pub fn take_below(&mut self, prefix: &str) -> Self {
        let names: Vec<String> =
            self.tensors.keys().filter(|name| name.starts_with(prefix)).cloned().collect();
        let taken = names
            .iter()
            .filter_map(|name| Some((name.strip_prefix(prefix)?.to_owned(), self.tensors.remove(name)?)));
        let tensors = taken.collect();
        Self { path: self.path.clone(), tensors }
    }

    /// The same tensors with `prefix` before their names.
    #[must_use]
    pub fn under(self, prefix: &str) -> Self {
        let tensors =
            self.tensors.into_iter().map(|(name, tensor)| (format!("{prefix}{name}"), tensor)).collect();
        Self { path: self.path, tensors }
    }

    /// Refuses the file when tensors are left that nobody took, other than `ignored`.
    pub fn finish(self, ignored: &[&str]) -> Result<()> {
        match self.tensors.keys().find(|name| !ignored.contains(&name.as_str())) {
            None => Ok(()),
            Some(name) => Err(self.problem(format!("tensor {name} belongs to no part of this tower"))),
        }
    }

    /// An error about this file.
    pub fn problem(&self, problem: String) -> Error {
        Error::Weights { path: self.path.clone(), problem }
    }
}

/// Every tensor of a file by name, on the CPU, in the kind it is stored in; what kind of file it is shows in its first
/// bytes, not in its name.
pub fn tensors(path: &Path) -> Result<BTreeMap<String, Tensor>> {
    let problem = |problem: String| Error::Weights { path: path.to_owned(), problem };
    let mut start = Vec::new();
    File::open(path).and_then(|file| file.take(4).read_to_end(&mut start)).map_err(at(path))?;
    match start[..] {
        [b'P', b'K', ..] => torch_file::read(path),
        [0x80, 2..=5, b'\x8a' | b'c' | b'}' | b']', ..] => Err(problem(
            "PyTorch's format before 1.6, or another pickle; load it with a PyTorch you trust and save it again".to_owned(),
        )),
        _ => {
            let named = Tensor::read_safetensors(path).map_err(|error| {
                let error = error.to_string();
                problem(format!(
                    "neither a safetensors nor a PyTorch file, or a damaged one: {}",
                    error.lines().next().unwrap_or_default()
                ))
            })?;
            Ok(named.into_iter().collect())
        }
    }
}

/// Writes named tensors as a safetensors file that appears whole or not at all.
pub fn write(path: &Path, named: &[(String, Tensor)]) -> Result<()> {
    let temporary = concepts::files::temporary_path(path);
    let contiguous: Vec<(&str, Tensor)> = named
        .iter()
        .map(|(name, tensor)| (name.as_str(), tensor.detach().to_device(Device::Cpu).contiguous()))
        .collect();
    let written = Tensor::write_safetensors(&contiguous, &temporary).map_err(Error::from).and_then(|()| {
        File::open(&temporary).and_then(|file| file.sync_all()).map_err(at(&temporary))?;
        fs::rename(&temporary, path).map_err(at(path))
    });
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written
}

/// SHA-256 of a file, in hexadecimal: what a checkpoint remembers of the frozen tower it was trained beside.
pub fn sha256(path: &Path) -> Result<String> {
    let mut file = File::open(path).map_err(at(path))?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer).map_err(at(path))? {
            0 => break,
            read => hash.update(&buffer[..read]),
        }
    }
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}
