//! Files of signals: written, read again, refused where they belong to another shard or are not what they should be.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Float32Type, UInt64Type};
use arrow_array::{ArrayRef, Float32Array, RecordBatch, StringArray, UInt32Array, UInt64Array};
use loader::shards::signals::{self, Metadata, Signals};
use parquet::arrow::ArrowWriter;
use parquet::file::metadata::KeyValue;
use storage::Location;

use crate::common::{key_of, write_shards};

const SAMPLES: usize = 5;

fn keys() -> Vec<String> {
    (0..SAMPLES).map(|sample| key_of(0, sample)).collect()
}

/// The columns of a producer, with a null in each.
fn columns() -> RecordBatch {
    let hashes = UInt64Array::from(vec![Some(u64::MAX), Some(0), None, Some(1 << 63), Some(7)]);
    let languages = StringArray::from(vec![Some("eng"), None, Some("deu"), Some("eng"), Some("")]);
    let confidences = Float32Array::from(vec![Some(1.0), None, Some(0.25), Some(0.5), Some(0.0)]);
    let columns: [(&str, ArrayRef); 3] = [
        ("phash", Arc::new(hashes)),
        ("language", Arc::new(languages)),
        ("language_confidence", Arc::new(confidences)),
    ];
    RecordBatch::try_from_iter(columns).unwrap()
}

/// A shard with signals.
fn shard(folder: &Path) -> PathBuf {
    let shard = write_shards(folder, &[SAMPLES], |_, _| None).remove(0);
    let mut metadata = Metadata::new("hash", "a program 1.0", shard.as_path()).unwrap();
    metadata.settings = serde_json::json!({ "of": "original" });
    metadata.shard_sha256 = Some("00".repeat(32));
    Signals::new(metadata, keys(), columns()).unwrap().write(shard.as_path()).unwrap();
    shard
}

/// A file of signals with this footer and these rows, as another program may write it.
fn written(path: &Path, footer: Option<&str>, rows: &RecordBatch) {
    let mut writer = ArrowWriter::try_new(fs::File::create(path).unwrap(), rows.schema(), None).unwrap();
    writer.write(rows).unwrap();
    if let Some(footer) = footer {
        writer.append_key_value_metadata(KeyValue::new("signals".to_owned(), footer.to_owned()));
    }
    writer.close().unwrap();
}

fn rows(samples: Vec<Option<u32>>) -> RecordBatch {
    let samples: ArrayRef = Arc::new(UInt32Array::from(samples));
    let keys: ArrayRef = Arc::new(StringArray::from(keys()));
    RecordBatch::try_from_iter([("key", keys), ("sample", samples)]).unwrap()
}

fn refused(shard: &Path, samples: Option<u32>) -> String {
    Signals::open(shard, "hash", samples, None).unwrap_err().to_string()
}

#[test]
fn signals_are_read_as_they_were_written() {
    let folder = tempfile::tempdir().unwrap();
    let shard = shard(folder.path());
    let found = Signals::open(shard.as_path(), "hash", Some(SAMPLES as u32), None).unwrap();
    let Metadata { version, producer, program, settings, shard: name, shard_bytes, shard_sha256, samples } =
        found.metadata.clone();
    assert_eq!((version, producer.as_str(), program.as_str()), (1, "hash", "a program 1.0"));
    assert_eq!((settings, name.as_str()), (serde_json::json!({ "of": "original" }), "00000.tar"));
    assert_eq!(shard_bytes, fs::metadata(&shard).unwrap().len());
    assert_eq!((shard_sha256, samples), (Some("00".repeat(32)), SAMPLES as u32));
    assert_eq!((found.key(4), found.key(5)), ("000000004", ""));
    let (written, read) = (columns(), found.columns());
    assert_eq!(read.num_columns(), 3);
    assert_eq!(read["phash"].as_primitive::<UInt64Type>(), written["phash"].as_primitive::<UInt64Type>());
    let floats = |batch: &RecordBatch| batch["language_confidence"].as_primitive::<Float32Type>().clone();
    assert_eq!(floats(read), floats(&written));
    let texts: Vec<_> = read["language"].as_string_view().iter().collect();
    assert_eq!(texts, [Some("eng"), None, Some("deu"), Some("eng"), Some("")]);
    // Single columns, and those that the file does not have.
    let some = Signals::open(shard.as_path(), "hash", None, Some(&["phash", "unknown"])).unwrap();
    assert_eq!(
        some.columns().schema().fields().iter().map(|field| field.name()).collect::<Vec<_>>(),
        ["phash"]
    );
    let none = Signals::open(shard.as_path(), "hash", None, Some(&[])).unwrap();
    assert_eq!((none.columns().num_rows(), none.columns().num_columns()), (SAMPLES, 0));
    // The same signals are the same bytes.
    let path = signals::path(&shard.into(), "hash");
    let again = Signals::new(found.metadata.clone(), keys(), written).unwrap().to_bytes(&path).unwrap();
    assert_eq!(again, storage::read(&path).unwrap());
}

