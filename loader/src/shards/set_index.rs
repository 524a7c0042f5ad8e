//! The index of a set: one small Parquet file in a folder of shards, [`INDEX`]. It says of each shard what a loader has to know
//! before its first batch, so that it need not ask for files of every shard. Every shard that a loader opens is compared with what
//! its index says, so an index of another state of the folder is an error that says so.
//!
//! | column | type | |
//! |---|---|---|
//! | shard | utf8 | file name |
//! | samples | uint32 | samples in the tar |
//! | bytes | uint64 | size of the file as stored |
//! | places, images, captions | uint64 | its [`Identity`]; the last two may be null |
//! | sidecar | utf8 | the JSON object in the footer of its sidecar; null if it had none |
//!
//! Rows are sorted by `shard`. The footer's key `index` holds one JSON object: version, numbers of shards and samples, and a check of
//! all values.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::ErrorKind;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{UInt32Type, UInt64Type};
use arrow_array::{Array, ArrayRef, RecordBatch, StringArray, UInt32Array, UInt64Array};
use arrow_cast::cast;
use arrow_schema::{DataType, Field, Schema};
use bytes::Bytes;
use concepts::sidecar::Metadata;
use concepts::tables::{Budget, Table, TableError, Texts};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::metadata::{FileMetaData, KeyValue};
use parquet::file::properties::WriterProperties;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use storage::{Location, is_missing};

use crate::Error;
use crate::shards::each::{MANY, for_each_shard};
use crate::shards::identity::{Digest, Identity};

/// Name of the file, in the folder of its shards.
pub const INDEX: &str = "index.parquet";

/// Version of the columns and of the footer.
pub const VERSION: u32 = 1;

/// Key of [`Footer`] in the Parquet footer.
const FOOTER_KEY: &str = "index";

/// Rows read at a time.
const BATCH: usize = 8192;

/// What an index says of a shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Described {
    /// Number of samples.
    pub samples: u32,
    /// Size of its file as stored, bytes.
    pub bytes: u64,
    /// What distinguishes its samples from others.
    pub content: Identity,
    /// The footer of its sidecar; `None` if it has none.
    pub sidecar: Option<Metadata>,
}

impl Described {
    /// Returns an error if the open shard is `now` another one. Its sidecar is compared if both know one.
    pub(super) fn check(&self, shard: &Location, now: &Self) -> Result<(), Error> {
        self.check_bytes(shard, now.bytes)?;
        let name = shard.file_name();
        let problem = if now.samples != self.samples {
            format!("it says that {name} has {} samples, but it has {}", self.samples, now.samples)
        } else if let Some(what) = self.content.difference(&now.content, true) {
            format!("{name} has {what} than when it was made")
        } else if self.sidecar.as_ref().zip(now.sidecar.as_ref()).is_some_and(|(before, now)| before != now) {
            format!("the sidecar of {name} was written again since it was made")
        } else {
            return Ok(());
        };
        Err(stale(shard, &problem))
    }

    /// Returns an error if a shard has another size.
    pub(super) fn check_bytes(&self, shard: &Location, bytes: u64) -> Result<(), Error> {
        if bytes == self.bytes {
            return Ok(());
        }
        let name = shard.file_name();
        Err(stale(shard, &format!("it says that {name} has {} bytes, but it has {bytes}", self.bytes)))
    }
}

/// The index of another state of the folder.
fn stale(shard: &Location, problem: &str) -> Error {
    let path = shard.with_file_name(INDEX);
    let again = again(&path);
    Error::companion(&path, format!("{problem}; unless the shard is damaged (`ingest verify`), {again}"))
}

/// What to do about an index of no use.
fn again(path: &Location) -> String {
    let folder = path.parent().filter(|folder| *folder != Location::default());
    format!("make it again with `tools index {}`", folder.unwrap_or_else(|| Location::from(".")))
}

