//! Weights in PyTorch's own files (`.pth`, `.pt`, `.bin`): a zip archive with a pickle of what was saved, and one file
//! for the numbers of each storage. Nothing in it is run; TorchScript archives are read for their tensors alone.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use tch::{Kind, Tensor};
use zip::{CompressionMethod, ZipArchive};

use super::pickle::{self, Node, Pickle, Value};
use crate::error::{Error, Result, at};

/// Where training programs put the state dictionary among the rest of what they save, in order of preference.
const STATE: [&str; 7] = ["state_dict", "model_state_dict", "model", "denoiser", "teacher", "module", "ema"];
/// What wrappers put before every name.
const WRAPPERS: [&str; 4] = ["module.", "_orig_mod.", "model.", "backbone."];
/// No state dictionary is nested more deeply.
const DEEPEST: usize = 64;
/// Tensors may share a storage (tied weights), but not so often that a small file fills memory.
const MOST_SHARED: u64 = 8;
/// Largest pickle; those of published checkpoints are below 1 MiB.
const LARGEST_PICKLE: u64 = 64 << 20;

/// Reads every tensor of the state dictionary, by name, on the CPU.
pub(super) fn read(path: &Path) -> Result<BTreeMap<String, Tensor>> {
    let problem = |problem: String| Error::Weights { path: path.to_owned(), problem };
    let file = File::open(path).map_err(at(path))?;
    let length = file.metadata().map_err(at(path))?.len();
    let mut archive = ZipArchive::new(BufReader::new(file))
        .map_err(|e| problem(format!("no whole PyTorch file: {e}; fetch it again")))?;
    let pickled = archive
        .file_names()
        .filter_map(|name| name.ok().map(std::borrow::Cow::into_owned))
        .find(|name| name == "data.pkl" || name.ends_with("/data.pkl"))
        .ok_or_else(|| problem("a zip archive without data.pkl: no PyTorch file".to_owned()))?;
    let folder = pickled.trim_end_matches("data.pkl").to_owned();
    if let Ok(order) = record(&mut archive, &format!("{folder}byteorder"), 16)
        && order != b"little"
    {
        return Err(problem("its numbers are big-endian; save it again on another machine".to_owned()));
    }
    let pickle = record(&mut archive, &pickled, LARGEST_PICKLE)
        .and_then(|bytes| pickle::read(&bytes))
        .map_err(problem)?;
    let mut found = Found { pickle: &pickle, tensors: Vec::new(), visited: 0 };
    found.collect(&state(&pickle), String::new(), 0).map_err(problem)?;
    let mut storages = Storages { archive, folder, read: HashMap::new() };
    let mut tensors = BTreeMap::new();
    let mut total = 0u64;
    for (name, place) in found.tensors {
        let tensor =
            storages.tensor(&pickle, place).map_err(|why| problem(format!("tensor {name}: {why}")))?;
        total += (tensor.numel() * tensor.kind().elt_size_in_bytes()) as u64;
        if total > MOST_SHARED * length {
            return Err(problem("its tensors share storages so often that they are no weights".to_owned()));
        }
        tensors.insert(name, tensor);
    }
    if tensors.is_empty() {
        return Err(problem("holds no tensors under names".to_owned()));
    }
    Ok(unwrapped(tensors))
}

/// A stored (never compressed) file of the archive.
fn record(
    archive: &mut ZipArchive<BufReader<File>>,
    name: &str,
    most: u64,
) -> std::result::Result<Vec<u8>, String> {
    let mut entry = archive.by_name(name).map_err(|e| format!("{name}: {e}"))?;
    if entry.compression() != CompressionMethod::Stored {
        return Err(format!("{name} is compressed, which PyTorch never does"));
    }
    let size = entry.size();
    if size > most {
        return Err(format!("{name} has {size} bytes, more than {most}"));
    }
    // Not `size` in one go: the archive only claims it.
    let mut bytes = Vec::new();
    entry.read_to_end(&mut bytes).map_err(|e| format!("{name}: {e}; fetch the file again"))?;
    Ok(bytes)
}