#[test]
fn names_of_files_and_producers() {
    let path = |shard: &str| signals::path(&shard.into(), "hash");
    assert_eq!(path("a/00012.tar.zst"), "a/00012.hash.parquet".into());
    assert_eq!(path("s3://b/x.tgz"), "s3://b/x.hash.parquet".into());
    assert_eq!(signals::producer("00012.hash.parquet", "00012"), Some("hash"));
    for other in [
        "00012.parquet",
        "00012.concepts.parquet",
        "00012.Hash.parquet",
        "00012..parquet",
        "00012.a.b.parquet",
    ] {
        assert_eq!(signals::producer(other, "00012"), None, "{other}");
    }
    assert_eq!(signals::producer("00013.hash.parquet", "00012"), None);
    let folder = tempfile::tempdir().unwrap();
    let shard = shard(folder.path());
    let make = |producer: &str, keys: Vec<String>, columns| {
        let metadata = Metadata::new(producer, "a program", shard.as_path()).unwrap();
        Signals::new(metadata, keys, columns).unwrap_err().to_string()
    };
    assert!(make("concepts", keys(), columns()).contains("cannot be the name"));
    assert!(make("hash", keys()[1..].to_vec(), columns()).contains("4 samples with 5 rows"));
    assert!(make("hash", keys(), rows((0..5).map(Some).collect())).contains("cannot be named \"key\""));
}

#[test]
fn a_shard_without_samples_has_signals_without_rows() {
    let folder = tempfile::tempdir().unwrap();
    let shard = write_shards(folder.path(), &[0], |_, _| None).remove(0);
    let metadata = Metadata::new("hash", "a program", shard.as_path()).unwrap();
    let none = Vec::<String>::new();
    Signals::new(metadata, none, columns().slice(0, 0)).unwrap().write(shard.as_path()).unwrap();
    let found = Signals::open(shard.as_path(), "hash", Some(0), None).unwrap();
    assert_eq!((found.metadata.samples, found.columns().num_rows(), found.key(0)), (0, 0, ""));
}

#[test]
fn signals_of_another_shard_or_of_an_earlier_one_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let shard = shard(folder.path());
    let there = folder.path().join("00000.hash.parquet");
    let missing = folder.path().join("00001.tar");
    fs::copy(&shard, &missing).unwrap();
    let line = Signals::open(missing.as_path(), "hash", None, None).unwrap_err().to_string();
    assert!(line.contains("00001.hash.parquet") && line.contains("run `ingest hash`"), "{line}");
    fs::copy(&there, folder.path().join("00001.hash.parquet")).unwrap();
    let line = Signals::open(missing.as_path(), "hash", None, None).unwrap_err().to_string();
    assert!(line.contains("its footer is that of 00000.hash.parquet"), "{line}");
    assert!(refused(&shard, Some(6)).contains("made from 5 samples, but 00000.tar has 6"));
    // Another of the same size.
    let found = Signals::open(shard.as_path(), "hash", None, None).unwrap();
    let path: Location = there.as_path().into();
    found.metadata.refuse_unless_sha256(&path, &"00".repeat(32)).unwrap();
    let line = found.metadata.refuse_unless_sha256(&path, &"11".repeat(32)).unwrap_err().to_string();
    assert!(line.contains("another 00000.tar of the same size"), "{line}");
    let mut bytes = fs::read(&shard).unwrap();
    bytes.extend([0; 512]);
    fs::write(&shard, bytes).unwrap();
    assert!(refused(&shard, None).contains("bytes, but 00000.tar has"), "{}", refused(&shard, None));
}

