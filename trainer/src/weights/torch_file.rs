//! Reads PyTorch files (`.pth`, `.pt`, `.bin`): a zip archive with a pickle, and one file per tensor storage. No code in the pickle is
//! executed. From TorchScript archives only the tensors are read.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use tch::{Kind, Tensor};
use zip::{CompressionMethod, ZipArchive};

use super::pickle::{self, Node, Pickle, Value};
use crate::error::{Error, Result, reading};

/// Keys under which training programs store the state dict, in order of preference.
const STATE: [&str; 7] = ["state_dict", "model_state_dict", "model", "denoiser", "teacher", "module", "ema"];
/// Prefixes that wrapper modules add to every key.
const WRAPPERS: [&str; 4] = ["module.", "_orig_mod.", "model.", "backbone."];
/// Maximum nesting of dictionaries.
const MAX_DEPTH: usize = 64;
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
    let mut found = Found { pickle: &pickle, tensors: Vec::new(), visited: 0 };
    found.collect(&state(&pickle), String::new(), 0).map_err(problem)?;
    let mut storages = Storages { archive, folder, read: HashMap::new() };
    let mut tensors = BTreeMap::new();
    let mut total = 0u64;
    for (name, place) in found.tensors {
        let tensor =
            storages.tensor(&pickle, place).map_err(|why| problem(format!("tensor {name}: {why}")))?;
        total += (tensor.numel() * tensor.kind().elt_size_in_bytes()) as u64;
        if total > MAX_SHARED * length {
            let why =
                format!("is refused: its tensors are more than {MAX_SHARED} times as large as the file");
            return Err(problem(why));
        }
        tensors.insert(name, tensor);
    }
    if tensors.is_empty() {
        return Err(problem("contains no named tensors".to_owned()));
    }
    Ok(unwrapped(tensors))
}

/// An uncompressed file in the archive.
fn record(
    archive: &mut ZipArchive<BufReader<File>>,
    name: &str,
    most: u64,
) -> std::result::Result<Vec<u8>, String> {
    let mut entry = archive.by_name(name).map_err(|e| format!("{name}: {e}"))?;
    if entry.compression() != CompressionMethod::Stored {
        return Err(format!("{name} is compressed, which PyTorch files never are"));
    }
    let size = entry.size();
    if size > most {
        return Err(format!("{name} has {size} bytes; the limit is {most}"));
    }
    // No allocation of `size` bytes in advance: the header may be wrong.
    let mut bytes = Vec::new();
    entry.read_to_end(&mut bytes).map_err(|e| format!("{name}: {e}; download the file again"))?;
    Ok(bytes)
}

/// The state dict in the saved object.
fn state(pickle: &Pickle) -> Value {
    let mut value = pickle.root.clone();
    for _ in 0..MAX_DEPTH {
        let Some(Node::Dictionary(items)) = node(pickle, &value) else { break };
        let is_tensor = |value: &Value| matches!(node(pickle, value), Some(Node::Tensor(_)));
        if items.iter().any(|(_, value)| is_tensor(value)) {
            break;
        }
        let inside = STATE.iter().find_map(|wanted| {
            items.iter().find_map(|(key, value)| match (key, node(pickle, value)) {
                (Value::Text(key), Some(Node::Dictionary(_))) if &**key == *wanted => Some(value.clone()),
                _ => None,
            })
        });
        match inside {
            Some(inside) => value = inside,
            None => break,
        }
    }
    value
}

fn node<'a>(pickle: &'a Pickle, value: &Value) -> Option<&'a Node> {
    match value {
        Value::Node(node) => pickle.nodes.get(*node),
        _ => None,
    }
}

/// Collects tensors with their dotted keys.
struct Found<'a> {
    pickle: &'a Pickle,
    tensors: Vec<(String, &'a [Value])>,
    visited: usize,
}

impl Found<'_> {
    fn collect(&mut self, value: &Value, name: String, depth: usize) -> std::result::Result<(), String> {
        self.visited += 1;
        if depth > MAX_DEPTH || self.visited > self.pickle.nodes.len() + (1 << 20) {
            return Err("has dictionaries that are nested too deeply".to_owned());
        }
        match node(self.pickle, value) {
            Some(Node::Tensor(place)) => self.tensors.push((name, place)),
            Some(Node::Dictionary(items)) => {
                for (key, value) in items {
                    // Entries with numbers as keys are optimizer states.
                    let Value::Text(key) = key else { continue };
                    let name = if name.is_empty() { key.to_string() } else { format!("{name}.{key}") };
                    self.collect(value, name, depth + 1)?;
                }
            }
            _ => {}
        }
        Ok(())
    }
}

