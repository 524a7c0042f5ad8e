//! `tag`: from captions to their mentions, as Arrow arrays.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use arrow_array::builder::{Int32Builder, ListBuilder, StringBuilder, StructBuilder};
use arrow_array::cast::AsArray;
use arrow_array::{Array as _, ArrayRef, StructArray};
use arrow_cast::cast;
use arrow_schema::{DataType, Field, Fields};
use arrow_select::concat::concat;
use concepts::sidecar::MentionRow;
use concepts::{Extractor, MentionView, TaggerKind, canonical_into};
use pyo3::exceptions::{PyRuntimeError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyString;

use crate::arrow::{Array, chunks, offers_arrow};
use crate::bank::Bank;
use crate::error::python;
use crate::waiting::{self, Process};

/// Captions that a thread takes at a time.
const PIECE: usize = 512;

/// The extractors in use; loading one takes longer than tagging thousands of captions.
static EXTRACTORS: Mutex<Vec<(TaggerKind, Process, Arc<Extractor>)>> = Mutex::new(Vec::new());

pub(crate) fn extractor(tagger: &str) -> PyResult<Arc<Extractor>> {
    let kind: TaggerKind = tagger.parse().map_err(python)?;
    let mut loaded = EXTRACTORS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, process, extractor)) = loaded.iter().find(|(of, ..)| *of == kind) {
        // It has threads of its own, and cannot even be loaded again in a fork.
        if kind == TaggerKind::Nlprule && !process.is_here() {
            return Err(PyRuntimeError::new_err(
                "the tagger nlprule was used before this process was forked, so this fork cannot use it; take another tagger, or \
                 start processes with the method \"spawn\"",
            ));
        }
        return Ok(Arc::clone(extractor));
    }
    let extractor = Arc::new(Extractor::new(kind).map_err(python)?);
    loaded.push((kind, Process::this(), Arc::clone(&extractor)));
    Ok(extractor)
}

/// In what offsets count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Offsets {
    Characters,
    Bytes,
}

impl Offsets {
    pub(crate) fn parse(text: &str) -> PyResult<Self> {
        match text {
            "characters" => Ok(Self::Characters),
            "bytes" => Ok(Self::Bytes),
            _ => Err(PyValueError::new_err(format!("offsets is {text:?}; choose one of characters, bytes"))),
        }
    }
}

/// Captions of any of Arrow's types for text.
pub(crate) struct Texts(ArrayRef);

impl Texts {
    fn new(array: ArrayRef) -> PyResult<Self> {
        match array.data_type() {
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Ok(Self(array)),
            DataType::Dictionary(_, values)
                if matches!(**values, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View) =>
            {
                Ok(Self(cast(&array, &DataType::Utf8View).map_err(python)?))
            }
            DataType::Null => Ok(Self(cast(&array, &DataType::Utf8).map_err(python)?)),
            other => Err(PyTypeError::new_err(format!("captions are text, but this is an array of {other}"))),
        }
    }

    fn get(&self, row: usize) -> Option<&str> {
        if self.0.is_null(row) {
            return None;
        }
        Some(match self.0.data_type() {
            DataType::Utf8 => self.0.as_string::<i32>().value(row),
            DataType::LargeUtf8 => self.0.as_string::<i64>().value(row),
            _ => self.0.as_string_view().value(row),
        })
    }
}

/// Arrow data, or a sequence of texts and `None`.
fn texts(captions: &Bound<'_, PyAny>) -> PyResult<Vec<Texts>> {
    if captions.is_instance_of::<PyString>() {
        return Err(PyTypeError::new_err("captions is one text; give a list of texts, or Arrow data"));
    }
    if offers_arrow(captions)? {
        return chunks(captions)?.into_iter().map(Texts::new).collect();
    }
    let mut texts = StringBuilder::new();
    for caption in captions.try_iter()? {
        let caption = caption?;
        if caption.is_none() {
            texts.append_null();
        } else {
            texts.append_value(caption.cast::<PyString>()?.to_str()?);
        }
    }
    Ok(vec![Texts(Arc::new(texts.finish()))])
}

