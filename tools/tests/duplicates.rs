//! `tools duplicates`: which samples it lists, by hashes with known distances.

use std::fs::File;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::UInt32Type;
use arrow_array::{ArrayRef, RecordBatch, UInt64Array};
use loader::shards::signals::{HASH, Metadata, Signals};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::Value;

use crate::program::text;

/// A shard whose samples have these hashes.
fn write(folder: &Path, number: usize, column: &str, hashes: &[Option<u64>]) {
    std::fs::create_dir_all(folder).unwrap();
    let path = folder.join(format!("{number:05}.tar"));
    let mut tar = tar::Builder::new(File::create(&path).unwrap());
    let keys: Vec<String> = (0..hashes.len()).map(|sample| format!("{number:05}{sample:04}")).collect();
    for key in &keys {
        let mut header = tar::Header::new_ustar();
        header.set_size(8);
        tar.append_data(&mut header, format!("{key}.jpg"), &b"an image"[..]).unwrap();
    }
    tar.finish().unwrap();
    drop(tar);
    let hashes: ArrayRef = Arc::new(UInt64Array::from(hashes.to_vec()));
    let columns = RecordBatch::try_from_iter_with_nullable([(column, hashes, true)]).unwrap();
    let metadata = Metadata::new(HASH, "by hand", &path).unwrap();
    Signals::new(metadata, keys, columns).unwrap().write(&path).unwrap();
}

fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tools")).arg("duplicates").args(arguments).output().unwrap()
}

/// Shard and sample, those that it is like, and the distance.
type Row = (String, u32, String, u32, u32);

/// The rows, and the printed summary.
fn found(shards: &Path, out: &Path, options: &[&str]) -> (Vec<Row>, Value) {
    let _ = std::fs::remove_file(out);
    let output = run(&[&[text(shards), "--out", text(out), "--json"], options].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let printed = String::from_utf8(output.stdout).unwrap();
    let summary = serde_json::from_str(printed.lines().last().unwrap()).unwrap();
    let mut rows = Vec::new();
    for batch in ParquetRecordBatchReaderBuilder::try_new(File::open(out).unwrap()).unwrap().build().unwrap()
    {
        let batch = batch.unwrap();
        let text =
            |name: &str, row| batch.column_by_name(name).unwrap().as_string::<i32>().value(row).to_owned();
        let number =
            |name: &str, row| batch.column_by_name(name).unwrap().as_primitive::<UInt32Type>().value(row);
        rows.extend((0..batch.num_rows()).map(|row| {
            (
                text("shard", row),
                number("sample", row),
                text("like_shard", row),
                number("like_sample", row),
                number("distance", row),
            )
        }));
    }
    (rows, summary)
}

const A: u64 = 0x0123_4567_89ab_cdef;
const B: u64 = 0xf0f0_1111_2222_5a5a;

#[test]
fn all_but_the_first_of_connected_images_are_listed() {
    let place = tempfile::tempdir().unwrap();
    let (shards, out) = (place.path().join("shards"), place.path().join("out.parquet"));
    // A chain of three, each 3 bits from the next, and two equal ones.
    write(&shards, 0, "phash", &[Some(A), None, Some(B), Some(A ^ 0b111)]);
    write(&shards, 1, "phash", &[Some(A ^ 0b11_1111), Some(B), Some(!A)]);
    let row = |shard, sample, like_shard, like_sample, distance| {
        (format!("{shard:05}.tar"), sample, format!("{like_shard:05}.tar"), like_sample, distance)
    };
    let (rows, summary) = found(&shards, &out, &["--distance", "3"]);
    assert_eq!(rows, [row(0, 3, 0, 0, 3), row(1, 0, 0, 0, 6), row(1, 1, 0, 2, 0)]);
    let expected = serde_json::json!({"samples": 6, "duplicates": 3, "same_hash": 1, "without_hash": 1});
    assert_eq!(summary, expected);
    assert_eq!(found(&shards, &out, &["--distance", "2"]).0, [row(1, 1, 0, 2, 0)]);
    assert_eq!(found(&shards, &out, &["--distance", "0"]).0, [row(1, 1, 0, 2, 0)]);
    // As `tools select` reads it.
    let selection = place.path().join("selection.parquet");
    let arguments = ["select", text(&shards), "--out", text(&selection), "--without", text(&out), "--json"];
    let selected = Command::new(env!("CARGO_BIN_EXE_tools")).args(arguments).output().unwrap();
    assert!(selected.status.success(), "{}", String::from_utf8_lossy(&selected.stderr));
    assert!(String::from_utf8(selected.stdout).unwrap().contains("\"samples\":6"));
}

#[test]
fn images_of_another_dataset_are_found() {
    let place = tempfile::tempdir().unwrap();
    let (shards, held_out, out) =
        (place.path().join("shards"), place.path().join("held-out"), place.path().join("out.parquet"));
    write(&shards, 0, "phash", &[Some(A), Some(A), Some(B ^ 1), Some(7)]);
    write(&held_out, 0, "phash", &[Some(!7), Some(B), Some(B ^ 3), Some(A ^ 0xf)]);
    let (rows, summary) = found(&shards, &out, &["--against", text(&held_out)]);
    let rows: Vec<_> =
        rows.iter().map(|(_, sample, _, like, distance)| (*sample, *like, *distance)).collect();
    // Equal images of the dataset itself do not count; of two that are as near, the one with the smaller hash.
    assert_eq!(rows, [(0, 3, 4), (1, 3, 4), (2, if B < B ^ 3 { 1 } else { 2 }, 1)]);
    assert_eq!(summary["duplicates"], 3);
}

#[test]
fn hashes_of_different_kinds_are_not_compared() {
    let place = tempfile::tempdir().unwrap();
    let (shards, out) = (place.path().join("shards"), place.path().join("out.parquet"));
    write(&shards, 0, "phash", &[Some(A)]);
    write(&shards, 1, "phash_trimmed", &[Some(A)]);
    let error = |options: &[&str]| {
        let output = run(&[&[text(&shards), "--out", text(&out)], options].concat());
        assert_eq!(output.status.code(), Some(1));
        assert!(!out.exists());
        String::from_utf8(output.stderr).unwrap()
    };
    assert!(error(&[]).contains("so that all are of the same kind"));
    std::fs::remove_file(shards.join("00001.hash.parquet")).unwrap();
    let missing = error(&[]);
    assert!(missing.contains("run `ingest hash"), "{missing}");
}
