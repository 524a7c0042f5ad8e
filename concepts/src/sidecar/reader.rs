//! Reads a sidecar: all mentions of a shard in memory, with every distinct string stored once.

use std::collections::HashMap;
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};

use arrow_array::RecordBatch;
use arrow_array::cast::AsArray;
use arrow_array::types::{Int32Type, UInt32Type};
use arrow_array::{Array, ArrayRef, DictionaryArray};
use arrow_cast::cast;
use arrow_schema::DataType;
use bytes::Bytes;
use serde::Deserialize;

use super::captions::{CaptionCheck, CaptionChecks, Captions};
use super::{FIELD_VERSION, FOOTER_KEY, MentionRow, Metadata, OLDEST_VERSION, writer};
use crate::Error;
use crate::tables::{Budget, Table, TableError, Texts, load_end};

/// The mentions of one shard, in memory.
#[derive(Debug)]
pub struct Sidecar {
    /// What the sidecar was made from, and with which tagger.
    pub metadata: Metadata,
    path: PathBuf,
    strings: Strings,
    rows: Vec<Row>,
    /// Of each row, the number of the caption in its sample; empty if samples have one caption each.
    captions: Vec<u32>,
    /// The distinct concepts, as ids of `strings`, in the order of their first mention.
    concepts: Vec<u32>,
    /// The samples with mentions, in tar order.
    samples: Vec<u32>,
    /// The rows of `samples[i]` are `starts[i]..starts[i + 1]`; the last one is the number of rows.
    starts: Vec<u32>,
    /// What the captions were when they were tagged; `None` in sidecars of version 1.
    checks: Option<CaptionChecks>,
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
    /// The file cannot be read, or it is not a complete sidecar of a version that is read (see [`Metadata`]).
    pub fn open(path: &Path) -> Result<Self, Error> {
        Self::from_bytes(path, std::fs::read(path).map_err(Error::io(path, "read"))?.into())
    }

    /// The same from the bytes of a sidecar; `path` is its name in errors.
    #[expect(clippy::needless_pass_by_value, reason = "a reference would be one to a reference")]
    pub fn from_bytes(path: &Path, bytes: Bytes) -> Result<Self, Error> {
        Self::read(path, &bytes).map_err(|problem| broken(path, problem))
    }

    fn read(path: &Path, bytes: &Bytes) -> Result<Self, TableError> {
        let table = Table::open(bytes.clone(), Texts::Dictionaries)?;
        let metadata = metadata_of(table.footer())?;
        let checks = metadata.captions.as_ref();
        let checks = checks.map(|captions| read_checks(bytes, captions, metadata.samples)).transpose()?;
        let mut sidecar = Self {
            samples: Vec::new(),
            starts: Vec::new(),
            rows: Vec::new(),
            captions: Vec::new(),
            strings: Strings { budget: Budget::for_file(table.bytes()), ..Strings::default() },
            concepts: Vec::new(),
            path: path.to_owned(),
            metadata,
            checks,
        };
        let mut interner = Interner::default();
        for batch in table.batches(None, writer::ROW_GROUP)? {
            sidecar.add(&batch?, &mut interner)?;
        }
        if sidecar.rows.len() as u64 != sidecar.metadata.mentions {
            return Err(TableError::content("its number of rows differs from the count in its footer"));
        }
        sidecar.starts.push(sidecar.rows.len() as u32);
        Ok(sidecar)
    }

    /// Reads only the metadata, from the footer.
    pub fn read_metadata(path: &Path) -> Result<Metadata, Error> {
        let file = File::open(path).map_err(Error::io(path, "read"))?;
        let footer = crate::tables::load(&file);
        let metadata = footer.and_then(|footer| metadata_of(footer.metadata().file_metadata()));
        metadata.map_err(|problem| broken(path, problem))
    }

    /// The same from the last bytes of a sidecar of `length` bytes, which must include the footer.
    pub fn metadata_at_end(path: &Path, end: &Bytes, length: u64) -> Result<Metadata, Error> {
        let footer = load_end(end, length);
        footer.and_then(|footer| metadata_of(footer.file_metadata())).map_err(|problem| broken(path, problem))
    }

