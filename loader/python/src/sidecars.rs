//! Sidecars: read as a stream of Arrow batches, and written.

use std::path::PathBuf;
use std::sync::Arc;
use std::vec;

use arrow_array::builder::{StringBuilder, StringDictionaryBuilder, UInt32Builder};
use arrow_array::cast::AsArray;
use arrow_array::types::Int32Type;
use arrow_array::{Array, ArrayRef, Int64Array, RecordBatch, RecordBatchReader, StringArray};
use arrow_cast::cast;
use arrow_schema::{ArrowError, DataType, Field, Schema, SchemaRef};
use arrow_select::concat::concat;
use concepts::checksums::{Checksums, sha256};
use concepts::sidecar::{Metadata, Writer};
use concepts::{Extractor, Mention, TaggerDescription, canonical_into};
use loader::shards;
use loader::shards::set_index::SetIndex;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyDict;
use storage::Location;

use crate::arrow::{Table, chunks};
use crate::error::{IntoPython, python};
use crate::tagging::{Offsets, extractor};
use crate::{loader as open, waiting};

/// The mentions of shards, from their sidecars.
#[pyfunction]
pub(crate) fn read_mentions(py: Python<'_>, inputs: Vec<PathBuf>) -> PyResult<Table> {
    let shards = open::list(py, inputs)?;
    let schema = schema();
    let batches = {
        let schema = Arc::clone(&schema);
        move || -> PyResult<Box<dyn RecordBatchReader + Send>> {
            waiting::check_remote(&shards)?;
            Ok(Box::new(Reader { schema: Arc::clone(&schema), shards: shards.clone().into_iter() }))
        }
    };
    Ok(Table::streamed(schema, Box::new(batches)))
}

/// The columns of sidecars, and before them the shard.
fn schema() -> SchemaRef {
    let names = || DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
    let number = |name: &str| Field::new(name, DataType::UInt32, false);
    Arc::new(Schema::new(vec![
        Field::new("shard", names(), false),
        Field::new("key", DataType::Utf8, false),
        number("sample"),
        Field::new("phrase", DataType::Utf8, false),
        Field::new("concept", names(), false),
        Field::new("head", names(), false),
        number("phrase_start"),
        number("phrase_end"),
        number("concept_start"),
        number("concept_end"),
        Field::new("tags", DataType::Utf8, false),
        number("caption"),
    ]))
}

/// Reads one sidecar after another: a batch per shard.
struct Reader {
    schema: SchemaRef,
    shards: vec::IntoIter<Location>,
}

impl Iterator for Reader {
    type Item = Result<RecordBatch, ArrowError>;

    fn next(&mut self) -> Option<Self::Item> {
        let shard = self.shards.next()?;
        let batch = read(&shard, &self.schema);
        if batch.is_err() {
            self.shards = Vec::new().into_iter();
        }
        Some(batch)
    }
}

impl RecordBatchReader for Reader {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }
}

fn read(shard: &Location, schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
    let sidecar =
        shards::sidecar::open(shard, None).map_err(|error| ArrowError::ExternalError(Box::new(error)))?;
    let name = shard.to_string();
    let mut names = [(); 3].map(|()| StringDictionaryBuilder::<Int32Type>::new());
    let mut texts = [(); 3].map(|()| StringBuilder::new());
    let mut numbers = [(); 6].map(|()| UInt32Builder::new());
    for sample in sidecar.samples_with_mentions() {
        for row in sidecar.mentions(sample) {
            for (column, value) in names.iter_mut().zip([&*name, row.concept, row.head]) {
                column.append(value)?;
            }
            for (column, value) in texts.iter_mut().zip([row.key, row.phrase, row.tags]) {
                column.append_value(value);
            }
            let (phrase, concept) = (row.phrase_span, row.concept_span);
            let values = [sample, phrase.start, phrase.end, concept.start, concept.end, row.caption];
            for (column, value) in numbers.iter_mut().zip(values) {
                column.append_value(value);
            }
        }
    }
    let [shard, concept, head] = names.map(|mut column| Arc::new(column.finish()) as ArrayRef);
    let [key, phrase, tags] = texts.map(|mut column| Arc::new(column.finish()) as ArrayRef);
    let [sample, phrase_start, phrase_end, concept_start, concept_end, caption] =
        numbers.map(|mut column| Arc::new(column.finish()) as ArrayRef);
    let columns = vec![
        shard,
        key,
        sample,
        phrase,
        concept,
        head,
        phrase_start,
        phrase_end,
        concept_start,
        concept_end,
        tags,
        caption,
    ];
    RecordBatch::try_new(Arc::clone(schema), columns)
}

