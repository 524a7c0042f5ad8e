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

use std::collections::HashMap;
use std::path::Path;
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

use crate::Error;
use crate::order::Selected;
use crate::shards::store::Expected;
use crate::shards::{Identity, image_check, stem};

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

/// What a selection has of the shards of a loader.
pub(crate) struct OfShards {
    pub(crate) shards: Vec<Selected>,
    /// The shards that it was made from.
    pub(crate) expected: Expected,
    pub(crate) check: u64,
}

/// Reads a selection of `shards`, which have these numbers of samples.
///
/// # Errors
/// It cannot be read, or is one of other shards; it has a sample twice, or none.
pub(crate) fn read(path: &Location, shards: &[Location], counts: &[u32]) -> Result<OfShards, Error> {
    let (rows, contents, check) = read_rows(path, shards, counts)?;
    let selected = rows.into_iter().map(|rows| Selected::new(rows.samples, &rows.weights)).collect();
    let since = format!("the selection {path} was made; make the selection again");
    Ok(OfShards { shards: selected, expected: Expected { shards: contents, captions: true, since }, check })
}

/// The positions of the selected samples of each of `shards`, in tar order, where samples can only be taken or not: without those of
/// weight 0. The shards have these numbers of samples, and are what distinguishes them from others.
///
/// # Errors
/// As when a loader opens it, or a weight is neither 0 nor 1.
pub fn taken(
    path: &Location,
    shards: &[Location],
    counts: &[u32],
    contents: &[Identity],
) -> Result<Vec<Vec<u32>>, Error> {
    let (rows, expected, _) = read_rows(path, shards, counts)?;
    let mut taken = Vec::new();
    for (shard, rows) in rows.into_iter().enumerate() {
        let changed = expected[shard].and_then(|expected| expected.difference(&contents[shard], true));
        if let Some(what) = changed {
            let problem =
                format!("has {what} than when the selection {path} was made; make the selection again");
            return Err(Error::Changed { path: shards[shard].clone(), problem });
        }
        let Rows { mut samples, weights } = rows;
        if let Some(weight) = weights.iter().find(|weight| ![0.0, 1.0].contains(*weight)) {
            let problem = format!(
                "a sample of {} has the weight {weight}, but here a sample is taken once or not at all: give all the weight 1 \
                 or leave the column out, or let the loader read the selection",
                shards[shard]
            );
            return Err(refused(path, &problem));
        }
        if !weights.is_empty() {
            let mut weights = weights.iter();
            samples.retain(|_| weights.next() == Some(&1.0));
        }
        taken.push(samples);
    }
    Ok(taken)
}

/// The rows of each of `shards` in tar order, the contents that the selection expects of it, and the check of the selection.
type RowsOfShards = (Vec<Rows>, Vec<Option<Identity>>, u64);

fn read_rows(path: &Location, shards: &[Location], counts: &[u32]) -> Result<RowsOfShards, Error> {
    let samples = counts.iter().map(|&count| u64::from(count)).sum();
    let file = SelectionFile::open(path, samples)?;
    if let Some(other) = file.other_column() {
        let problem = format!(
            "it has a column {other}, which a selection does not have: leave it out, so that it is certain what was meant"
        );
        return Err(refused(path, &problem));
    }
    let check = file.check;
    let names = Names::new(shards);
    let mut contents = vec![None; shards.len()];
    if let Some(metadata) = &file.metadata {
        contents =
            known_shards(metadata, &names, shards, counts).map_err(|problem| refused(path, &problem))?;
    }
    let mut rows: Vec<Rows> = Vec::new();
    rows.resize_with(shards.len(), Rows::default);
    file.visit(|run| {
        let shard = names.number(run.shard)?;
        let count = counts[shard];
        if let Some(sample) = run.samples.iter().find(|sample| **sample >= count) {
            return Err(format!(
                "it has sample {sample} of {}, which has {count} samples, numbered from 0",
                run.shard
            ));
        }
        rows[shard].push(run);
        Ok(())
    })?;
    let sorted = rows.into_iter().zip(shards).map(|(rows, shard)| {
        rows.sorted().map_err(|twice| refused(path, &format!("it has sample {twice} of {shard} twice")))
    });
    Ok((sorted.collect::<Result<Vec<_>, _>>()?, contents, check))
}

