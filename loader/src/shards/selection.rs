//! Selections: Parquet files that say which samples of some shards are used, and how often.
//!
//! | column | type | |
//! |---|---|---|
//! | shard | utf8 | file name of the shard, with as much of its path as distinguishes it from the others |
//! | sample | an integer | position of the sample in the tar, from 0 |
//! | weight | a number, optional | how often it comes in an epoch, on average: 0 to [`MAX_WEIGHT`]; 1 without the column |
//!
//! Rows may be in any order, and no sample may come twice. The Parquet footer may have the key `selection` with one JSON
//! object, [`Metadata`]; with it, shards that have changed since are refused.

mod names;
mod of_shards;

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Float32Type, Int32Type, UInt32Type};
use arrow_array::{
    Array, ArrayRef, DictionaryArray, Float32Array, Int32Array, RecordBatch, StringArray, UInt32Array,
};
use arrow_cast::cast;
use arrow_schema::DataType;
use bytes::Bytes;
use concepts::tables::{Table, Texts};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use parquet::schema::types::ColumnPath;
use serde::{Deserialize, Serialize};
use storage::Location;

pub use self::names::{Names, names};
pub(crate) use self::of_shards::read;
pub use self::of_shards::taken;
use crate::Error;
use crate::shards::{Identity, image_check};

/// Version of the columns and metadata.
pub const VERSION: u32 = 1;

/// The largest weight. An epoch keeps each copy of a shard's samples apart, so their number is bounded.
pub const MAX_WEIGHT: f32 = 1000.0;

/// Key of the metadata in the Parquet footer.
const FOOTER_KEY: &str = "selection";

/// The columns.
const COLUMNS: [&str; 3] = ["shard", "sample", "weight"];

/// Rows that are read or written at a time.
const ROWS: usize = 65_536;

/// What a selection was made from, and how.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Metadata {
    /// [`VERSION`] of the columns and metadata.
    pub version: u32,
    /// The shards that it was made from, also those of which it has no sample.
    pub shards: Vec<ShardOfSelection>,
    /// What was done, one rule after the other.
    pub rules: Vec<Rule>,
}

/// A shard that a selection was made from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ShardOfSelection {
    /// Its name, as in the column `shard`.
    pub shard: String,
    /// Number of its samples.
    pub samples: u32,
    /// What distinguishes it from other shards; absent if it is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<Identity>,
}

/// What a rule did.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rule {
    /// The rule, as it was given to the program.
    pub rule: String,
    /// Number of samples that it left out.
    pub dropped: u64,
    /// Number of samples that are left after it.
    pub kept: u64,
}

impl Metadata {
    /// Of these shards, after these rules.
    pub fn new(shards: Vec<ShardOfSelection>, rules: Vec<Rule>) -> Self {
        Self { version: VERSION, shards, rules }
    }
}

/// Some rows of a selection that follow one another and are of the same shard.
#[derive(Debug, Clone, Copy)]
pub struct Run<'a> {
    /// The shard's name, as in the column.
    pub shard: &'a str,
    /// The samples, as positions in the tar.
    pub samples: &'a [u32],
    /// Their weights; empty if all are 1.
    pub weights: &'a [f32],
}

/// An open selection.
#[derive(Debug)]
pub struct SelectionFile {
    path: Location,
    table: Table<Bytes>,
    /// `None` if another program wrote it.
    pub metadata: Option<Metadata>,
    /// XXH64 of the file: two selections with the same check are the same.
    pub check: u64,
}

impl SelectionFile {
    /// Reads a selection of shards with so many samples, and checks its columns `shard`, `sample` and `weight`; others are not
    /// read.
    ///
    /// # Errors
    /// It cannot be read, is not a selection, or has more rows than there are samples.
    pub fn open(path: &Location, samples: u64) -> Result<Self, Error> {
        let bytes = storage::read(path)?;
        let check = image_check(&bytes);
        // One of all samples takes next to nothing, and its rows are limited below.
        let table = Table::open_repetitive(bytes, Texts::Dictionaries).map_err(|e| refused(path, &e))?;
        let columns = table.schema().fields();
        let has = |name: &str, fits: fn(&DataType) -> bool| {
            columns.iter().any(|column| column.name() == name && fits(column.data_type()))
        };
        let is_text = |kind: &DataType| matches!(kind, DataType::Dictionary(..));
        let weight = !table.has("weight") || has("weight", DataType::is_numeric);
        if !has("shard", is_text) || !has("sample", DataType::is_integer) || !weight {
            let found: Vec<String> =
                columns.iter().map(|column| format!("{} {}", column.name(), column.data_type())).collect();
            let problem = format!(
                "a selection has the columns shard (text), sample (an integer) and, if samples have weights, weight (a number); \
                 this file has {}",
                found.join(", ")
            );
            return Err(refused(path, &problem));
        }
        let pairs = table.footer().key_value_metadata();
        let text = pairs.and_then(|pairs| pairs.iter().find(|pair| pair.key == FOOTER_KEY)?.value.as_deref());
        let metadata: Option<Metadata> = text
            .map(serde_json::from_str)
            .transpose()
            .map_err(|e| refused(path, &format!("its footer is damaged: {e}")))?;
        if let Some(Metadata { version, .. }) = metadata
            && version != VERSION
        {
            return Err(refused(
                path,
                &format!("it has version {version}, but this program reads version {VERSION}"),
            ));
        }
        let file = Self { path: path.clone(), table, metadata, check };
        let rows = file.rows();
        if rows > samples {
            let problem = format!("it has {rows} rows, but the shards have only {samples} samples");
            return Err(refused(path, &problem));
        }
        Ok(file)
    }