#[pyfunction]
#[pyo3(signature = (captions, *, offsets = "characters", tagger = "perceptron", bank = None, threads = None))]
pub(crate) fn tag(
    py: Python<'_>,
    captions: &Bound<'_, PyAny>,
    offsets: &str,
    tagger: &str,
    bank: Option<&Bound<'_, Bank>>,
    threads: Option<usize>,
) -> PyResult<Array> {
    let how = How {
        offsets: Offsets::parse(offsets)?,
        extractor: py.detach(|| extractor(tagger))?,
        bank: bank.map(|bank| (Arc::clone(&bank.get().bank), bank.get().matching)),
    };
    let texts = texts(captions)?;
    let pieces: Vec<(usize, Range<usize>)> = texts
        .iter()
        .enumerate()
        .flat_map(|(chunk, texts)| {
            let rows = texts.0.len();
            (0..rows).step_by(PIECE).map(move |start| (chunk, start..rows.min(start + PIECE)))
        })
        .collect();
    let threads = threads.unwrap_or_else(|| thread::available_parallelism().map_or(1, usize::from)).max(1);
    let tagged = if pieces.len() <= 1 {
        let range = pieces.first().map_or(0..0, |(_, range)| range.clone());
        py.detach(|| texts.first().map(|texts| how.tag(texts, range)).into_iter().collect())
    } else {
        let stop = Arc::new(AtomicBool::new(false));
        let work = {
            let stop = Arc::clone(&stop);
            move || how.tag_all(&texts, &pieces, threads, &stop)
        };
        waiting::run(py, work).inspect_err(|_| stop.store(true, Ordering::Relaxed))?
    };
    let tagged: Vec<ArrayRef> = if tagged.is_empty() { vec![empty(bank.is_some())] } else { tagged };
    py.detach(|| joined(&tagged)).map(Array)
}

fn joined(pieces: &[ArrayRef]) -> PyResult<ArrayRef> {
    if let [piece] = pieces {
        return Ok(Arc::clone(piece));
    }
    let pieces: Vec<&dyn arrow_array::Array> = pieces.iter().map(AsRef::as_ref).collect();
    concat(&pieces).map_err(|error| {
        PyValueError::new_err(format!(
            "the captions are too many for one Arrow array, give them in parts: {error}"
        ))
    })
}

struct How {
    offsets: Offsets,
    extractor: Arc<Extractor>,
    bank: Option<(Arc<concepts::Bank>, concepts::Matching)>,
}

impl How {
    /// The pieces in order. Threads take one after another.
    fn tag_all(
        &self,
        texts: &[Texts],
        pieces: &[(usize, Range<usize>)],
        threads: usize,
        stop: &AtomicBool,
    ) -> Vec<ArrayRef> {
        let next = AtomicUsize::new(0);
        let work = || {
            let mut done = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                let number = next.fetch_add(1, Ordering::Relaxed);
                let Some((chunk, range)) = pieces.get(number) else { break };
                done.push((number, self.tag(&texts[*chunk], range.clone())));
            }
            done
        };
        let mut done: Vec<_> = thread::scope(|scope| {
            let started: Vec<_> = (0..threads.min(pieces.len())).map(|_| scope.spawn(work)).collect();
            let joined = started
                .into_iter()
                .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
            joined.flatten().collect()
        });
        done.sort_unstable_by_key(|(number, _)| *number);
        done.into_iter().map(|(_, array)| array).collect()
    }

    fn tag(&self, texts: &Texts, rows: Range<usize>) -> ArrayRef {
        let mut result = Rows::new(self.bank.is_some());
        let mut canonical = String::new();
        for row in rows {
            let Some(raw) = texts.get(row) else {
                result.text.append_null();
                result.mentions.append_null();
                continue;
            };
            canonical_into(raw, &mut canonical);
            let count = Count::new(&canonical, self.offsets);
            self.extractor.visit(&canonical, |mention| {
                let label = self.bank.as_ref().and_then(|(bank, matching)| {
                    let phrase = &mention.phrase;
                    bank.find(*matching, &row_of(&mention, &canonical[phrase.start..phrase.end]))
                });
                result.push(&canonical, &mention, &count, label.as_ref());
            });
            result.text.append_value(&canonical);
            result.mentions.append(true);
        }
        result.finish()
    }
}