/// The storages. Each is read once; tensors are views of it.
struct Storages {
    archive: ZipArchive<BufReader<File>>,
    folder: String,
    read: HashMap<String, Tensor>,
}

impl Storages {
    /// A tensor from the arguments of `_rebuild_tensor` (storage, offset, size, stride, ..).
    fn tensor(&mut self, pickle: &Pickle, place: &[Value]) -> std::result::Result<Tensor, String> {
        let [storage, Value::Integer(offset), size, stride, ..] = place else {
            return Err("has an unknown description".to_owned());
        };
        let Some(Node::Stored(storage)) = node(pickle, storage) else {
            return Err("has no storage".to_owned());
        };
        let storage = self.storage(pickle, storage)?;
        let (size, stride) = (integers(pickle, size)?, integers(pickle, stride)?);
        let (numbers, offset) = (storage.numel() as i64, *offset);
        if size.len() != stride.len() || size.iter().chain(&stride).any(|&n| n < 0) || offset < 0 {
            return Err(format!("has size {size:?}, stride {stride:?} and offset {offset}"));
        }
        let outside = || {
            format!(
                "size {size:?}, stride {stride:?}, offset {offset} exceed its storage of {numbers} numbers"
            )
        };
        let count = size.iter().try_fold(1i64, |n, &side| n.checked_mul(side)).ok_or_else(outside)?;
        let last = size.iter().zip(&stride).try_fold(offset, |last, (&side, &stride)| {
            last.checked_add((side - 1).max(0).checked_mul(stride)?)
        });
        // More numbers than the storage means repeated rows, which weights do not have.
        if count > numbers || (count > 0 && last.is_none_or(|last| last >= numbers)) {
            return Err(outside());
        }
        storage.f_as_strided(&size, &stride, offset.min(numbers)).map_err(|e| e.to_string())
    }

    /// A storage from a persistent id ("storage", kind, file, device, count).
    fn storage(&mut self, pickle: &Pickle, id: &Value) -> std::result::Result<Tensor, String> {
        let Some(Node::Tuple(parts)) = node(pickle, id) else {
            return Err("has a storage without a description".to_owned());
        };
        let [Value::Text(what), Value::Name(kind), Value::Text(file), _, Value::Integer(numbers)] =
            &parts[..]
        else {
            return Err("has a storage with an unknown description".to_owned());
        };
        if &**what != "storage" || file.contains('/') {
            return Err(format!("has an unknown kind of storage, {what} {file}"));
        }
        let kind = kind_of(kind)?;
        if let Some(read) = self.read.get(&**file) {
            return if (read.kind(), read.numel() as i64) == (kind, *numbers) {
                Ok(read.shallow_clone())
            } else {
                Err(format!("shares storage {file} with another kind or size"))
            };
        }
        let bytes = record(&mut self.archive, &format!("{}data/{file}", self.folder), u64::MAX)?;
        let fits = numbers.checked_mul(kind.elt_size_in_bytes() as i64) == Some(bytes.len() as i64);
        if !fits {
            return Err(format!(
                "storage {file} has {} bytes instead of {numbers} numbers of kind {kind:?}",
                bytes.len()
            ));
        }
        let tensor = Tensor::f_from_data_size(&bytes, &[*numbers], kind).map_err(|e| e.to_string())?;
        self.read.insert(file.to_string(), tensor.shallow_clone());
        Ok(tensor)
    }
}

fn integers(pickle: &Pickle, value: &Value) -> std::result::Result<Vec<i64>, String> {
    let Some(Node::Tuple(values) | Node::List(values)) = node(pickle, value) else {
        return Err("has no size".to_owned());
    };
    values
        .iter()
        .map(|value| match value {
            Value::Integer(n) => Ok(*n),
            _ => Err("has a size that is not a number".to_owned()),
        })
        .collect()
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

/// Removes a prefix that all keys have.
fn unwrapped(mut tensors: BTreeMap<String, Tensor>) -> BTreeMap<String, Tensor> {
    while let Some(wrapper) =
        WRAPPERS.iter().find(|wrapper| tensors.keys().all(|name| name.starts_with(**wrapper)))
    {
        tensors =
            tensors.into_iter().map(|(name, tensor)| (name[wrapper.len()..].to_owned(), tensor)).collect();
    }
    tensors
}