/// Writes the sidecar of a shard next to it: with the mentions that are given, one list per sample of the tar, or with those that
/// the tagger finds. Returns its path and the numbers of samples and of mentions.
#[pyfunction]
#[pyo3(signature = (shard, mentions = None, *, tagger = None, offsets = "characters"))]
pub(crate) fn write_sidecar<'py>(
    py: Python<'py>,
    shard: PathBuf,
    mentions: Option<&Bound<'py, PyAny>>,
    tagger: Option<&str>,
    offsets: &str,
) -> PyResult<Bound<'py, PyDict>> {
    let shard = Location::from(shard);
    waiting::check_remote([&shard])?;
    let source = match (mentions, tagger) {
        (None, tagger) => Source::Tagger(py.detach(|| extractor(tagger.unwrap_or("perceptron")))?),
        (Some(mentions), Some(name)) => {
            let lists = Box::new(Lists::new(&chunks(mentions)?, Offsets::parse(offsets)?)?);
            let hash = sha256(name.as_bytes());
            Source::Given(lists, TaggerDescription { name: name.to_owned(), hash, grammar: 0 })
        }
        (Some(_), None) => {
            return Err(PyValueError::new_err("give the name of the tagger that has found the mentions"));
        }
    };
    let (target, metadata) = waiting::run(py, move || write(&shard, &source))??;
    let dict = PyDict::new(py);
    match &target {
        Location::Local(path) => dict.set_item("path", path)?,
        remote @ Location::Remote(_) => dict.set_item("path", remote.to_string())?,
    }
    dict.set_item("samples", metadata.samples)?;
    dict.set_item("mentions", metadata.mentions)?;
    dict.set_item("captions_without_mention", metadata.captions_without_mention)?;
    Ok(dict)
}

/// Where mentions come from.
enum Source {
    Tagger(Arc<Extractor>),
    Given(Box<Lists>, TaggerDescription),
}

fn write(shard: &Location, source: &Source) -> PyResult<(Location, Metadata)> {
    let bytes = storage::length(shard).map_err(python)?;
    let target = shards::sidecar_path(shard);
    let description = match source {
        Source::Tagger(extractor) => extractor.description(),
        Source::Given(_, description) => description.clone(),
    };
    let metadata = Metadata::new(&description, &shard.as_name(), bytes);
    let mut writer = Writer::in_memory(&target.as_name(), metadata).map_err(python)?;
    let mut text = String::new();
    let samples = shards::captions(shard, None, |key, captions| -> Result<(), Failed> {
        let sample = writer.samples();
        canonical_into(captions.texts().first().map_or("", |text| text), &mut text);
        match source {
            Source::Tagger(extractor) => {
                writer.tag(sample, key, &[text.as_str()], extractor)?;
            }
            Source::Given(lists, _) => {
                let mentions = lists.of(sample as usize, &text);
                let mentions =
                    mentions.map_err(|problem| Failed::Given(format!("sample {key}: {problem}")))?;
                writer.push(sample, key, &text, &mentions)?;
            }
        }
        writer.check(sample, captions.check());
        Ok(())
    });
    let samples = samples.map_err(|failed| match failed {
        Failed::Loader(error) => error.into_python(),
        Failed::Concepts(error) => error.into_python(),
        Failed::Given(problem) => PyValueError::new_err(problem),
    })?;
    if let Source::Given(lists, _) = source
        && lists.len() as u64 != samples
    {
        let lists = lists.len();
        let problem = format!("the shard has {samples} samples, but mentions are given for {lists}");
        return Err(PyValueError::new_err(problem));
    }
    // As `ingest tag` does it: wherever it is interrupted, no checksum is wrong.
    let (bytes, metadata) = writer.into_bytes().map_err(python)?;
    let (sums, name, sum) = (shards::sums_path(shard), target.file_name().into_owned(), sha256(&bytes));
    if let Some(folder) = shard.parent() {
        SetIndex::forget(&folder).map_err(python)?;
    }
    checksums(&sums, |sums| sums.remove(&name))?;
    storage::write(&target, bytes).map_err(python)?;
    checksums(&sums, |sums| {
        sums.set(&name, sum);
        true
    })?;
    Ok((target, metadata))
}

/// Changes a file of checksums, which may not exist; `change` says whether it has changed anything.
fn checksums(path: &Location, change: impl FnOnce(&mut Checksums) -> bool) -> PyResult<()> {
    let mut sums = match storage::read(path) {
        Ok(bytes) => Checksums::parse(&String::from_utf8_lossy(&bytes)).map_err(python)?,
        Err(error) if storage::is_missing(&error) => Checksums::default(),
        Err(error) => return Err(error.into_python()),
    };
    if change(&mut sums) {
        storage::write(path, sums.text()).map_err(python)?;
    }
    Ok(())
}

enum Failed {
    Loader(loader::Error),
    Concepts(concepts::Error),
    Given(String),
}

impl From<loader::Error> for Failed {
    fn from(error: loader::Error) -> Self {
        Self::Loader(error)
    }
}

impl From<concepts::Error> for Failed {
    fn from(error: concepts::Error) -> Self {
        Self::Concepts(error)
    }
}

