//! A small dataset, and the queries on it, for the tests of `tools sql`.

#![allow(dead_code)] // Not every test file uses all of it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::{Value, json};
use tests::{summary, text};

/// A caption and an image file, which may be missing or damaged.
const SAMPLES: [(&str, &str); 8] = [
    ("A man walks a big brown dog and a small white dog.", "000000.jpg"),
    ("Two men and a black dog near a tall tree", "000001.jpg"),
    ("so it goes", "000002.jpg"),
    ("A large orange cat on a wooden table", "000003.jpg"),
    ("a lost dog", "nowhere.jpg"),
    ("a dog that cannot be read", "broken.jpg"),
    ("The old man's hat, a cat; and \"a dog\"", "000004.jpg"),
    ("A dog chases a cat up a tree", "000005.jpg"),
];

/// A tagged dataset of three shards with a few hand-written captions, with its statistics in the same folder.
pub(crate) fn small_set(place: &Path) -> PathBuf {
    let (scenes, set) = (place.join("scenes"), place.join("set"));
    summary("tools", &["scenes", "--count", "6", "--size", "32", "--out", text(&scenes)]);
    let images = scenes.join("images");
    fs::write(images.join("broken.jpg"), "this is not an image").unwrap();
    let rows: String = SAMPLES
        .iter()
        .map(|(caption, file)| json!({"file": file, "caption": caption}).to_string() + "\n")
        .collect();
    let table = place.join("captions.jsonl");
    fs::write(&table, rows).unwrap();
    tag(&table, &images, &set, "3");
    set
}

pub(crate) fn tag(table: &Path, images: &Path, set: &Path, shard_size: &str) {
    let arguments =
        ["shard", text(table), "--images", text(images), "--out", text(set), "--shard-size", shard_size];
    summary("ingest", &[&arguments[..], &["--resize-mode", "center_crop", "--image-size", "32"]].concat());
    summary("ingest", &["tag", text(set)]);
    summary("tools", &["stats", text(set), "--out", text(&set.join("statistics"))]);
}

/// Name and text of each query in `tools/queries.sql`.
pub(crate) fn queries() -> Vec<(&'static str, &'static str)> {
    let part = |part: &'static str| {
        let (title, query) = part.split_once('\n').unwrap();
        (title.split_once(':').unwrap().0, query.trim())
    };
    include_str!("../../../queries.sql")
        .split("\n-- ")
        .skip(1)
        .filter(|p| p.contains("SELECT"))
        .map(part)
        .collect()
}

/// Whether two values are equal, apart from rounding of floating-point sums.
pub(crate) fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => (a.as_f64().unwrap() - b.as_f64().unwrap()).abs() < 1e-9,
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(name, a)| b.get(name).is_some_and(|b| same(a, b)))
        }
        _ => a == b,
    }
}

/// Adds a column of random bytes as text to a table.
pub(crate) fn widen(path: &Path) {
    let reader = ParquetRecordBatchReaderBuilder::try_new(fs::File::open(path).unwrap()).unwrap();
    let batches: Vec<RecordBatch> = reader.build().unwrap().map(Result::unwrap).collect();
    let batch = arrow::compute::concat_batches(&batches[0].schema(), &batches).unwrap();
    let mut state = 1_u64;
    let mut noise = || {
        // xorshift; its bytes cannot be compressed.
        let mut text = String::new();
        for _ in 0..20_000 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            text.push_str(&format!("{state:016x}"));
        }
        text
    };
    let column: ArrayRef = Arc::new((0..batch.num_rows()).map(|_| Some(noise())).collect::<StringArray>());
    let mut fields: Vec<Field> = batch.schema().fields().iter().map(|field| field.as_ref().clone()).collect();
    fields.push(Field::new("noise", DataType::Utf8, true));
    let columns = [batch.columns(), &[column]].concat();
    let wide = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap();
    let mut writer = ArrowWriter::try_new(fs::File::create(path).unwrap(), wide.schema(), None).unwrap();
    writer.write(&wide).unwrap();
    writer.close().unwrap();
}