fn row_of<'a>(mention: &MentionView<'a>, phrase: &'a str) -> MentionRow<'a> {
    let span = |span: &Range<usize>| span.start as u32..span.end as u32;
    MentionRow {
        key: "",
        sample: 0,
        caption: 0,
        phrase,
        concept: mention.concept,
        head: mention.head,
        phrase_span: span(&mention.phrase),
        concept_span: span(&mention.concept_span),
        tags: mention.tags,
    }
}

/// From bytes to what offsets count in.
struct Count<'a>(Option<&'a str>);

impl<'a> Count<'a> {
    fn new(text: &'a str, offsets: Offsets) -> Self {
        Self((offsets == Offsets::Characters && !text.is_ascii()).then_some(text))
    }

    fn at(&self, byte: usize) -> i32 {
        self.0.map_or(byte, |text| text[..byte].chars().count()) as i32
    }
}

/// What a mention has: name and type.
fn mention_fields(labels: bool) -> Fields {
    let text = |name: &str| Field::new(name, DataType::Utf8, true);
    let number = |name: &str| Field::new(name, DataType::Int32, true);
    let mut fields = vec![
        text("phrase"),
        text("concept"),
        text("head"),
        number("start"),
        number("end"),
        number("concept_start"),
        number("concept_end"),
        text("tags"),
    ];
    if labels {
        fields.extend([number("label"), number("label_start"), number("label_end")]);
    }
    fields.into()
}

fn empty(labels: bool) -> ArrayRef {
    Rows::new(labels).finish()
}

/// The result, row by row.
struct Rows {
    text: StringBuilder,
    mentions: ListBuilder<StructBuilder>,
    labels: bool,
}

impl Rows {
    fn new(labels: bool) -> Self {
        let fields = mention_fields(labels);
        let mentions = StructBuilder::from_fields(fields, 0);
        Self { text: StringBuilder::new(), mentions: ListBuilder::new(mentions), labels }
    }

    fn push(
        &mut self,
        text: &str,
        mention: &MentionView<'_>,
        count: &Count<'_>,
        label: Option<&(u32, Range<u32>)>,
    ) {
        let row = self.mentions.values();
        for (column, value) in
            [(0, &text[mention.phrase.clone()]), (1, mention.concept), (2, mention.head), (7, mention.tags)]
        {
            if let Some(column) = row.field_builder::<StringBuilder>(column) {
                column.append_value(value);
            }
        }
        let (phrase, concept) = (&mention.phrase, &mention.concept_span);
        let mut number = |column: usize, value: Option<i32>| {
            if let Some(column) = row.field_builder::<Int32Builder>(column) {
                column.append_option(value);
            }
        };
        for (column, byte) in [(3, phrase.start), (4, phrase.end), (5, concept.start), (6, concept.end)] {
            number(column, Some(count.at(byte)));
        }
        if self.labels {
            number(8, label.map(|(label, _)| *label as i32));
            number(9, label.map(|(_, span)| count.at(span.start as usize)));
            number(10, label.map(|(_, span)| count.at(span.end as usize)));
        }
        row.append(true);
    }

    fn finish(mut self) -> ArrayRef {
        let (text, mentions) = (self.text.finish(), self.mentions.finish());
        let columns: Vec<(Arc<Field>, ArrayRef)> = vec![
            (Arc::new(Field::new("text", DataType::Utf8, true)), Arc::new(text)),
            (Arc::new(Field::new("mentions", mentions.data_type().clone(), true)), Arc::new(mentions)),
        ];
        Arc::new(StructArray::from(columns))
    }
}