    /// Columns that a selection does not have; it may be another table, with a meaning of its own.
    fn other_column(&self) -> Option<&str> {
        self.table
            .schema()
            .fields()
            .iter()
            .map(|column| column.name().as_str())
            .find(|name| !COLUMNS.contains(name))
    }

    /// Number of rows.
    pub fn rows(&self) -> u64 {
        u64::try_from(self.table.footer().num_rows()).unwrap_or_default()
    }

    /// Calls `each` with all rows, in the order of the file. Its error, the end of a sentence, ends the reading.
    ///
    /// # Errors
    /// The file is damaged; a value is missing, or a weight is no number from 0 to [`MAX_WEIGHT`]; or that of `each`.
    pub fn visit(self, mut each: impl FnMut(Run<'_>) -> Result<(), String>) -> Result<(), Error> {
        let path = self.path;
        for batch in self.table.batches(Some(&COLUMNS), ROWS).map_err(|e| refused(&path, &e))? {
            let batch = batch.map_err(|e| refused(&path, &e))?;
            visit_batch(&batch, &mut each).map_err(|problem| refused(&path, &problem))?;
        }
        Ok(())
    }
}

fn refused(path: &Location, problem: &dyn std::fmt::Display) -> Error {
    Error::Selection { path: path.clone(), problem: problem.to_string() }
}

/// Calls `each` with the rows of a batch.
fn visit_batch(
    batch: &RecordBatch,
    each: &mut impl FnMut(Run<'_>) -> Result<(), String>,
) -> Result<(), String> {
    let column = |name: &str, kind: &DataType| -> Result<Option<ArrayRef>, String> {
        let Some(column) = batch.column_by_name(name) else { return Ok(None) };
        let column = cast(column, kind).map_err(|e| format!("column {name}: {e}"))?;
        if column.null_count() > 0 {
            return Err(format!("a value of the column {name} is missing, negative or too large"));
        }
        Ok(Some(column))
    };
    let (Some(shards), Some(samples)) = (batch.column_by_name("shard"), column("sample", &DataType::UInt32)?)
    else {
        return Err("it has no columns shard and sample".to_owned());
    };
    let weights = column("weight", &DataType::Float32)?;
    if shards.null_count() > 0 {
        return Err("a value of the column shard is missing".to_owned());
    }
    let shards = shards.as_dictionary::<Int32Type>();
    let names = shards.values().as_string::<i32>();
    let keys = shards.keys().values();
    let samples = samples.as_primitive::<UInt32Type>().values();
    let weights: &[f32] =
        weights.as_ref().map_or(&[], |weights| weights.as_primitive::<Float32Type>().values());
    if let Some(weight) = weights.iter().find(|weight| !(0.0..=MAX_WEIGHT).contains(*weight)) {
        return Err(format!("a weight is {weight}, but weights are 0 to {MAX_WEIGHT}"));
    }
    let mut start = 0;
    while start < keys.len() {
        let same = keys[start..].iter().take_while(|key| **key == keys[start]).count();
        let rows = start..start + same;
        let weights = weights.get(rows.clone()).filter(|weights| weights.iter().any(|&weight| weight != 1.0));
        each(Run {
            shard: names.value(keys[start] as usize),
            samples: &samples[rows.clone()],
            weights: weights.unwrap_or_default(),
        })?;
        start = rows.end;
    }
    Ok(())
}

/// Writes a selection. `rows` are a shard's number in the metadata, a sample's position in the tar, and its weight, in any
/// order.
///
/// # Errors
/// It cannot be written.
pub fn write(
    path: &Location,
    metadata: &Metadata,
    rows: impl IntoIterator<Item = (u32, u32, f32)>,
) -> Result<(), Error> {
    let failed = |e: &dyn std::fmt::Display| refused(path, &format!("it cannot be written: {e}"));
    let json = serde_json::to_string(metadata).map_err(|e| failed(&e))?;
    let sample = ColumnPath::from("sample");
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_column_dictionary_enabled(sample.clone(), false)
        .set_column_encoding(sample, Encoding::DELTA_BINARY_PACKED)
        .set_key_value_metadata(Some(vec![KeyValue::new(FOOTER_KEY.to_owned(), json)]))
        .set_created_by(concat!("loader ", env!("CARGO_PKG_VERSION")).to_owned())
        .build();
    let names: ArrayRef =
        Arc::new(metadata.shards.iter().map(|shard| Some(shard.shard.as_str())).collect::<StringArray>());
    let mut rows = rows.into_iter();
    let mut writer = None;
    loop {
        let (mut shards, mut samples, mut weights) = (Vec::new(), Vec::new(), Vec::new());
        for (shard, sample, weight) in rows.by_ref().take(ROWS) {
            shards.push(shard as i32);
            samples.push(sample);
            weights.push(weight);
        }
        let last = shards.len() < ROWS;
        let shards = DictionaryArray::<Int32Type>::try_new(Int32Array::from(shards), Arc::clone(&names))
            .map_err(|e| failed(&e))?;
        let batch = RecordBatch::try_from_iter([
            ("shard", Arc::new(shards) as ArrayRef),
            ("sample", Arc::new(UInt32Array::from(samples))),
            ("weight", Arc::new(Float32Array::from(weights))),
        ])
        .map_err(|e| failed(&e))?;
        let to = match &mut writer {
            Some(writer) => writer,
            None => writer.insert(
                ArrowWriter::try_new(Vec::new(), batch.schema(), Some(properties.clone()))
                    .map_err(|e| failed(&e))?,
            ),
        };
        to.write(&batch).map_err(|e| failed(&e))?;
        if last {
            break;
        }
    }
    let bytes = writer.map(ArrowWriter::into_inner).transpose().map_err(|e| failed(&e))?.unwrap_or_default();
    Ok(storage::write(path, bytes)?)
}
