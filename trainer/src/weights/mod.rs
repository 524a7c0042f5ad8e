//! Weights files. Reads PyTorch, safetensors and NumPy files; errors name every tensor that is missing, unexpected or has the wrong shape.
//! Writes safetensors files, which appear under their final name when they are complete.

pub mod download;
pub(crate) mod families;
mod npz_file;
mod pickle;
pub mod published;
mod safetensors_file;
mod state_dict;
mod torch_file;

pub use families::Family;
pub(crate) use pickle::from_slice as plain_pickle;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use disk::files::AtomicFile;
use safetensors::tensor::{Dtype, SafeTensorError, TensorView, View, serialize_to_file};
use sha2::{Digest, Sha256};
use tch::{Device, Kind, Tensor};

use crate::error::{Error, Result, reading, writing};
use families::{Named, full};

pub(crate) const UNKNOWN_FAMILY: &str = "its state-dict keys are not those of DINOv2, DINOv3, SigLIP, timm, Hugging Face, open_clip, AugReg or SimZSS: there is \
                              neither patch_embed.proj.weight nor token_embedding.weight";

/// The tensors of a file. A tower takes its tensors out by name; then none may be left.
#[derive(Debug)]
pub struct Weights {
    path: PathBuf,
    tensors: Named,
}

impl Weights {
    /// Reads all tensors of a PyTorch, safetensors or NumPy file to `device`.
    pub fn read(path: &Path, device: Device) -> Result<Self> {
        let tensors =
            tensors(path)?.into_iter().map(|(name, tensor)| (name, tensor.to_device(device))).collect();
        Ok(Self { path: path.to_owned(), tensors })
    }

    /// With tensors that were read from `path`.
    pub(crate) fn of(path: &Path, tensors: Named) -> Self {
        Self { path: path.to_owned(), tensors }
    }

    /// The vision tower with DINOv2's, DINOv3's or SigLIP's state-dict keys, from a file of any family; also returns the family.
    pub fn into_vision(self) -> Result<(Family, Self)> {
        let Self { path, tensors } = self;
        let problem = |problem: &str| Error::Weights { path: path.clone(), problem: problem.to_owned() };
        match families::parts(tensors) {
            None => Err(problem(UNKNOWN_FAMILY)),
            Some((_, parts)) if parts.vision.is_empty() => {
                Err(problem("contains no vision tower of DINOv2, DINOv3 or SigLIP"))
            }
            Some((family, parts)) => Ok((family, Self { path, tensors: parts.vision })),
        }
    }

    /// The text tower with open_clip's state-dict keys, together with CLIP's vision tower if the file has one.
    pub fn into_open_clip(self) -> Result<Self> {
        let Self { path, tensors } = self;
        match families::parts(tensors) {
            Some((_, parts)) if !parts.text.is_empty() => {
                Ok(Self { path, tensors: families::whole_clip(&parts) })
            }
            Some(_) => Err(Error::Weights { path, problem: "contains no text tower".to_owned() }),
            None => Err(Error::Weights { path, problem: UNKNOWN_FAMILY.to_owned() }),
        }
    }

    /// The text tower alone with open_clip's state-dict keys; also returns whether the file is one of OpenAI's.
    pub fn into_text(self) -> Result<(bool, Self)> {
        let Self { path, tensors } = self;
        match families::parts(tensors) {
            Some((_, parts)) if !parts.text.is_empty() => {
                Ok((parts.are_openais(), Self { path, tensors: parts.text }))
            }
            Some((family, _)) => {
                let problem = format!("has the state-dict keys of {family}, and contains no text tower");
                Err(Error::Weights { path, problem })
            }
            None => Err(Error::Weights { path, problem: UNKNOWN_FAMILY.to_owned() }),
        }
    }

    /// Adds a tensor, or replaces the one of this name.
    pub fn set(&mut self, name: &str, tensor: Tensor) {
        self.tensors.insert(name.to_owned(), tensor);
    }

    /// Leaves a tensor out, if there is one of this name.
    pub fn leave_out(&mut self, name: &str) {
        self.tensors.remove(name);
    }