    fn add(&mut self, batch: &RecordBatch, interner: &mut Interner) -> Result<(), TableError> {
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
        self.strings.budget.keep_rows(batch.num_rows(), size_of::<Row>())?;
        if self.metadata.field.is_some() {
            self.strings.budget.keep_rows(batch.num_rows(), size_of::<u32>())?;
            self.captions.extend_from_slice(numbers(batch, "caption")?.as_primitive::<UInt32Type>().values());
        }
        for row in 0..batch.num_rows() {
            let sample = sample.value(row);
            if sample >= self.metadata.samples {
                let samples = self.metadata.samples;
                let problem = format!("it has sample {sample}, but the shard has {samples} samples");
                return Err(TableError::content(problem));
            }
            if self.samples.last().is_some_and(|&last| sample < last) {
                return Err(TableError::content(format!("its rows are not in tar order at sample {sample}")));
            }
            let at = self.rows.len();
            if self.samples.last() != Some(&sample) {
                self.samples.push(sample);
                self.starts.push(at as u32);
            } else if at > 0 && self.captions.get(at - 1) > self.captions.get(at) {
                let problem = format!("its rows are not in the order of the captions at sample {sample}");
                return Err(TableError::content(problem));
            }
            let [key, phrase, concept, head, tags] = [0, 1, 2, 3, 4].map(|column: usize| texts[column][row]);
            let spans = [0, 1, 2, 3].map(|column: usize| spans[column][row]);
            let phrase_bytes = self.strings.get(phrase).len() as u64;
            if u64::from(spans[0]) + phrase_bytes != u64::from(spans[1])
                || !(spans[0] <= spans[2] && spans[2] <= spans[3] && spans[3] <= spans[1])
            {
                let problem = format!("a row of sample {sample} has offsets that do not match its phrase");
                return Err(TableError::content(problem));
            }
            let concept = *interner.concepts.entry(concept).or_insert_with(|| {
                self.concepts.push(concept);
                self.concepts.len() as u32 - 1
            });
            self.rows.push(Row { key, phrase, concept, head, tags, spans });
        }
        Ok(())
    }

    /// The mentions of the sample at this position in the tar, caption by caption and from left to right; empty if there is no
    /// such sample.
    pub fn mentions(&self, sample: u32) -> impl Iterator<Item = MentionRow<'_>> {
        let rows = self.range_of(sample);
        let captions = self.captions.get(rows.clone()).unwrap_or_default();
        self.rows[rows].iter().enumerate().map(move |(at, row)| MentionRow {
            key: self.strings.get(row.key),
            sample,
            caption: captions.get(at).copied().unwrap_or_default(),
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
    pub fn concept_names(&self) -> impl Iterator<Item = &str> {
        self.concepts.iter().map(|&id| self.strings.get(id))
    }

    /// The concepts of a sample's mentions, as indices into [`Sidecar::concept_names`].
    pub fn concept_ids(&self, sample: u32) -> impl Iterator<Item = u32> {
        self.rows_of(sample).iter().map(|row| row.concept)
    }

    fn rows_of(&self, sample: u32) -> &[Row] {
        &self.rows[self.range_of(sample)]
    }

    fn range_of(&self, sample: u32) -> Range<usize> {
        let Ok(at) = self.samples.binary_search(&sample) else { return 0..0 };
        self.starts[at] as usize..self.starts[at + 1] as usize
    }

    /// The samples with at least one mention, in tar order.
    pub fn samples_with_mentions(&self) -> impl Iterator<Item = u32> {
        self.samples.iter().copied()
    }

    /// Whether a sample's captions are those that were tagged. `None` if the sidecar cannot tell: it has version 1, or the
    /// shard has no such sample.
    pub fn has_captions(&self, sample: u32, check: CaptionCheck) -> Option<bool> {
        self.checks.as_ref()?.matches(sample, check)
    }

    /// The check of a sample's captions; `None` if the sidecar has none: it has version 1, or the shard has no
    /// such sample.
    pub fn check(&self, sample: u32) -> Option<CaptionCheck> {
        self.checks.as_ref()?.get(sample)
    }

    /// Returns an error if this sidecar was not made from this shard, with this size and number of samples, or if its offsets
    /// count in canonical text of another version.
    pub fn refuse_unless_for(&self, shard: &Path, shard_bytes: u64, samples: u32) -> Result<(), Error> {
        self.metadata.refuse_unless_for(&self.path, shard, shard_bytes, samples)
    }
}

pub(super) fn metadata_of(footer: &parquet::file::metadata::FileMetaData) -> Result<Metadata, TableError> {
    let json = footer
        .key_value_metadata()
        .and_then(|pairs| pairs.iter().find(|pair| pair.key == FOOTER_KEY))
        .and_then(|pair| pair.value.as_deref())
        .ok_or_else(|| TableError::content(format!("its footer has no key {FOOTER_KEY:?}")))?;
    Metadata::from_json(json)
}

/// What the metadata of every version have.
#[derive(Deserialize)]
struct About {
    #[serde(default)]
    version: u64,
}

pub(super) fn metadata_from(json: &str) -> Result<Metadata, TableError> {
    let About { version } = serde_json::from_str(json).map_err(TableError::content)?;
    if !(u64::from(OLDEST_VERSION)..=u64::from(FIELD_VERSION)).contains(&version) {
        return Err(TableError::content(format!(
            "it has version {version}, but this program reads versions {OLDEST_VERSION} to {FIELD_VERSION}"
        )));
    }
    let metadata: Metadata = serde_json::from_str(json).map_err(TableError::content)?;
    if metadata.captions.is_some() != (metadata.version > OLDEST_VERSION)
        || metadata.field.is_some() != (metadata.version == FIELD_VERSION)
    {
        let problem = format!("its version {version} does not fit the fields of its footer");
        return Err(TableError::content(problem));
    }
    Ok(metadata)
}

/// Reads the checks of the captions and compares them with the footer.
fn read_checks(file: &Bytes, captions: &Captions, samples: u32) -> Result<CaptionChecks, TableError> {
    let range = captions.range(samples, file.len())?;
    let checks = CaptionChecks::from_bytes(&file[range]);
    if checks.sha256() == captions.sha256 {
        Ok(checks)
    } else {
        Err(TableError::damaged("the checks of its captions are damaged"))
    }
}

pub(super) fn broken(path: &Path, problem: impl std::fmt::Display) -> Error {
    Error::table(path, format!("it is not a valid sidecar: {problem}; tag the shard again"))
}

pub(super) fn column<'a>(batch: &'a RecordBatch, name: &str) -> Result<&'a ArrayRef, TableError> {
    let none = || TableError::content(format!("it has no column {name:?}"));
    let column = batch.column_by_name(name).ok_or_else(none)?;
    if column.null_count() > 0 {
        return Err(TableError::content(format!("column {name:?} has nulls")));
    }
    Ok(column)
}