/// Mentions that Python gives: for each sample a list of structs, as `tag` makes them.
struct Lists {
    starts: Vec<usize>,
    offsets: Offsets,
    start: Int64Array,
    end: Int64Array,
    concept: StringArray,
    head: Option<StringArray>,
    concept_start: Option<Int64Array>,
    concept_end: Option<Int64Array>,
    tags: Option<StringArray>,
}

impl Lists {
    fn new(chunks: &[ArrayRef], offsets: Offsets) -> PyResult<Self> {
        let wrong = || {
            PyTypeError::new_err(
                "mentions are an Arrow array with a list of structs per sample, or the result of `tag`, which has one",
            )
        };
        let chunks: Vec<&dyn Array> = chunks.iter().map(AsRef::as_ref).collect();
        let mut array = concat(&chunks).map_err(|_| wrong())?;
        if let Some(mentions) = array.as_struct_opt().and_then(|array| array.column_by_name("mentions")) {
            array = Arc::clone(mentions);
        }
        let (bounds, values): (Vec<usize>, &ArrayRef) = match array.data_type() {
            DataType::List(_) => {
                let lists = array.as_list::<i32>();
                (lists.value_offsets().iter().map(|&at| at as usize).collect(), lists.values())
            }
            DataType::LargeList(_) => {
                let lists = array.as_list::<i64>();
                (lists.value_offsets().iter().map(|&at| at as usize).collect(), lists.values())
            }
            _ => return Err(wrong()),
        };
        let values = values.as_struct_opt().ok_or_else(wrong)?;
        let column = |name: &str, kind: &DataType| -> PyResult<Option<ArrayRef>> {
            values.column_by_name(name).map(|column| cast(column, kind).map_err(python)).transpose()
        };
        let numbers = |name| -> PyResult<Option<Int64Array>> {
            Ok(column(name, &DataType::Int64)?.map(|column| column.as_primitive().clone()))
        };
        let texts = |name| -> PyResult<Option<StringArray>> {
            Ok(column(name, &DataType::Utf8)?.map(|column| column.as_string().clone()))
        };
        let missing = |name: &str| PyValueError::new_err(format!("the mentions have no column {name}"));
        Ok(Self {
            offsets,
            start: numbers("start")?.ok_or_else(|| missing("start"))?,
            end: numbers("end")?.ok_or_else(|| missing("end"))?,
            concept: texts("concept")?.ok_or_else(|| missing("concept"))?,
            head: texts("head")?,
            concept_start: numbers("concept_start")?,
            concept_end: numbers("concept_end")?,
            tags: texts("tags")?,
            starts: bounds,
        })
    }

    /// Number of samples.
    fn len(&self) -> usize {
        self.starts.len().saturating_sub(1)
    }

    /// The mentions of a sample, whose canonical text this is, or what is wrong with one of them.
    fn of(&self, sample: usize, text: &str) -> Result<Vec<Mention>, String> {
        let (Some(&first), Some(&end)) = (self.starts.get(sample), self.starts.get(sample + 1)) else {
            return Err("no mentions are given for it".to_owned());
        };
        (first..end).map(|at| self.mention(at, text)).collect()
    }

    fn mention(&self, at: usize, text: &str) -> Result<Mention, String> {
        let (start, end) = (self.start.value(at), self.end.value(at));
        let byte = |offset: i64| {
            let offset = usize::try_from(offset).ok()?;
            match self.offsets {
                Offsets::Bytes => text.is_char_boundary(offset).then_some(offset),
                Offsets::Characters => {
                    text.char_indices().map(|(byte, _)| byte).chain([text.len()]).nth(offset)
                }
            }
        };
        let span = |start: i64, end: i64| {
            let span = byte(start)?..byte(end)?;
            (span.start < span.end).then_some(span)
        };
        let wrong = || format!("{start}..{end} is no part of its normalised caption {text:?}");
        let phrase = span(start, end).ok_or_else(wrong)?;
        let number =
            |column: &Option<Int64Array>, other| column.as_ref().map_or(other, |column| column.value(at));
        let concept_span = span(number(&self.concept_start, start), number(&self.concept_end, end));
        let concept_span = concept_span.ok_or_else(wrong)?;
        let inside = phrase.start <= concept_span.start && concept_span.end <= phrase.end;
        if self.concept.is_null(at) || !inside {
            return Err(format!("the mention at {start}..{end} has no concept, or one outside of it"));
        }
        let concept = self.concept.value(at).to_owned();
        let text_of = |column: &Option<StringArray>, other: &str| {
            column.as_ref().map_or(other, |column| column.value(at)).to_owned()
        };
        Ok(Mention {
            head: text_of(&self.head, concept.rsplit(' ').next().unwrap_or_default()),
            tags: text_of(&self.tags, ""),
            head_span: concept_span.clone(),
            phrase,
            concept_span,
            concept,
        })
    }
}