    /// Shape of a tensor, without taking it out. The width and depth of a tower follow from shapes.
    pub fn size(&self, name: &str) -> Result<Vec<i64>> {
        self.tensors
            .get(name)
            .map(Tensor::size)
            .ok_or_else(|| self.problem(format!("tensor {name} is missing")))
    }

    /// Whether there is a tensor with this name.
    pub fn has(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// Takes a tensor out, which must have this shape; half and double precision are converted to float32, and
    /// whole numbers are an error.
    pub fn take(&mut self, name: &str, size: &[i64]) -> Result<Tensor> {
        let found = self.size(name)?;
        if found != size {
            return Err(self.problem(format!("tensor {name} has the shape {found:?}; it must have {size:?}")));
        }
        let Some(tensor) = self.tensors.remove(name) else {
            return Err(self.problem(format!("tensor {name} is missing")));
        };
        let kind = tensor.kind();
        full(tensor).ok_or_else(|| {
            self.problem(format!(
                "tensor {name} holds numbers of kind {kind:?}; weights are floating-point numbers"
            ))
        })
    }

    /// Takes all tensors out whose names start with `prefix`, and removes the prefix.
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

    /// The same tensors with `prefix` added to their names.
    #[must_use]
    pub fn under(self, prefix: &str) -> Self {
        let tensors =
            self.tensors.into_iter().map(|(name, tensor)| (format!("{prefix}{name}"), tensor)).collect();
        Self { path: self.path, tensors }
    }

    /// An error if tensors are left, except for those in `ignored`.
    pub fn finish(self, ignored: &[&str]) -> Result<()> {
        match self.tensors.keys().find(|name| !ignored.contains(&name.as_str())) {
            None => Ok(()),
            Some(name) => Err(self.problem(format!("unexpected tensor {name}: this tower has no such part"))),
        }
    }

    /// An error about this file.
    pub fn problem(&self, problem: String) -> Error {
        Error::Weights { path: self.path.clone(), problem }
    }
}

/// The family of a file, by its state-dict keys.
pub fn family(path: &Path) -> Result<Family> {
    let parts = families::parts(tensors(path)?);
    let unknown = || Error::Weights { path: path.to_owned(), problem: UNKNOWN_FAMILY.to_owned() };
    parts.map(|(family, _)| family).ok_or_else(unknown)
}

/// All tensors of a file by name, on the CPU, in their stored kind. The format is detected from the first bytes, not from the file
/// name.
pub fn tensors(path: &Path) -> Result<BTreeMap<String, Tensor>> {
    let problem = |problem: String| Error::Weights { path: path.to_owned(), problem };
    let mut start = Vec::new();
    let file = storage::local_copy(path)?;
    File::open(&file).and_then(|file| file.take(4).read_to_end(&mut start)).map_err(reading(path))?;
    match start[..] {
        [b'P', b'K', ..] if npz_file::is_one(&file) => npz_file::read(path, &file),
        [b'P', b'K', ..] => torch_file::read(path, &file),
        [0x80, 2..=5, b'\x8a' | b'c' | b'}' | b']', ..] => Err(problem(
            "is in the format of PyTorch before 1.6, or another pickle; load it with PyTorch (only if you trust the file) and save it again".to_owned(),
        )),
        _ => {
            let bytes = fs::read(&file).map_err(reading(path))?;
            let views = safetensors_file::views(&bytes).map_err(|why| {
                problem(format!("is neither a PyTorch nor a safetensors file, or it is damaged: {why}"))
            })?;
            let named = |(name, view): (String, TensorView<'_>)| match tensor(&view) {
                Ok(tensor) => Ok((name, tensor)),
                Err(why) => Err(problem(format!("tensor {name} {why}"))),
            };
            views.into_iter().map(named).collect()
        }
    }
}

/// A tensor of a safetensors file, copied.
fn tensor(view: &TensorView<'_>) -> std::result::Result<Tensor, String> {
    let kind = match view.dtype() {
        Dtype::F32 => Kind::Float,
        Dtype::F64 => Kind::Double,
        Dtype::F16 => Kind::Half,
        Dtype::BF16 => Kind::BFloat16,
        Dtype::I64 => Kind::Int64,
        Dtype::I32 => Kind::Int,
        Dtype::I16 => Kind::Int16,
        Dtype::I8 => Kind::Int8,
        Dtype::U8 => Kind::Uint8,
        Dtype::BOOL => Kind::Bool,
        other => return Err(format!("has numbers of the kind {other:?}, which are not supported")),
    };
    let size: Vec<i64> = view.shape().iter().map(|&side| side as i64).collect();
    Tensor::f_from_data_size(view.data(), &size, kind).map_err(|error| {
        let error = error.to_string();
        error.lines().next().unwrap_or_default().to_owned()
    })
}

/// Writes tensors as a safetensors file, which appears under its final name when it is complete. What killed processes left
/// of earlier attempts is removed. For an address it is first written to the folder for temporary files.
pub fn write(path: &Path, named: &[(String, Tensor)]) -> Result<()> {
    if storage::Location::from(path).is_remote() {
        let place = std::env::temp_dir().join("simzss-weights");
        disk::files::clear_leftovers_of(&place);
        let (folder, _held) = disk::files::temporary_folder(&place).map_err(writing(&place))?;
        let made = folder.join(path.file_name().unwrap_or_default());
        let done = write(&made, named).and_then(|()| Ok(storage::upload(&made, path)?));
        let _ = fs::remove_dir_all(&folder);
        return done;
    }
    let stored: Vec<(&str, Stored)> = named
        .iter()
        .map(|(name, tensor)| Ok((name.as_str(), Stored::new(path, tensor)?)))
        .collect::<Result<_>>()?;
    disk::files::clear_leftovers_of(path);
    let file = AtomicFile::create(path).map_err(writing(path))?;
    serialize_to_file(stored, None, file.path()).map_err(|error| match error {
        SafeTensorError::IoError(error) => writing(path)(error),
        error => Error::Weights { path: path.to_owned(), problem: error.to_string() },
    })?;
    file.commit().map_err(writing(path))
}

/// A tensor as it is stored in a file.
struct Stored {
    tensor: Tensor,
    dtype: Dtype,
    shape: Vec<usize>,
}

impl Stored {
    fn new(path: &Path, tensor: &Tensor) -> Result<Self> {
        let tensor = tensor.detach().to_device(Device::Cpu).contiguous();
        let dtype = match tensor.kind() {
            Kind::Float => Dtype::F32,
            Kind::Double => Dtype::F64,
            Kind::Half => Dtype::F16,
            Kind::BFloat16 => Dtype::BF16,
            Kind::Int64 => Dtype::I64,
            Kind::Int => Dtype::I32,
            Kind::Int16 => Dtype::I16,
            Kind::Int8 => Dtype::I8,
            Kind::Uint8 => Dtype::U8,
            Kind::Bool => Dtype::BOOL,
            kind => {
                let problem = format!("tensors of the kind {kind:?} cannot be stored in safetensors files");
                return Err(Error::Weights { path: path.to_owned(), problem });
            }
        };
        let shape = tensor.size().into_iter().map(|side| side as usize).collect();
        Ok(Self { tensor, dtype, shape })
    }
}

impl View for Stored {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        let mut bytes = vec![0; self.data_len()];
        self.tensor.copy_data_u8(&mut bytes, self.tensor.numel());
        bytes.into()
    }

    fn data_len(&self) -> usize {
        self.tensor.numel() * self.tensor.kind().elt_size_in_bytes()
    }
}

/// SHA-256 of a file in hexadecimal. A checkpoint stores that of its frozen vision tower.
pub fn sha256(path: &Path) -> Result<String> {
    let mut file = File::open(storage::local_copy(path)?).map_err(reading(path))?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer).map_err(reading(path))? {
            0 => break,
            read => hash.update(&buffer[..read]),
        }
    }
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}