/// What the indices in their folders say of some shards, in the order of the shards; `None` if a folder has no index, or if it does
/// not have the shard.
pub(crate) fn known(shards: &[Location]) -> Result<Vec<Option<Described>>, Error> {
    let mut numbers: HashMap<Location, usize> = HashMap::new();
    let mut paths = Vec::new();
    let of_shard: Vec<usize> = shards
        .iter()
        .map(|shard| {
            let path = shard.with_file_name(INDEX);
            *numbers.entry(path).or_insert_with_key(|path| {
                paths.push(path.clone());
                paths.len() - 1
            })
        })
        .collect();
    let mut indices = for_each_shard(&paths, MANY, "read the index", |number| read(&paths[number]))?;
    let mut take = |(shard, &number): (&Location, &usize)| {
        // A shard is listed once.
        indices[number].as_mut()?.shards.remove(&*shard.file_name())
    };
    Ok(shards.iter().zip(&of_shard).map(&mut take).collect())
}

/// The index of a folder.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SetIndex {
    /// The shards by their file names.
    pub shards: BTreeMap<String, Described>,
}

/// What the footer says.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Footer {
    version: u32,
    shards: u64,
    samples: u64,
    /// XXH64 of all values, as 16 hexadecimal digits.
    check: String,
}

impl SetIndex {
    /// Reads the index of a folder. `None` if there is none, if it may not be read, or if the file of this name is one of another
    /// program, without the footer's key.
    ///
    /// # Errors
    /// The file is damaged, or of another version.
    pub fn open(folder: &Location) -> Result<Option<Self>, Error> {
        read(&folder.join(INDEX))
    }

    /// Writes the index into a folder, completely or not at all. Replaces an earlier one.
    ///
    /// # Errors
    /// The file cannot be written, or there is one of another program.
    pub fn write(&self, folder: &Location) -> Result<(), Error> {
        let path = folder.join(INDEX);
        if is_ours(&path)? == Some(false) {
            let problem = "it was made by another program and would be replaced; give it another name";
            return Err(Error::companion(&path, problem));
        }
        let bytes =
            self.encode().map_err(|e| Error::companion(&path, format!("it cannot be written: {e}")))?;
        Ok(storage::replace(&path, bytes)?)
    }

    /// Removes the index of a folder before one of its shards changes.
    ///
    /// # Errors
    /// It cannot be removed.
    pub fn forget(folder: &Location) -> Result<(), Error> {
        let path = folder.join(INDEX);
        if is_ours(&path)? == Some(true) { Ok(storage::remove(&path)?) } else { Ok(()) }
    }

