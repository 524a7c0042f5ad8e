//! Signals: what programs have computed from the samples of a shard, one Parquet file a producer next to the shard,
//! `NNNNN.PRODUCER.parquet`, with one row for every sample of the tar, in its order:
//!
//! | column | type | |
//! |---|---|---|
//! | key | utf8 | key of the sample |
//! | sample | uint32 | position of the sample in the tar, from 0 |
//! | any others | | the producer's own, which may have nulls |
//!
//! The footer's key `signals` holds one JSON object, [`Metadata`], by which readers know that the file was made from this
//! state of the shard. `ingest hash` makes [`HASH`]. Other programs may make files of their own names.
//!
//! ```
//! use std::sync::Arc;
//!
//! use arrow_array::{Float32Array, RecordBatch};
//! use loader::shards::signals::{Metadata, Signals};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! # let shard = &folder.path().join("00000.tar");
//! # let mut tar = tar::Builder::new(std::fs::File::create(shard)?);
//! # for (name, data) in [("a.jpg", &b"an image"[..]), ("b.jpg", b"another")] {
//! #     let mut header = tar::Header::new_ustar();
//! #     header.set_size(data.len() as u64);
//! #     tar.append_data(&mut header, name, data)?;
//! # }
//! # tar.finish()?;
//! let sharpness = Float32Array::from(vec![Some(0.5), None]);
//! let columns = RecordBatch::try_from_iter_with_nullable([("sharpness", Arc::new(sharpness) as _, true)])?;
//! let metadata = Metadata::new("sharpness", "my-program 1.0", shard)?;
//! Signals::new(metadata, ["a", "b"], columns)?.write(shard)?;
//!
//! let signals = Signals::open(shard, "sharpness", Some(2), None)?;
//! assert_eq!((signals.key(1), signals.columns().num_rows()), ("b", 2));
//! # Ok(())
//! # }
//! ```

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::UInt32Type;
use arrow_array::{Array, ArrayRef, RecordBatch, StringArray, StringViewArray, UInt32Array};
use arrow_cast::cast;
use arrow_schema::{ArrowError, DataType, Field, Schema};
use arrow_select::concat::concat_batches;
use bytes::Bytes;
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
use crate::shards::SUFFIXES;
use crate::shards::names::next_to;

/// Version of the columns `key` and `sample` and of the metadata.
pub const VERSION: u32 = 1;

/// The producer of perceptual hashes and languages.
pub const HASH: &str = "hash";

/// The producer of similarities of images and captions.
pub const SCORE: &str = "score";

/// Key of the metadata in the Parquet footer.
const FOOTER_KEY: &str = "signals";

/// The columns that every file has.
const KEY: &str = "key";
const SAMPLE: &str = "sample";

/// Rows read at a time.
const BATCH: usize = 8192;

/// Zstandard level, that of sidecars.
const ZSTD_LEVEL: i32 = 3;

/// Longest name of a producer, bytes.
const MAX_NAME: usize = 32;

/// Path of the signals of a producer: `a/00000.hash.parquet` for `a/00000.tar`.
pub fn path(shard: &Location, producer: &str) -> Location {
    next_to(shard, &format!(".{producer}.parquet"))
}

/// The producer of the file of this name, if its name is that of signals of the shard with this [`stem`](super::stem).
pub fn producer<'a>(file_name: &'a str, stem: &str) -> Option<&'a str> {
    let name = file_name.strip_prefix(stem)?.strip_prefix('.')?.strip_suffix(".parquet")?;
    is_producer(name).then_some(name)
}

/// Whether a producer may have this name: 1 to 32 lower-case letters, digits, `_` and `-`; not `concepts`, which are sidecars.
pub fn is_producer(name: &str) -> bool {
    let plain = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-');
    (1..=MAX_NAME).contains(&name.len()) && name.bytes().all(plain) && name != "concepts"
}

/// Whether the bytes are those of a Parquet file whose footer says that it has signals, of whatever version.
pub fn are_signals(bytes: &Bytes) -> bool {
    Table::open(bytes.clone(), Texts::Views).is_ok_and(|table| metadata_json(table.footer()).is_some())
}

