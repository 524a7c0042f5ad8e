//! Sidecars: read as a stream of Arrow batches, and written.

use std::path::PathBuf;
use std::sync::Arc;
use std::vec;

use arrow_array::builder::{StringBuilder, StringDictionaryBuilder, UInt32Builder};
use arrow_array::types::Int32Type;
use arrow_array::{ArrayRef, RecordBatch, RecordBatchReader};
use arrow_schema::{ArrowError, DataType, Field, Schema, SchemaRef};
use concepts::canonical_into;
use concepts::sidecar::{Metadata, Writer};
use loader::shards;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use storage::Location;

use crate::arrow::Table;
use crate::error::{IntoPython, python};
use crate::tagging::extractor;
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
    let mut numbers = [(); 5].map(|()| UInt32Builder::new());
    for sample in sidecar.samples_with_mentions() {
        for row in sidecar.mentions(sample) {
            for (column, value) in names.iter_mut().zip([&*name, row.concept, row.head]) {
                column.append(value)?;
            }
            for (column, value) in texts.iter_mut().zip([row.key, row.phrase, row.tags]) {
                column.append_value(value);
            }
            let (phrase, concept) = (row.phrase_span, row.concept_span);
            let values = [sample, phrase.start, phrase.end, concept.start, concept.end];
            for (column, value) in numbers.iter_mut().zip(values) {
                column.append_value(value);
            }
        }
    }
    let [shard, concept, head] = names.map(|mut column| Arc::new(column.finish()) as ArrayRef);
    let [key, phrase, tags] = texts.map(|mut column| Arc::new(column.finish()) as ArrayRef);
    let [sample, phrase_start, phrase_end, concept_start, concept_end] =
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
    ];
    RecordBatch::try_new(Arc::clone(schema), columns)
}

/// Tags the captions of a shard and writes its sidecar next to it. Returns the numbers of samples and of mentions.
#[pyfunction]
#[pyo3(signature = (shard, *, tagger = "perceptron"))]
pub(crate) fn write_sidecar<'py>(
    py: Python<'py>,
    shard: PathBuf,
    tagger: &str,
) -> PyResult<Bound<'py, PyDict>> {
    let Location::Local(path) = Location::from(shard) else {
        return Err(PyValueError::new_err(
            "sidecars of remote shards are written by the program `ingest tag`",
        ));
    };
    let extractor = py.detach(|| extractor(tagger))?;
    let written = waiting::run(py, move || -> Result<_, PyErr> {
        let bytes = storage::length(&path).map_err(python)?;
        let target = concepts::sidecar::path_for(&path);
        let metadata = Metadata::new(&extractor.description(), &path, bytes);
        let mut writer = Writer::create(&target, metadata).map_err(python)?;
        let mut text = String::new();
        shards::captions(&path, |key, caption| -> Result<(), Failed> {
            let sample = writer.samples();
            let raw = caption.unwrap_or_default();
            canonical_into(&String::from_utf8_lossy(raw), &mut text);
            writer.tag(sample, key, &text, &extractor)?;
            writer.check(sample, raw);
            Ok(())
        })
        .map_err(|failed| match failed {
            Failed::Loader(error) => error.into_python(),
            Failed::Concepts(error) => error.into_python(),
        })?;
        let metadata = writer.finish().map_err(python)?;
        Ok((target, metadata))
    })?;
    let (target, metadata) = written?;
    let dict = PyDict::new(py);
    dict.set_item("path", target)?;
    dict.set_item("samples", metadata.samples)?;
    dict.set_item("mentions", metadata.mentions)?;
    dict.set_item("captions_without_mention", metadata.captions_without_mention)?;
    Ok(dict)
}

enum Failed {
    Loader(loader::Error),
    Concepts(concepts::Error),
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
