//! Counts of concepts and of pairs of concepts.

use std::path::PathBuf;
use std::sync::Arc;

use arrow_array::builder::{Float64Builder, StringBuilder, UInt64Builder};
use arrow_array::{ArrayRef, RecordBatch};
use concepts::sidecar::ConceptReader;
use concepts::statistics::{Counts, TOTALS};
use loader::shards;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use storage::Location;

use crate::arrow::Table;
use crate::error::python;
use crate::{loader as open, waiting};

/// The statistics in a folder that `tools stats` wrote, or those of a folder of shards, which are counted from the sidecars.
/// Returns the totals, the table of concepts, and the table of pairs.
#[pyfunction]
pub(crate) fn statistics(
    py: Python<'_>,
    inputs: Vec<PathBuf>,
) -> PyResult<(Bound<'_, PyDict>, Table, Table)> {
    let counts = match &inputs[..] {
        [folder] if folder.join(TOTALS).is_file() => {
            let folder = folder.clone();
            waiting::run(py, move || Counts::read(&folder))?.map_err(python)?
        }
        _ => {
            let shards = open::list(py, inputs)?;
            waiting::run(py, move || count(&shards))??
        }
    };
    let totals = counts.totals();
    let dict = PyDict::new(py);
    for (name, value) in [
        ("shards", totals.shards),
        ("samples", totals.samples),
        ("samples_without_mention", totals.samples_without_mention),
        ("mentions", totals.mentions),
        ("concepts", totals.concepts),
        ("pairs", totals.pairs),
    ] {
        dict.set_item(name, value)?;
    }
    Ok((dict, Table::of(concepts(&counts)?), Table::of(pairs(&counts)?)))
}

fn count(shards: &[Location]) -> PyResult<Counts> {
    let mut counts = Counts::new();
    for shard in shards {
        let path = shards::sidecar_path(shard);
        let reader = match &path {
            Location::Local(path) => ConceptReader::open(path),
            Location::Remote(_) => {
                ConceptReader::from_bytes(&path.as_name(), storage::read(&path).map_err(python)?)
            }
        };
        counts.add_file(reader.map_err(python)?).map_err(python)?;
    }
    Ok(counts)
}

fn concepts(counts: &Counts) -> PyResult<RecordBatch> {
    let mut name = StringBuilder::new();
    let mut numbers = [(); 3].map(|()| UInt64Builder::new());
    let mut share = Float64Builder::new();
    let samples = counts.totals().samples.max(1) as f64;
    for (concept, of) in counts.concepts() {
        name.append_value(concept);
        for (column, value) in numbers.iter_mut().zip([of.mentions, of.samples, of.shards]) {
            column.append_value(value);
        }
        share.append_value(of.samples as f64 / samples);
    }
    let [mentions, samples, shards] = numbers.map(|mut column| Arc::new(column.finish()) as ArrayRef);
    let columns: [(&str, ArrayRef); 5] = [
        ("concept", Arc::new(name.finish())),
        ("mentions", mentions),
        ("samples", samples),
        ("shards", shards),
        ("share", Arc::new(share.finish())),
    ];
    RecordBatch::try_from_iter(columns).map_err(python)
}

fn pairs(counts: &Counts) -> PyResult<RecordBatch> {
    let mut all: Vec<_> = counts.pairs().collect();
    all.sort_unstable_by(|x, y| y.samples.cmp(&x.samples).then(x.a.cmp(y.a)).then(x.b.cmp(y.b)));
    let (mut a, mut b) = (StringBuilder::new(), StringBuilder::new());
    let (mut samples, mut pmi) = (UInt64Builder::new(), Float64Builder::new());
    for pair in all {
        a.append_value(pair.a);
        b.append_value(pair.b);
        samples.append_value(pair.samples);
        pmi.append_value(pair.pmi);
    }
    let columns: [(&str, ArrayRef); 4] = [
        ("a", Arc::new(a.finish())),
        ("b", Arc::new(b.finish())),
        ("samples", Arc::new(samples.finish())),
        ("pmi", Arc::new(pmi.finish())),
    ];
    RecordBatch::try_from_iter(columns).map_err(python)
}