/// What a file of signals was made from, and by what.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Metadata {
    /// [`VERSION`].
    pub version: u32,
    /// Name of the producer, as in the file's name ([`is_producer`]).
    pub producer: String,
    /// Name and version of the program, for people.
    pub program: String,
    /// What the values depend on besides the shard, such as the model that gave them, by which the producer tells whether they
    /// are up to date; null if there is nothing.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub settings: Value,
    /// File name of the shard, without folder.
    pub shard: String,
    /// Size of the shard's file as stored, bytes.
    pub shard_bytes: u64,
    /// SHA-256 of the shard's file, hexadecimal, if the producer knew it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shard_sha256: Option<String>,
    /// Number of samples in the shard, which is that of the rows. [`Signals::new`] fills it in.
    pub samples: u32,
}

impl Metadata {
    /// For new signals of a shard, whose size is looked up; without settings, the shard's SHA-256, and samples.
    ///
    /// # Errors
    /// The shard cannot be read.
    pub fn new(producer: &str, program: &str, shard: impl Into<Location>) -> Result<Self, Error> {
        let shard = shard.into();
        let shard_bytes = storage::length(&shard)?;
        Ok(Self {
            version: VERSION,
            producer: producer.to_owned(),
            program: program.to_owned(),
            settings: Value::Null,
            shard: shard.file_name().into_owned(),
            shard_bytes,
            shard_sha256: None,
            samples: 0,
        })
    }

    /// Returns an error if the signals at `path` were not made from this shard, with this file size in bytes and, unless it is
    /// `None`, this number of samples.
    pub fn refuse_unless_for(
        &self,
        path: &Location,
        shard: &Location,
        bytes: u64,
        samples: Option<u32>,
    ) -> Result<(), Error> {
        let name = shard.file_name();
        let made_from = if self.shard != name {
            format!("{}, not from {name}", self.shard)
        } else if self.shard_bytes != bytes {
            format!("a shard of {} bytes, but {name} has {bytes} bytes", self.shard_bytes)
        } else if let Some(samples) = samples.filter(|&samples| samples != self.samples) {
            format!("{} samples, but {name} has {samples}", self.samples)
        } else {
            return Ok(());
        };
        Err(stale(path, &self.producer, &made_from))
    }

    /// Returns an error if the shard's file has another SHA-256 than that from which the signals at `path` were made. Nothing is
    /// compared if their producer did not know it.
    pub fn refuse_unless_sha256(&self, path: &Location, sha256: &str) -> Result<(), Error> {
        if self.shard_sha256.as_ref().is_none_or(|known| known == sha256) {
            return Ok(());
        }
        Err(stale(path, &self.producer, &format!("another {} of the same size", self.shard)))
    }
}

fn stale(path: &Location, producer: &str, made_from: &str) -> Error {
    Error::companion(path, format!("it was made from {made_from}; {}", again(producer)))
}

/// What to do about signals that are missing or of no use.
fn again(producer: &str) -> String {
    match producer {
        HASH => "run `ingest hash` on the shard".to_owned(),
        SCORE => "run `trainer score` on the shard".to_owned(),
        other => format!("make it again with the program that writes {other:?} signals"),
    }
}

/// The signals of one producer for one shard, in memory.
#[derive(Debug, Clone)]
pub struct Signals {
    /// What they were made from, and by what.
    pub metadata: Metadata,
    keys: StringViewArray,
    columns: RecordBatch,
}

impl Signals {
    /// New signals: the keys of all samples of the shard in the order of the tar, and the producer's columns, with a row for
    /// each.
    ///
    /// # Errors
    /// The numbers of keys and rows differ, a column is named `key` or `sample`, or the producer's name is not one
    /// ([`is_producer`]).
    pub fn new(
        mut metadata: Metadata,
        keys: impl IntoIterator<Item = impl AsRef<str>>,
        columns: RecordBatch,
    ) -> Result<Self, Error> {
        let keys: StringViewArray = keys.into_iter().map(|key| Some(key.as_ref().to_owned())).collect();
        let wrong = |problem: String| Err(Error::Settings(problem));
        if !is_producer(&metadata.producer) {
            return wrong(format!(
                "{:?} cannot be the name of a producer of signals: use lower-case letters, digits, _ and -",
                metadata.producer
            ));
        }
        if keys.len() != columns.num_rows() {
            return wrong(format!("signals of {} samples with {} rows", keys.len(), columns.num_rows()));
        }
        if let Some(name) = [KEY, SAMPLE].iter().find(|name| columns.column_by_name(name).is_some()) {
            return wrong(format!(
                "a column of signals cannot be named {name:?}: every file has one of this name"
            ));
        }
        metadata.samples = u32::try_from(keys.len())
            .map_err(|_| Error::Settings("signals of more than 4,294,967,295 samples".to_owned()))?;
        Ok(Self { metadata, keys, columns })
    }