    fn encode(&self) -> Result<Vec<u8>, ParquetError> {
        let external = |e: serde_json::Error| ParquetError::External(e.into());
        let rows = || self.shards.values();
        let sidecars = rows().map(|row| row.sidecar.as_ref().map(serde_json::to_string).transpose());
        let sidecars: Vec<Option<String>> = sidecars.collect::<Result<_, _>>().map_err(external)?;
        let mut check = Digest::default();
        for ((shard, row), sidecar) in self.shards.iter().zip(&sidecars) {
            add(&mut check, shard, row, sidecar.as_deref());
        }
        let footer = Footer {
            version: VERSION,
            shards: self.shards.len() as u64,
            samples: rows().map(|row| u64::from(row.samples)).sum(),
            check: format!("{:016x}", check.finish()),
        };
        let field = |name: &str, kind: DataType, null: bool| Field::new(name, kind, null);
        let schema = Arc::new(Schema::new(vec![
            field("shard", DataType::Utf8, false),
            field("samples", DataType::UInt32, false),
            field("bytes", DataType::UInt64, false),
            field("places", DataType::UInt64, false),
            field("images", DataType::UInt64, true),
            field("captions", DataType::UInt64, true),
            field("sidecar", DataType::Utf8, true),
        ]));
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from_iter_values(self.shards.keys())),
            Arc::new(UInt32Array::from_iter_values(rows().map(|row| row.samples))),
            Arc::new(UInt64Array::from_iter_values(rows().map(|row| row.bytes))),
            Arc::new(UInt64Array::from_iter_values(rows().map(|row| row.content.places))),
            Arc::new(rows().map(|row| row.content.images).collect::<UInt64Array>()),
            Arc::new(rows().map(|row| row.content.captions).collect::<UInt64Array>()),
            Arc::new(sidecars.iter().map(Option::as_deref).collect::<StringArray>()),
        ];
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::default()))
            .set_created_by(concat!("loader ", env!("CARGO_PKG_VERSION")).to_owned())
            .build();
        let batch = RecordBatch::try_new(Arc::clone(&schema), columns)?;
        let mut writer = ArrowWriter::try_new(Vec::new(), schema, Some(properties))?;
        writer.write(&batch)?;
        let json = serde_json::to_string(&footer).map_err(external)?;
        writer.append_key_value_metadata(KeyValue::new(FOOTER_KEY.to_owned(), json));
        writer.into_inner()
    }

    /// `None` if the footer is not that of an index.
    fn decode(bytes: Bytes) -> Result<Option<Self>, TableError> {
        let table = Table::open(bytes, Texts::Views)?;
        let Some(json) = footer_json(table.footer()) else { return Ok(None) };
        let json: Value = serde_json::from_str(json).map_err(content)?;
        let version = json.get("version").and_then(Value::as_u64).unwrap_or_default();
        if version != u64::from(VERSION) {
            let problem = format!("it has version {version}, but this program reads version {VERSION}");
            return Err(TableError::Content(problem));
        }
        let footer: Footer = serde_json::from_value(json).map_err(content)?;
        let mut budget = Budget::for_file(table.bytes());
        let (mut index, mut check) = (Self::default(), Digest::default());
        for batch in table.batches(None, BATCH)? {
            index.add_rows(&batch?, &mut check, &mut budget)?;
        }
        let samples = index.shards.values().map(|row| u64::from(row.samples)).sum();
        let check = format!("{:016x}", check.finish());
        if footer != (Footer { version: VERSION, shards: index.shards.len() as u64, samples, check }) {
            return Err(TableError::Content("its values do not have the check in its footer".to_owned()));
        }
        Ok(Some(index))
    }

    fn add_rows(
        &mut self,
        batch: &RecordBatch,
        check: &mut Digest,
        budget: &mut Budget,
    ) -> Result<(), TableError> {
        let (text, number) = (DataType::Utf8View, DataType::UInt64);
        let (shards, sidecars) = (column(batch, "shard", &text)?, column(batch, "sidecar", &text)?);
        let (shards, sidecars) = (shards.as_string_view(), sidecars.as_string_view());
        let samples = column(batch, "samples", &DataType::UInt32)?;
        let samples = samples.as_primitive::<UInt32Type>();
        let mut numbers = Vec::new();
        for name in ["bytes", "places", "images", "captions"] {
            numbers.push(column(batch, name, &number)?.as_primitive::<UInt64Type>().clone());
        }
        budget.keep_rows(batch.num_rows(), size_of::<Described>())?;
        for row in 0..batch.num_rows() {
            let given = |column: usize| numbers[column].is_valid(row).then(|| numbers[column].value(row));
            let needed = |value: Option<u64>| {
                value.ok_or_else(|| TableError::Content(format!("row {row} has a null where none may be")))
            };
            let sidecar = sidecars.is_valid(row).then(|| sidecars.value(row));
            let shard = shards.value(row);
            budget.keep(shard)?;
            budget.keep(sidecar.unwrap_or_default())?;
            let described = Described {
                samples: samples.value(row),
                bytes: needed(given(0))?,
                content: Identity { places: needed(given(1))?, images: given(2), captions: given(3) },
                sidecar: sidecar.map(Metadata::from_json).transpose()?,
            };
            add(check, shard, &described, sidecar);
            if self.shards.insert(shard.to_owned(), described).is_some() {
                return Err(TableError::Content(format!("it has the shard {shard} twice")));
            }
        }
        Ok(())
    }
}

fn read(path: &Location) -> Result<Option<SetIndex>, Error> {
    let bytes = match storage::read(path) {
        Ok(bytes) => bytes,
        Err(error) if is_none(&error) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    SetIndex::decode(bytes).map_err(|problem| {
        let again = again(path);
        Error::companion(path, format!("it is not a valid index of shards: {problem}; {again}, or remove it"))
    })
}

/// Some stores deny access to what does not exist.
fn is_none(error: &storage::Error) -> bool {
    let denied = |error: &storage::Error| match error {
        storage::Error::Io { source, .. } => source.kind() == ErrorKind::PermissionDenied,
        _ => false,
    };
    is_missing(error) || denied(error)
}

/// Whether the file is an index, or so damaged that it is of no use to anybody; `None` if there is none.
fn is_ours(path: &Location) -> Result<Option<bool>, Error> {
    let footer = match path {
        Location::Local(local) => match File::open(local) {
            Ok(file) => Table::open(file, Texts::Views).map(|table| footer_json(table.footer()).is_some()),
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::read(path)(error)),
        },
        Location::Remote(_) => match storage::read(path) {
            Ok(bytes) => Table::open(bytes, Texts::Views).map(|table| footer_json(table.footer()).is_some()),
            Err(error) if is_none(&error) => return Ok(None),
            Err(error) => return Err(error.into()),
        },
    };
    Ok(Some(footer.unwrap_or(true)))
}

