//! Reads a sidecar: all mentions of a shard in memory, with every distinct string stored once.

use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use arrow_array::RecordBatch;
use arrow_array::cast::AsArray;
use arrow_array::types::{Int32Type, UInt32Type};
use arrow_array::{Array, ArrayRef, DictionaryArray};
use arrow_cast::cast;
use arrow_schema::DataType;
use bytes::Bytes;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::file::metadata::ParquetMetaDataReader;
use parquet::file::reader::{ChunkReader, Length};

use super::{FOOTER_KEY, MentionRow, Metadata, VERSION, writer};
use crate::Error;

/// The mentions of one shard, in memory.
#[derive(Debug)]
pub struct Sidecar {
    /// What the sidecar was made from, and with which tagger.
    pub metadata: Metadata,
    path: PathBuf,
    strings: Strings,
    rows: Vec<Row>,
    /// The distinct concepts, as ids of `strings`, in the order of their first mention.
    concepts: Vec<u32>,
    /// The rows of sample i are `starts[i]..starts[i + 1]`.
    starts: Vec<u32>,
}

/// A mention. Strings are ids of [`Strings`]; the concept is an index into [`Sidecar::concepts`].
#[derive(Debug, Clone, Copy)]
struct Row {
    key: u32,
    phrase: u32,
    concept: u32,
    head: u32,
    tags: u32,
    spans: [u32; 4],
}

impl Sidecar {
    /// Reads the sidecar at `path`.
    ///
    /// # Errors
    /// The file cannot be read, or it is not a complete sidecar of this [`VERSION`].
    pub fn open(path: &Path) -> Result<Self, Error> {
        Self::from_chunks(path, File::open(path).map_err(Error::io(path, "read"))?)
    }

    /// The same from the bytes of a sidecar; `path` is its name in errors.
    pub fn from_bytes(path: &Path, bytes: Bytes) -> Result<Self, Error> {
        Self::from_chunks(path, bytes)
    }

    fn from_chunks(path: &Path, chunks: impl ChunkReader + 'static) -> Result<Self, Error> {
        let broken = |e: &dyn std::fmt::Display| {
            Error::table(path, format!("it is not a valid sidecar: {e}; tag the shard again"))
        };
        let builder = ParquetRecordBatchReaderBuilder::try_new(chunks).map_err(|e| broken(&e))?;
        let metadata = metadata_of(builder.metadata().file_metadata()).map_err(|e| broken(&e))?;
        let mut sidecar = Self {
            starts: Vec::with_capacity(metadata.samples as usize + 1),
            rows: Vec::new(),
            strings: Strings::default(),
            concepts: Vec::new(),
            path: path.to_owned(),
            metadata,
        };
        let mut interner = Interner::default();
        for batch in builder.with_batch_size(writer::ROW_GROUP).build().map_err(|e| broken(&e))? {
            let batch = batch.map_err(|e| broken(&e))?;
            sidecar.add(&batch, &mut interner).map_err(|e| broken(&e))?;
        }
        if sidecar.rows.len() as u64 != sidecar.metadata.mentions {
            return Err(broken(&"its number of rows differs from the count in its footer"));
        }
        sidecar.starts.resize(sidecar.metadata.samples as usize + 1, sidecar.rows.len() as u32);
        Ok(sidecar)
    }

    /// Reads only the metadata, from the footer.
    pub fn read_metadata(path: &Path) -> Result<Metadata, Error> {
        let file = File::open(path).map_err(Error::io(path, "read"))?;
        let length = file.len();
        Self::metadata_at_end(path, &file, length)
    }

    /// The same from the last bytes of a sidecar of `length` bytes, which must include the footer.
    pub fn metadata_at_end<C: ChunkReader>(path: &Path, end: &C, length: u64) -> Result<Metadata, Error> {
        let broken = |e: &dyn std::fmt::Display| {
            Error::table(path, format!("it is not a valid sidecar: {e}; tag the shard again"))
        };
        let mut reader = ParquetMetaDataReader::new();
        reader.try_parse_sized(end, length).map_err(|e| broken(&e))?;
        let footer = reader.finish().map_err(|e| broken(&e))?;
        metadata_of(footer.file_metadata()).map_err(|e| broken(&e))
    }

    fn add(&mut self, batch: &RecordBatch, interner: &mut Interner) -> Result<(), String> {
        let sample = numbers(batch, "sample")?;
        let sample = sample.as_primitive::<UInt32Type>();
        let mut texts = [const { Vec::new() }; 5];
        for (ids, name) in texts.iter_mut().zip(["key", "phrase", "concept", "head", "tags"]) {
            *ids = self.strings.intern(&dictionary(batch, name)?, &mut interner.strings)?;
        }
        let mut spans = Vec::new();
        for name in ["phrase_start", "phrase_end", "concept_start", "concept_end"] {
            spans.push(numbers(batch, name)?.as_primitive::<UInt32Type>().values().clone());
        }
        for row in 0..batch.num_rows() {
            let sample = sample.value(row);
            if sample >= self.metadata.samples {
                return Err(format!(
                    "it has sample {sample}, but the shard has {} samples",
                    self.metadata.samples
                ));
            }
            if sample as usize + 1 < self.starts.len() {
                return Err(format!("its rows are not in tar order at sample {sample}"));
            }
            self.starts.resize(sample as usize + 1, self.rows.len() as u32);
            let [key, phrase, concept, head, tags] = [0, 1, 2, 3, 4].map(|column: usize| texts[column][row]);
            let spans = [0, 1, 2, 3].map(|column: usize| spans[column][row]);
            let phrase_bytes = self.strings.get(phrase).len() as u64;
            if u64::from(spans[0]) + phrase_bytes != u64::from(spans[1])
                || !(spans[0] <= spans[2] && spans[2] <= spans[3] && spans[3] <= spans[1])
            {
                return Err(format!("a row of sample {sample} has offsets that do not match its phrase"));
            }
            let concept = *interner.concepts.entry(concept).or_insert_with(|| {
                self.concepts.push(concept);
                self.concepts.len() as u32 - 1
            });
            self.rows.push(Row { key, phrase, concept, head, tags, spans });
        }
        Ok(())
    }