    /// Key of the sample at this position of the tar; "" beyond the last sample.
    pub fn key(&self, sample: u32) -> &str {
        let sample = sample as usize;
        if sample < self.keys.len() { self.keys.value(sample) } else { "" }
    }

    /// The producer's columns that were read, with a row for every sample of the tar, in its order. Text is `Utf8View`.
    pub fn columns(&self) -> &RecordBatch {
        &self.columns
    }

    /// Writes the file next to the shard, completely or not at all.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, shard: impl Into<Location>) -> Result<(), Error> {
        let path = path(&shard.into(), &self.metadata.producer);
        Ok(storage::write(&path, self.to_bytes(&path)?)?)
    }

    /// The bytes of the file; `path` is its name in errors.
    ///
    /// # Errors
    /// The columns cannot be written as Parquet.
    pub fn to_bytes(&self, path: &Location) -> Result<Bytes, Error> {
        self.encode()
            .map(Bytes::from)
            .map_err(|e| Error::companion(path, format!("it cannot be written: {e}")))
    }

    fn encode(&self) -> Result<Vec<u8>, ParquetError> {
        let keys: StringArray = self.keys.iter().collect();
        let samples = UInt32Array::from_iter_values(0..self.metadata.samples);
        let mut fields = vec![
            Arc::new(Field::new(KEY, DataType::Utf8, false)),
            Arc::new(Field::new(SAMPLE, DataType::UInt32, false)),
        ];
        fields.extend(self.columns.schema().fields().iter().cloned());
        let mut columns: Vec<ArrayRef> = vec![Arc::new(keys), Arc::new(samples)];
        columns.extend(self.columns.columns().iter().cloned());
        let rows = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?;
        let json = serde_json::to_string(&self.metadata).map_err(|e| ParquetError::External(e.into()))?;
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::try_new(ZSTD_LEVEL)?))
            .set_created_by(self.metadata.program.clone())
            .build();
        let mut writer = ArrowWriter::try_new(Vec::new(), rows.schema(), Some(properties))?;
        writer.write(&rows)?;
        writer.append_key_value_metadata(KeyValue::new(FOOTER_KEY.to_owned(), json));
        writer.into_inner()
    }

    /// Opens the signals of a shard, which may be remote, and checks that they were made from it: that its name, its file size
    /// and, unless it is `None`, its number of samples agree. `columns` are those of the producer to read, all if `None`;
    /// columns that the file does not have are left out.
    ///
    /// # Errors
    /// There is no such file, it cannot be read, or it was made from another shard or from another version of this one.
    pub fn open(
        shard: impl Into<Location>,
        producer: &str,
        samples: Option<u32>,
        columns: Option<&[&str]>,
    ) -> Result<Self, Error> {
        let shard = &shard.into();
        let path = path(shard, producer);
        let missing = || Error::companion(&path, format!("it does not exist; {}", again(producer)));
        let bytes = match storage::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if is_missing(&error) => return Err(missing()),
            Err(error) => return Err(error.into()),
        };
        let about = Self::metadata(&path, &bytes)?;
        about.refuse_unless_for(&path, shard, storage::length(shard)?, samples)?;
        Self::from_bytes(&path, bytes, columns)
    }

    /// What the footer of a file says; `path` is its name in errors.
    ///
    /// # Errors
    /// The bytes are not those of signals, or `path` names another producer than the footer.
    pub fn metadata(path: &Location, bytes: &Bytes) -> Result<Metadata, Error> {
        let read = || metadata_of(Table::open(bytes.clone(), Texts::Views)?.footer());
        let metadata = read().map_err(|problem| broken(path, &problem))?;
        let name = path.file_name();
        let named = format!("{}.{}.parquet", stem_of(&metadata.shard), metadata.producer);
        if name == named {
            return Ok(metadata);
        }
        let problem = TableError::Content(format!("its footer is that of {named}"));
        Err(broken(path, &problem))
    }

    /// Reads the bytes of a file; `path` is its name in errors. Whether it was made from its shard is not checked
    /// ([`Metadata::refuse_unless_for`]). `columns` as in [`Signals::open`].
    ///
    /// # Errors
    /// The bytes are not those of complete signals.
    pub fn from_bytes(path: &Location, bytes: Bytes, columns: Option<&[&str]>) -> Result<Self, Error> {
        let metadata = Self::metadata(path, &bytes)?;
        Self::read(bytes, metadata, columns).map_err(|problem| broken(path, &problem))
    }

    fn read(bytes: Bytes, metadata: Metadata, columns: Option<&[&str]>) -> Result<Self, TableError> {
        let table = Table::open(bytes, Texts::Views)?;
        if table.footer().num_rows() != i64::from(metadata.samples) {
            let (rows, samples) = (table.footer().num_rows(), metadata.samples);
            return Err(TableError::Content(format!("it has {rows} rows for {samples} samples")));
        }
        let mut budget = Budget::for_file(table.bytes());
        let columns: Option<Vec<&str>> =
            columns.map(|columns| [KEY, SAMPLE].iter().chain(columns).copied().collect());
        let mut batches = Vec::new();
        let mut rows = 0;
        for batch in table.batches(columns.as_deref(), BATCH)? {
            let batch = batch?;
            budget.keep_rows(1, batch.get_array_memory_size())?;
            refuse_unless_numbered(&batch, rows)?;
            rows += batch.num_rows();
            batches.push(batch);
        }
        let schema = match batches.first() {
            Some(first) => first.schema(),
            None => return Self::without_rows(metadata),
        };
        let mut all = concat_batches(&schema, &batches).map_err(content)?;
        let keys = all.remove_column(position(&all, KEY)?);
        all.remove_column(position(&all, SAMPLE)?);
        let keys = cast(&keys, &DataType::Utf8View).map_err(content)?;
        if keys.null_count() > 0 {
            return Err(TableError::Content(format!("column {KEY:?} has nulls")));
        }
        Ok(Self { metadata, keys: keys.as_string_view().clone(), columns: all })
    }

    /// Of a shard without samples.
    fn without_rows(metadata: Metadata) -> Result<Self, TableError> {
        if metadata.samples > 0 {
            return Err(TableError::Content(format!("it has no rows for {} samples", metadata.samples)));
        }
        let columns = RecordBatch::new_empty(Arc::new(Schema::empty()));
        Ok(Self { metadata, keys: StringViewArray::from_iter_values([""; 0]), columns })
    }
}