/// Adds a row to the check.
fn add(check: &mut Digest, shard: &str, row: &Described, sidecar: Option<&str>) {
    check.text(shard);
    check.number(row.samples.into());
    check.number(row.bytes);
    check.number(row.content.places);
    for number in [row.content.images, row.content.captions] {
        check.number(number.is_some().into());
        check.number(number.unwrap_or_default());
    }
    check.number(sidecar.is_some().into());
    check.text(sidecar.unwrap_or_default());
}

fn footer_json(footer: &FileMetaData) -> Option<&str> {
    let pair = footer.key_value_metadata()?.iter().find(|pair| pair.key == FOOTER_KEY)?;
    pair.value.as_deref()
}

fn column(batch: &RecordBatch, name: &str, kind: &DataType) -> Result<ArrayRef, TableError> {
    let none = || TableError::Content(format!("it has no column {name:?}"));
    let column = cast(batch.column_by_name(name).ok_or_else(none)?, kind).map_err(content)?;
    if ["shard", "samples"].contains(&name) && column.null_count() > 0 {
        return Err(TableError::Content(format!("column {name:?} has nulls")));
    }
    Ok(column)
}

fn content(error: impl std::fmt::Display) -> TableError {
    TableError::Content(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index() -> SetIndex {
        let row = |number: u64| {
            let content = Identity {
                places: u64::MAX - number,
                images: number.is_multiple_of(2).then_some(number),
                captions: number.is_multiple_of(3).then_some(7 * number),
            };
            (format!("{number:05}.tar"), Described { samples: 10, bytes: 1 << 40, content, sidecar: None })
        };
        SetIndex { shards: (0..20).map(row).collect() }
    }

    #[test]
    fn what_is_written_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let at = Location::from(folder.path());
        assert_eq!(SetIndex::open(&at).unwrap(), None);
        for index in [index(), SetIndex::default()] {
            index.write(&at).unwrap();
            assert_eq!(SetIndex::open(&at).unwrap(), Some(index));
        }
        SetIndex::forget(&at).unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        SetIndex::forget(&at).unwrap();
    }

    #[test]
    fn a_flipped_bit_is_an_error_or_changes_nothing() {
        let bytes = index().encode().unwrap();
        let mut refused = 0;
        for byte in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[byte] ^= 1 << (byte % 8);
            match SetIndex::decode(damaged.into()) {
                Ok(found) => assert!(found.is_none_or(|found| found == index()), "byte {byte}"),
                Err(_) => refused += 1,
            }
        }
        assert!(refused > bytes.len() / 4, "{refused} of {}", bytes.len());
        for length in [0, 10, bytes.len() / 2, bytes.len() - 1] {
            assert!(SetIndex::decode(bytes[..length].to_vec().into()).is_err(), "{length} bytes");
        }
    }

    #[test]
    fn files_of_other_programs_are_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let (at, path) = (Location::from(folder.path()), folder.path().join(INDEX));
        let numbers: ArrayRef = Arc::new(UInt32Array::from_iter_values(0..3));
        let batch = RecordBatch::try_from_iter([("samples", numbers)]).unwrap();
        let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        let other = writer.into_inner().unwrap();
        std::fs::write(&path, &other).unwrap();
        assert_eq!(SetIndex::open(&at).unwrap(), None);
        let error = index().write(&at).unwrap_err().to_string();
        assert!(error.contains(INDEX) && error.contains("another program"), "{error}");
        SetIndex::forget(&at).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), other);
        // A damaged one is replaced.
        std::fs::write(&path, "no table").unwrap();
        let error = SetIndex::open(&at).unwrap_err().to_string();
        assert!(error.contains("tools index"), "{error}");
        index().write(&at).unwrap();
        assert_eq!(SetIndex::open(&at).unwrap(), Some(index()));
    }
}
