//! Reads PyTorch files (`.pth`, `.pt`, `.bin`): a zip archive with a pickle, and one file per tensor storage. No code in the pickle is
//! executed. From TorchScript archives only the tensors are read.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use tch::{Kind, Tensor};
use zip::{CompressionMethod, ZipArchive};

use super::pickle;
use super::state_dict::{self, Place};
use crate::error::{Error, Result, reading};

/// Tensors may share a storage (tied weights), but in total they may be at most this many times as large as the file, so that a
/// small file cannot fill the memory.
const MAX_SHARED: u64 = 8;
/// Maximum size of a pickle in bytes; those of published checkpoints are below 1 MiB.
const MAX_PICKLE: u64 = 64 << 20;

/// Reads all tensors of the state dict of `file`, on the CPU; `path` is its name in errors.
pub(super) fn read(path: &Path, file: &Path) -> Result<BTreeMap<String, Tensor>> {
    let problem = |problem: String| Error::Weights { path: path.to_owned(), problem };
    let file = File::open(file).map_err(reading(path))?;
    let length = file.metadata().map_err(reading(path))?.len();
    let mut archive = ZipArchive::new(BufReader::new(file))
        .map_err(|e| problem(format!("is not a complete PyTorch file: {e}; download it again")))?;
    let pickled = archive
        .file_names()
        .filter_map(|name| name.ok().map(std::borrow::Cow::into_owned))
        .find(|name| name == "data.pkl" || name.ends_with("/data.pkl"))
        .ok_or_else(|| {
            problem("is a zip archive without data.pkl, so it is not a PyTorch file".to_owned())
        })?;
    let folder = pickled.trim_end_matches("data.pkl").to_owned();
    if let Ok(order) = record(&mut archive, &format!("{folder}byteorder"), 16)
        && order != b"little"
    {
        return Err(problem(
            "has big-endian numbers, which are not supported; save it again on another machine".to_owned(),
        ));
    }
    let pickle =
        record(&mut archive, &pickled, MAX_PICKLE).and_then(|bytes| pickle::read(&bytes)).map_err(problem)?;
    let places = state_dict::tensors(&pickle).map_err(problem)?;
    let mut storages = Storages { archive, folder, left: length, read: HashMap::new() };
    let mut tensors = BTreeMap::new();
    let mut total = 0u64;
    for (name, place) in places {
        let tensor = storages.tensor(&place).map_err(|why| problem(format!("tensor {name}: {why}")))?;
        total += (tensor.numel() * tensor.kind().elt_size_in_bytes()) as u64;
        if total > MAX_SHARED * length {
            let why =
                format!("is refused: its tensors are more than {MAX_SHARED} times as large as the file");
            return Err(problem(why));
        }
        tensors.insert(name, tensor);
    }
    Ok(tensors)
}

/// An uncompressed file in the archive.
pub(super) fn record(
    archive: &mut ZipArchive<BufReader<File>>,
    name: &str,
    most: u64,
) -> std::result::Result<Vec<u8>, String> {
    let mut entry = archive.by_name(name).map_err(|e| format!("{name}: {e}"))?;
    if entry.compression() != CompressionMethod::Stored {
        return Err(format!("{name} is compressed, which weights files never are"));
    }
    let size = entry.size();
    if size > most {
        return Err(format!("{name} has {size} bytes; the limit is {most}"));
    }
    // No allocation of `size` bytes in advance, and an end: the header may be wrong.
    let mut bytes = Vec::new();
    let read = (&mut entry).take(most.saturating_add(1)).read_to_end(&mut bytes);
    let read = read.map_err(|e| format!("{name}: {e}; download the file again"))?;
    if read as u64 > most {
        return Err(format!("{name} has more bytes than it says; the limit is {most}"));
    }
    Ok(bytes)
}

/// The storages. Each is read once; tensors are views of it.
struct Storages {
    archive: ZipArchive<BufReader<File>>,
    folder: String,
    /// Bytes that storages may still have: together no more than the file, in which a hostile archive has one several times.
    left: u64,
    read: HashMap<String, Tensor>,
}

impl Storages {
    /// The tensor at this place, which is inside its storage if the storage is as large as the place says.
    fn tensor(&mut self, place: &Place) -> std::result::Result<Tensor, String> {
        let storage = self.storage(place)?;
        storage
            .f_as_strided(&place.size, &place.stride, place.offset.min(place.numbers))
            .map_err(|e| e.to_string())
    }

    fn storage(&mut self, place: &Place) -> std::result::Result<Tensor, String> {
        let (kind, file, numbers) = (kind_of(&place.kind)?, &place.file, place.numbers);
        if let Some(read) = self.read.get(&**file) {
            return if (read.kind(), read.numel() as i64) == (kind, numbers) {
                Ok(read.shallow_clone())
            } else {
                Err(format!("shares storage {file} with another kind or size"))
            };
        }
        let bytes = record(&mut self.archive, &format!("{}data/{file}", self.folder), self.left)
            .map_err(|why| format!("{why} (all storages together may have no more bytes than the file)"))?;
        self.left -= bytes.len() as u64;
        let fits = numbers.checked_mul(kind.elt_size_in_bytes() as i64) == Some(bytes.len() as i64);
        if !fits {
            return Err(format!(
                "storage {file} has {} bytes instead of {numbers} numbers of kind {kind:?}",
                bytes.len()
            ));
        }
        let tensor = Tensor::f_from_data_size(&bytes, &[numbers], kind).map_err(|e| e.to_string())?;
        self.read.insert(file.to_string(), tensor.shallow_clone());
        Ok(tensor)
    }
}

fn kind_of(storage: &str) -> std::result::Result<Kind, String> {
    Ok(match storage.strip_prefix("torch.").unwrap_or(storage) {
        "FloatStorage" => Kind::Float,
        "HalfStorage" => Kind::Half,
        "BFloat16Storage" => Kind::BFloat16,
        "DoubleStorage" => Kind::Double,
        "LongStorage" => Kind::Int64,
        "IntStorage" => Kind::Int,
        "ShortStorage" => Kind::Int16,
        "CharStorage" => Kind::Int8,
        "ByteStorage" => Kind::Uint8,
        "BoolStorage" => Kind::Bool,
        _ => return Err(format!("has an unsupported kind of numbers, {storage}")),
    })
}