#[test]
fn rows_that_are_not_those_of_the_samples_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let shard = shard(folder.path());
    let there = folder.path().join("00000.hash.parquet");
    let good = Signals::open(shard.as_path(), "hash", None, None).unwrap().metadata;
    let footer = serde_json::to_string(&good).unwrap();
    let all: Vec<Option<u32>> = (0..5).map(Some).collect();
    written(&there, Some(&footer), &rows(all.clone()));
    Signals::open(shard.as_path(), "hash", Some(5), None).unwrap();
    for wrong in [
        vec![Some(0), Some(1), None, Some(3), Some(4)],
        vec![Some(0), Some(1), Some(1), Some(3), Some(4)],
        vec![Some(1), Some(0), Some(2), Some(3), Some(4)],
        vec![Some(0), Some(1), Some(2), Some(3), Some(u32::MAX)],
    ] {
        written(&there, Some(&footer), &rows(wrong.clone()));
        assert!(refused(&shard, None).contains("is not that of sample"), "{wrong:?}");
    }
    written(&there, Some(&footer), &rows(all.clone()).slice(0, 4));
    assert!(refused(&shard, None).contains("4 rows for 5 samples"));
    written(&there, Some(&footer), &columns());
    assert!(refused(&shard, None).contains("it has no column"), "{}", refused(&shard, None));
    written(&there, None, &rows(all.clone()));
    assert!(refused(&shard, None).contains("no key \"signals\""));
    for (wrong, problem) in [
        (r#"{"version":2}"#.to_owned(), "version 2"),
        ("[1".to_owned(), "EOF"),
        (footer.replace("\"samples\":5", "\"samples\":-5"), "invalid value"),
        (footer.replace("\"hash\"", "\"../hash\""), "its footer is that of 00000.../hash.parquet"),
    ] {
        written(&there, Some(&wrong), &rows(all.clone()));
        assert!(refused(&shard, None).contains(problem), "{}", refused(&shard, None));
    }
    let keys: ArrayRef = Arc::new(StringArray::from(vec![Some("a"), None, Some("b"), Some("c"), Some("d")]));
    let samples = rows(all)["sample"].clone();
    written(
        &there,
        Some(&footer),
        &RecordBatch::try_from_iter([("key", keys), ("sample", samples)]).unwrap(),
    );
    assert!(refused(&shard, None).contains("column \"key\" has nulls"));
}

#[test]
fn a_damaged_file_is_an_error_and_nothing_worse() {
    let folder = tempfile::tempdir().unwrap();
    let shard = shard(folder.path());
    let there = folder.path().join("00000.hash.parquet");
    let whole = fs::read(&there).unwrap();
    let mut errors = 0;
    let mut open = |bytes: &[u8]| {
        fs::write(&there, bytes).unwrap();
        errors += usize::from(Signals::open(shard.as_path(), "hash", Some(5), None).is_err());
    };
    for length in 0..whole.len() {
        open(&whole[..length]);
    }
    for at in 0..whole.len() {
        for bit in [0x01, 0x80] {
            let mut changed = whole.clone();
            changed[at] ^= bit;
            open(&changed);
        }
    }
    assert!(errors > whole.len(), "every file that was cut, and more: {errors} of {}", 3 * whole.len());
}
