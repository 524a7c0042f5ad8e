//! Named tensors in safetensors files: read with every missing, extra or misshapen tensor named, written
//! whole or not at all.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use tch::{Device, Tensor};

use crate::error::{Error, Result, at};

/// The tensors of one file, taken out by name until none is left.
#[derive(Debug)]
pub struct Weights {
    path: PathBuf,
    tensors: BTreeMap<String, Tensor>,
}

impl Weights {
    /// Reads every tensor of a safetensors file to `device`.
    pub fn read(path: &Path, device: Device) -> Result<Self> {
        // tch reports a missing file without its name.
        File::open(path).map_err(at(path))?;
        let named = Tensor::read_safetensors(path).map_err(|error| Error::Weights {
            path: path.to_owned(),
            problem: format!("no safetensors file: {}", error.to_string().lines().next().unwrap_or_default()),
        })?;
        let tensors = named.into_iter().map(|(name, tensor)| (name, tensor.to_device(device))).collect();
        Ok(Self { path: path.to_owned(), tensors })
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

    /// Takes a tensor of exactly this size out.
    pub fn take(&mut self, name: &str, size: &[i64]) -> Result<Tensor> {
        let found = self.size(name)?;
        if found != size {
            return Err(self.problem(format!("tensor {name} is {found:?} and must be {size:?}")));
        }
        self.tensors.remove(name).ok_or_else(|| self.problem(format!("tensor {name} is missing")))
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