/// The stem of a shard's file name.
fn stem_of(shard: &str) -> &str {
    SUFFIXES.iter().find_map(|suffix| shard.strip_suffix(suffix)).unwrap_or(shard)
}

fn metadata_json(footer: &FileMetaData) -> Option<&str> {
    let pair = footer.key_value_metadata()?.iter().find(|pair| pair.key == FOOTER_KEY)?;
    pair.value.as_deref()
}

fn metadata_of(footer: &FileMetaData) -> Result<Metadata, TableError> {
    let none = || TableError::Content(format!("its footer has no key {FOOTER_KEY:?}"));
    let json = metadata_json(footer).ok_or_else(none)?;
    let json: Value = serde_json::from_str(json).map_err(|e| TableError::Content(e.to_string()))?;
    let version = json.get("version").and_then(Value::as_u64).unwrap_or_default();
    if version != u64::from(VERSION) {
        let problem = format!("it has version {version}, but this program reads version {VERSION}");
        return Err(TableError::Content(problem));
    }
    serde_json::from_value(json).map_err(|e| TableError::Content(e.to_string()))
}

/// The rows of a batch must be those of the samples from `first` on.
fn refuse_unless_numbered(batch: &RecordBatch, first: usize) -> Result<(), TableError> {
    let samples = cast(batch.column(position(batch, SAMPLE)?), &DataType::UInt32).map_err(content)?;
    let samples = samples.as_primitive::<UInt32Type>();
    let wrong = (0..samples.len())
        .find(|&row| samples.is_null(row) || samples.value(row) as usize != first + row)
        .map(|row| first + row);
    match wrong {
        None => Ok(()),
        Some(row) => Err(TableError::Content(format!(
            "row {row} is not that of sample {row}: every sample has one row, in the order of the tar"
        ))),
    }
}

fn position(batch: &RecordBatch, name: &str) -> Result<usize, TableError> {
    batch.schema().index_of(name).map_err(|_| TableError::Content(format!("it has no column {name:?}")))
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn content(error: ArrowError) -> TableError {
    TableError::Content(error.to_string())
}

fn broken(path: &Location, problem: &TableError) -> Error {
    let name = path.file_name();
    let producer = name.strip_suffix(".parquet").and_then(|name| name.rsplit_once('.')).map(|(_, name)| name);
    let again = again(producer.unwrap_or(&name));
    Error::companion(path, format!("it is not a valid file of signals: {problem}; {again}"))
}