pub(super) fn numbers(batch: &RecordBatch, name: &str) -> Result<ArrayRef, TableError> {
    let array = cast(column(batch, name)?, &DataType::UInt32).map_err(TableError::content)?;
    if array.null_count() > 0 {
        return Err(TableError::content(format!("column {name:?} has values that are not uint32")));
    }
    Ok(array)
}

pub(super) fn dictionary(batch: &RecordBatch, name: &str) -> Result<DictionaryArray<Int32Type>, TableError> {
    let kind = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
    let array = cast(column(batch, name)?, &kind).map_err(TableError::content)?;
    let other = || TableError::content(format!("column {name:?} is not text"));
    array.as_dictionary_opt::<Int32Type>().cloned().ok_or_else(other)
}

/// Used while reading: the ids of the strings and concepts seen so far.
#[derive(Default)]
struct Interner {
    strings: HashMap<String, u32>,
    /// From string id to concept index.
    concepts: HashMap<u32, u32>,
}

/// Distinct strings in one allocation.
#[derive(Debug)]
struct Strings {
    text: String,
    ends: Vec<u32>,
    budget: Budget,
}

impl Default for Strings {
    fn default() -> Self {
        Self { text: String::new(), ends: Vec::new(), budget: Budget::for_file(0) }
    }
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
    ) -> Result<Vec<u32>, TableError> {
        let values = array
            .values()
            .as_string_opt::<i32>()
            .ok_or_else(|| TableError::content("a text column is not UTF-8"))?;
        let mut of_value = Vec::with_capacity(values.len());
        for value in values {
            let value = value.unwrap_or_default();
            of_value.push(if let Some(&id) = ids.get(value) {
                id
            } else {
                self.budget.keep(value)?;
                let id = self.ends.len() as u32;
                self.text.push_str(value);
                let long = |_| TableError::too_large("its text is longer than 4 GiB");
                self.ends.push(u32::try_from(self.text.len()).map_err(long)?);
                ids.insert(value.to_owned(), id);
                id
            });
        }
        let of_row = |&key: &i32| of_value.get(key as usize).copied();
        array
            .keys()
            .values()
            .iter()
            .map(of_row)
            .collect::<Option<_>>()
            .ok_or_else(|| TableError::damaged("a text column is damaged"))
    }
}