/// The contents that a selection expects of the shards.
fn known_shards(
    metadata: &Metadata,
    names: &Names<'_>,
    shards: &[Location],
    counts: &[u32],
) -> Result<Vec<Option<Identity>>, String> {
    let mut contents = vec![None; shards.len()];
    let mut known = vec![false; shards.len()];
    for ShardOfSelection { shard, samples, content } in &metadata.shards {
        // Only its rows must be of shards that are there.
        let Ok(number) = names.number(shard) else { continue };
        if counts[number] != *samples {
            return Err(format!(
                "it was made when {} had {samples} samples, but it has {}; make the selection again",
                shards[number], counts[number]
            ));
        }
        (contents[number], known[number]) = (*content, true);
    }
    match known.iter().position(|known| !known) {
        Some(number) => Err(format!(
            "it was not made from {}: leave this shard out, or make a selection of all shards",
            shards[number]
        )),
        None => Ok(contents),
    }
}

/// The rows of one shard.
#[derive(Default)]
struct Rows {
    samples: Vec<u32>,
    /// Empty as long as all weights are 1.
    weights: Vec<f32>,
}

impl Rows {
    fn push(&mut self, run: Run<'_>) {
        if !run.weights.is_empty() {
            self.weights.resize(self.samples.len(), 1.0);
        }
        self.samples.extend_from_slice(run.samples);
        if !self.weights.is_empty() || !run.weights.is_empty() {
            self.weights.extend_from_slice(run.weights);
            self.weights.resize(self.samples.len(), 1.0);
        }
    }

    /// In tar order; the error is a sample that comes twice.
    fn sorted(mut self) -> Result<Self, u32> {
        if !self.samples.is_sorted() {
            if self.weights.is_empty() {
                self.samples.sort_unstable();
            } else {
                let mut rows: Vec<(u32, f32)> = self.samples.into_iter().zip(self.weights).collect();
                rows.sort_by_key(|&(sample, _)| sample);
                (self.samples, self.weights) = rows.into_iter().unzip();
            }
        }
        match self.samples.array_windows().find(|[a, b]| a == b) {
            Some(&[twice, _]) => Err(twice),
            None => Ok(self),
        }
    }
}

/// Finds shards by their names in a selection.
#[derive(Debug)]
pub struct Names<'a> {
    shards: &'a [Location],
    /// By file name, with and without its suffix.
    by_file_name: HashMap<String, Vec<usize>>,
}

impl<'a> Names<'a> {
    /// Of these shards.
    pub fn new(shards: &'a [Location]) -> Self {
        let mut by_file_name: HashMap<String, Vec<usize>> = HashMap::new();
        for (number, shard) in shards.iter().enumerate() {
            by_file_name.entry(shard.file_name().into_owned()).or_default().push(number);
            if let Some(stem) = stem(shard) {
                by_file_name.entry(stem.to_owned()).or_default().push(number);
            }
        }
        Self { shards, by_file_name }
    }

    /// The number of the shard whose path, with or without the suffix, ends with `name`.
    ///
    /// # Errors
    /// There is none, or more than one: the end of a sentence.
    pub fn number(&self, name: &str) -> Result<usize, String> {
        let (folder, file_name) = name.rsplit_once('/').unwrap_or(("", name));
        let fits = |number: &&usize| {
            let path = self.shards[**number].as_name();
            folder.is_empty() || path.parent().is_some_and(|parent| parent.ends_with(Path::new(folder)))
        };
        let found = self.by_file_name.get(file_name).map_or(&[][..], Vec::as_slice);
        let mut found = found.iter().filter(fits);
        match (found.next(), found.next()) {
            (Some(&number), None) => Ok(number),
            (None, _) => Err(format!("it is of the shard {name}, which is not among the shards")),
            (Some(&one), Some(&other)) => Err(format!(
                "{name} may be {} or {}: give the shards in the selection with as much of their path as tells them apart",
                self.shards[one], self.shards[other]
            )),
        }
    }
}

/// Names for shards in a selection: the file names if they differ, otherwise with as many folders as are needed.
pub fn names(shards: &[Location]) -> Vec<String> {
    let paths: Vec<Vec<String>> = shards
        .iter()
        .map(|shard| shard.as_name().to_string_lossy().split('/').map(str::to_owned).collect())
        .collect();
    let longest = paths.iter().map(Vec::len).max().unwrap_or_default();
    for parts in 1..=longest {
        let names: Vec<String> =
            paths.iter().map(|path| path[path.len().saturating_sub(parts)..].join("/")).collect();
        let mut sorted: Vec<&String> = names.iter().collect();
        sorted.sort_unstable();
        if sorted.array_windows().all(|[a, b]| a != b) {
            return names;
        }
    }
    paths.iter().map(|path| path.join("/")).collect()
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