/// The state dictionary inside what was saved.
fn state(pickle: &Pickle) -> Value {
    let mut value = pickle.root.clone();
    for _ in 0..DEEPEST {
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

/// Collects tensors and their dotted names.
struct Found<'a> {
    pickle: &'a Pickle,
    tensors: Vec<(String, &'a [Value])>,
    visited: usize,
}

impl Found<'_> {
    fn collect(&mut self, value: &Value, name: String, depth: usize) -> std::result::Result<(), String> {
        self.visited += 1;
        if depth > DEEPEST || self.visited > self.pickle.nodes.len() + (1 << 20) {
            return Err("its dictionaries are nested without end".to_owned());
        }
        match node(self.pickle, value) {
            Some(Node::Tensor(place)) => self.tensors.push((name, place)),
            Some(Node::Dictionary(items)) => {
                for (key, value) in items {
                    // Numbered entries are optimizer states.
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

/// The numbers, each storage read once: tensors are views of it.
struct Storages {
    archive: ZipArchive<BufReader<File>>,
    folder: String,
    read: HashMap<String, Tensor>,
}

impl Storages {
    /// A tensor of `_rebuild_tensor`'s arguments (storage, offset, size, stride, ..).
    fn tensor(&mut self, pickle: &Pickle, place: &[Value]) -> std::result::Result<Tensor, String> {
        let [storage, Value::Integer(offset), size, stride, ..] = place else {
            return Err("is not described as PyTorch does".to_owned());
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
        let outside =
            || format!("size {size:?}, stride {stride:?} at {offset} is outside its storage of {numbers}");
        let count = size.iter().try_fold(1i64, |n, &side| n.checked_mul(side)).ok_or_else(outside)?;
        let last = size.iter().zip(&stride).try_fold(offset, |last, (&side, &stride)| {
            last.checked_add((side - 1).max(0).checked_mul(stride)?)
        });
        // More numbers than the storage: rows that repeat, which weights do not.
        if count > numbers || (count > 0 && last.is_none_or(|last| last >= numbers)) {
            return Err(outside());
        }
        storage.f_as_strided(&size, &stride, offset.min(numbers)).map_err(|e| e.to_string())
    }

    /// A whole storage of a persistent id ("storage", kind, file, device, numbers).
    fn storage(&mut self, pickle: &Pickle, id: &Value) -> std::result::Result<Tensor, String> {
        let Some(Node::Tuple(parts)) = node(pickle, id) else {
            return Err("has a storage without a place".to_owned());
        };
        let [Value::Text(what), Value::Name(kind), Value::Text(file), _, Value::Integer(numbers)] =
            &parts[..]
        else {
            return Err("has a storage that is not described as PyTorch does".to_owned());
        };
        if &**what != "storage" || file.contains('/') {
            return Err(format!("has a storage {what} {file}"));
        }
        let kind = kind_of(kind)?;
        if let Some(read) = self.read.get(&**file) {
            return if (read.kind(), read.numel() as i64) == (kind, *numbers) {
                Ok(read.shallow_clone())
            } else {
                Err(format!("shares storage {file} in another kind or size"))
            };
        }
        let bytes = record(&mut self.archive, &format!("{}data/{file}", self.folder), u64::MAX)?;
        let fits = numbers.checked_mul(kind.elt_size_in_bytes() as i64) == Some(bytes.len() as i64);
        if !fits {
            return Err(format!(
                "storage {file} has {} bytes, not {numbers} numbers of {kind:?}",
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
            _ => Err("has a size that is no number".to_owned()),
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
        _ => return Err(format!("has numbers of a kind that is not read here: {storage}")),
    })
}

/// Without the prefix that every name carries.
fn unwrapped(mut tensors: BTreeMap<String, Tensor>) -> BTreeMap<String, Tensor> {
    while let Some(wrapper) =
        WRAPPERS.iter().find(|wrapper| tensors.keys().all(|name| name.starts_with(**wrapper)))
    {
        tensors =
            tensors.into_iter().map(|(name, tensor)| (name[wrapper.len()..].to_owned(), tensor)).collect();
    }
    tensors
}
