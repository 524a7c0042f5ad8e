//! Reads NumPy archives (`.npz`): a zip archive with one array per file, as JAX's programs save their weights. Nothing in them is executed:
//! arrays of Python objects are refused.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use tch::{Kind, Tensor};
use zip::ZipArchive;

use super::torch_file::record;
use crate::error::{Error, Result, reading};

/// Maximum number of sides of an array, NumPy's own.
const MAX_SIDES: usize = 64;
/// The end of the name of an array's file.
const ARRAY: &str = ".npy";

/// Whether a zip archive holds arrays, and no pickle as a PyTorch file does.
pub(super) fn is_one(file: &Path) -> bool {
    let Ok(file) = File::open(file) else { return false };
    let Ok(archive) = ZipArchive::new(BufReader::new(file)) else { return false };
    archive.file_names().filter_map(std::result::Result::ok).any(|name| name.ends_with(ARRAY))
}

/// Reads all arrays of `file`, on the CPU; `path` is its name in errors.
pub(super) fn read(path: &Path, file: &Path) -> Result<BTreeMap<String, Tensor>> {
    let problem = |problem: String| Error::Weights { path: path.to_owned(), problem };
    let file = File::open(file).map_err(reading(path))?;
    // Together the arrays have no more bytes than the file, in which a hostile archive has one several times.
    let mut left = file.metadata().map_err(reading(path))?.len();
    let mut archive = ZipArchive::new(BufReader::new(file))
        .map_err(|e| problem(format!("is not a complete NumPy archive: {e}; download it again")))?;
    let names: Vec<String> = archive
        .file_names()
        .filter_map(|name| name.ok().map(std::borrow::Cow::into_owned))
        .filter(|name| name.ends_with(ARRAY))
        .collect();
    let mut tensors = BTreeMap::new();
    for name in names {
        let bytes = record(&mut archive, &name, left).map_err(&problem)?;
        left -= bytes.len() as u64;
        let array = array(&bytes).map_err(|why| problem(format!("array {name} {why}")))?;
        tensors.insert(name.trim_end_matches(ARRAY).to_owned(), array);
    }
    Ok(tensors)
}

/// An array from the bytes of its file: a magic number, a version, and the length of a header that is a Python dictionary in text.
fn array(bytes: &[u8]) -> std::result::Result<Tensor, String> {
    let broken = || "has a broken header".to_owned();
    let length = match bytes {
        [0x93, b'N', b'U', b'M', b'P', b'Y', 1, _, low, high, ..] => {
            10 + usize::from(u16::from_le_bytes([*low, *high]))
        }
        [0x93, b'N', b'U', b'M', b'P', b'Y', 2 | 3, _, a, b, c, d, ..] => {
            (u32::from_le_bytes([*a, *b, *c, *d]) as usize).saturating_add(12)
        }
        _ => return Err("is not in NumPy's format".to_owned()),
    };
    let start = if bytes.get(6) == Some(&1) { 10 } else { 12 };
    let header = bytes.get(start..length).ok_or_else(broken)?;
    let header = std::str::from_utf8(header).map_err(|_| broken())?;
    let after = |key: &str| header.split_once(key).map(|(_, rest)| rest.trim_start()).ok_or_else(broken);
    let kind =
        after("'descr':")?.strip_prefix('\'').and_then(|rest| rest.split_once('\'')).map(|(kind, _)| kind);
    let kind = match kind {
        Some("<f4") => Kind::Float,
        Some("<f2") => Kind::Half,
        Some("<f8") => Kind::Double,
        Some("<i8") => Kind::Int64,
        Some("<i4") => Kind::Int,
        Some("<i2") => Kind::Int16,
        Some("|i1") => Kind::Int8,
        Some("|u1") => Kind::Uint8,
        Some("|b1") => Kind::Bool,
        other => return Err(format!("has numbers of an unsupported kind, {}", other.unwrap_or("none"))),
    };
    if !after("'fortran_order':")?.starts_with("False") {
        return Err("is stored column by column, which is not supported; save it again in C order".to_owned());
    }
    let shape =
        after("'shape':")?.strip_prefix('(').and_then(|rest| rest.split_once(')')).map(|(shape, _)| shape);
    let sides = shape.ok_or_else(broken)?.split(',').map(str::trim).filter(|side| !side.is_empty());
    let size: Vec<i64> = sides
        .map(|side| side.parse().ok().filter(|side| *side >= 0))
        .collect::<Option<_>>()
        .ok_or_else(broken)?;
    let data = &bytes[length..];
    let needed = size
        .iter()
        .try_fold(kind.elt_size_in_bytes() as i64, |bytes, &side| bytes.checked_mul(side))
        .filter(|_| size.len() <= MAX_SIDES);
    if needed != Some(data.len() as i64) {
        return Err(format!("has {} bytes, which do not fit to the shape {size:?}", data.len()));
    }
    Tensor::f_from_data_size(data, &size, kind).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An array file of version 1.
    fn file(header: &str, data: &[u8]) -> Vec<u8> {
        let length = (header.len() as u16).to_le_bytes();
        [b"\x93NUMPY\x01\x00".as_slice(), &length, header.as_bytes(), data].concat()
    }

    #[test]
    fn arrays_are_read_and_wrong_ones_refused() {
        let header = |kind: &str, order: &str, shape: &str| {
            format!("{{'descr': '{kind}', 'fortran_order': {order}, 'shape': {shape}, }}\n")
        };
        let data: Vec<u8> =
            [0.5f32, -1.0, 2.0, 4.0, 8.0, 16.0].iter().flat_map(|v| v.to_le_bytes()).collect();
        let found = array(&file(&header("<f4", "False", "(2, 3)"), &data)).unwrap();
        assert_eq!(found, Tensor::from_slice2(&[[0.5f32, -1.0, 2.0], [4.0, 8.0, 16.0]]));
        let scalar = array(&file(&header("<f4", "False", "()"), &data[..4])).unwrap();
        assert_eq!((scalar.size(), scalar.double_value(&[])), (vec![], 0.5));
        assert_eq!(array(&file(&header("<f4", "False", "(6,)"), &data)).unwrap().size(), [6]);
        for (bytes, words) in [
            (file(&header("|O", "False", "(2, 3)"), &data), "unsupported kind, |O"),
            (file(&header(">f4", "False", "(2, 3)"), &data), "unsupported kind, >f4"),
            (file(&header("<f4", "True", "(2, 3)"), &data), "column by column"),
            (file(&header("<f4", "False", "(2, 4)"), &data), "do not fit to the shape [2, 4]"),
            (file(&header("<f4", "False", "(2, -3)"), &data), "broken header"),
            (file(&header("<f4", "False", "(4294967296, 4294967296, 4294967296)"), &data), "do not fit"),
            (file("{}", &data), "broken header"),
            (file(&header("<f4", "False", "(2, 3)"), &data)[..40].to_vec(), "broken header"),
            (data.clone(), "not in NumPy's format"),
        ] {
            let problem = array(&bytes).unwrap_err();
            assert!(problem.contains(words), "{problem}");
        }
    }
}