    /// The mentions of the sample at this position in the tar, from left to right; empty if there is no such sample.
    pub fn mentions(&self, sample: u32) -> impl Iterator<Item = MentionRow<'_>> {
        self.rows_of(sample).iter().map(move |row| MentionRow {
            key: self.strings.get(row.key),
            sample,
            phrase: self.strings.get(row.phrase),
            concept: self.strings.get(self.concepts[row.concept as usize]),
            head: self.strings.get(row.head),
            phrase_span: row.spans[0]..row.spans[1],
            concept_span: row.spans[2]..row.spans[3],
            tags: self.strings.get(row.tags),
        })
    }

    /// The key of a sample; `None` if the sample has no mention.
    pub fn key(&self, sample: u32) -> Option<&str> {
        self.rows_of(sample).first().map(|row| self.strings.get(row.key))
    }

    /// The distinct concepts, in the order of their first mention.
    pub(crate) fn concept_names(&self) -> impl Iterator<Item = &str> {
        self.concepts.iter().map(|&id| self.strings.get(id))
    }

    /// The concepts of a sample's mentions, as indices into [`Sidecar::concept_names`].
    pub(crate) fn concept_ids(&self, sample: u32) -> impl Iterator<Item = u32> {
        self.rows_of(sample).iter().map(|row| row.concept)
    }

    fn rows_of(&self, sample: u32) -> &[Row] {
        let sample = sample as usize;
        match self.starts.get(sample..).unwrap_or_default() {
            [start, end, ..] => &self.rows[*start as usize..*end as usize],
            _ => &[],
        }
    }

    /// Returns an error if this sidecar was not made from this shard, with this size and number of samples, or if its offsets
    /// count in canonical text of another version.
    pub fn refuse_unless_for(&self, shard: &Path, shard_bytes: u64, samples: u32) -> Result<(), Error> {
        self.metadata.refuse_unless_for(&self.path, shard, shard_bytes, samples)
    }
}

pub(super) fn metadata_of(footer: &parquet::file::metadata::FileMetaData) -> Result<Metadata, String> {
    let json = footer
        .key_value_metadata()
        .and_then(|pairs| pairs.iter().find(|pair| pair.key == FOOTER_KEY))
        .and_then(|pair| pair.value.as_deref())
        .ok_or_else(|| format!("its footer has no key {FOOTER_KEY:?}"))?;
    let json: serde_json::Value = serde_json::from_str(json).map_err(|e| e.to_string())?;
    let version = json.get("version").and_then(serde_json::Value::as_u64);
    if version != Some(u64::from(VERSION)) {
        return Err(format!("it has version {version:?}, but this program reads version {VERSION}"));
    }
    serde_json::from_value(json).map_err(|e| e.to_string())
}

pub(super) fn column<'a>(batch: &'a RecordBatch, name: &str) -> Result<&'a ArrayRef, String> {
    let column = batch.column_by_name(name).ok_or_else(|| format!("it has no column {name:?}"))?;
    if column.null_count() > 0 {
        return Err(format!("column {name:?} has nulls"));
    }
    Ok(column)
}

pub(super) fn numbers(batch: &RecordBatch, name: &str) -> Result<ArrayRef, String> {
    let array = cast(column(batch, name)?, &DataType::UInt32).map_err(|e| e.to_string())?;
    if array.null_count() > 0 {
        return Err(format!("column {name:?} has values that are not uint32"));
    }
    Ok(array)
}

pub(super) fn dictionary(batch: &RecordBatch, name: &str) -> Result<DictionaryArray<Int32Type>, String> {
    let kind = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
    let array = cast(column(batch, name)?, &kind).map_err(|e| e.to_string())?;
    array.as_dictionary_opt::<Int32Type>().cloned().ok_or_else(|| format!("column {name:?} is not text"))
}

/// Used while reading: the ids of the strings and concepts seen so far.
#[derive(Default)]
struct Interner {
    strings: HashMap<String, u32>,
    /// From string id to concept index.
    concepts: HashMap<u32, u32>,
}

/// Distinct strings in one allocation.
#[derive(Debug, Default)]
struct Strings {
    text: String,
    ends: Vec<u32>,
}

impl Strings {
    fn get(&self, id: u32) -> &str {
        let id = id as usize;
        let start = if id == 0 { 0 } else { self.ends[id - 1] as usize };
        &self.text[start..self.ends[id] as usize]
    }

    /// The string id of every row.
    fn intern(
        &mut self,
        array: &DictionaryArray<Int32Type>,
        ids: &mut HashMap<String, u32>,
    ) -> Result<Vec<u32>, String> {
        let values = array.values().as_string_opt::<i32>().ok_or("a text column is not UTF-8")?;
        let mut of_value = Vec::with_capacity(values.len());
        for value in values {
            let value = value.unwrap_or_default();
            of_value.push(if let Some(&id) = ids.get(value) {
                id
            } else {
                let id = self.ends.len() as u32;
                self.text.push_str(value);
                self.ends.push(u32::try_from(self.text.len()).map_err(|_| "its text is longer than 4 GiB")?);
                ids.insert(value.to_owned(), id);
                id
            });
        }
        Ok(array.keys().values().iter().map(|&key| of_value[key as usize]).collect())
    }
}
