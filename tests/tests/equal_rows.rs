//! Parquet files whose rows are all the same: 20 million of them take half a megabyte, and gigabytes if each were kept. Every
//! command that reads such a file does it with little memory: it keeps none of the rows, or says that they are too many.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use arrow_array::{ArrayRef, DictionaryArray, Int32Array, Int64Array, RecordBatch, StringArray, UInt32Array};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use tests::{program, summary, text};

const ROWS: usize = 20_000_000;
/// Bytes in the footer that nobody reads. A file without them is refused for its size before a row is read.
const PADDING: usize = 2 << 20;
/// Address space of a program, kB. Without limits the rows would take more.
const MEMORY: u64 = 8_000_000;
/// A command that makes something of every row is stopped this long after it has begun to; what it takes until then says enough.
const AWHILE: Duration = Duration::from_secs(5);
/// One that ends by itself, or begins to write, does so within this time.
const LONG: Duration = Duration::from_mins(4);

enum Column<'a> {
    Text(&'a str),
    Number(i64),
    Position(u32),
}

/// Writes the same row again and again.
fn write(path: &Path, row: &[(&str, Column)], footer: Option<KeyValue>) {
    const AT_ONCE: usize = 1_000_000;
    let column = |value: &Column| -> ArrayRef {
        match *value {
            Column::Text(text) => {
                let values = Arc::new(StringArray::from(vec![text]));
                Arc::new(DictionaryArray::new(Int32Array::from(vec![0; AT_ONCE]), values))
            }
            Column::Number(number) => Arc::new(Int64Array::from(vec![number; AT_ONCE])),
            Column::Position(number) => Arc::new(UInt32Array::from(vec![number; AT_ONCE])),
        }
    };
    let batch = RecordBatch::try_from_iter(row.iter().map(|(name, value)| (*name, column(value)))).unwrap();
    let padding = KeyValue::new("padding".to_owned(), "x".repeat(PADDING));
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_key_value_metadata(Some(footer.into_iter().chain([padding]).collect()));
    let file = File::create(path).unwrap();
    let mut writer = ArrowWriter::try_new(file, batch.schema(), Some(properties.build())).unwrap();
    for _ in 0..ROWS / AT_ONCE {
        writer.write(&batch).unwrap();
    }
    writer.close().unwrap();
    println!("{}: {} bytes", path.display(), fs::metadata(path).unwrap().len());
}

/// A program that may take little memory.
fn limited(name: &str, arguments: &[&str]) -> Command {
    let limit = format!("ulimit -v {MEMORY}; exec timeout {} \"$@\"", LONG.as_secs());
    let mut command = Command::new("bash");
    command.args(["-c", &limit, "bash", text(&program(name))]).args(arguments);
    command
}

/// Its errors, when it has ended with one of these codes and not for want of memory.
fn errors(name: &str, output: &Output, codes: &[i32]) -> String {
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!told.contains("panicked") && !told.contains("memory allocation"), "{name}: {told}");
    let code = output.status.code();
    assert!(code.is_some_and(|code| codes.contains(&code)), "{name}: {}\n{told}", output.status);
    told
}

/// Runs a program to its end; returns its errors.
fn bounded(name: &str, arguments: &[&str]) -> String {
    errors(name, &limited(name, arguments).output().unwrap(), &[0, 1, 2, 3])
}

/// Runs a program that makes something of every row, until a while after `begun` exists.
fn begins(name: &str, arguments: &[&str], begun: &Path) {
    let mut child = limited(name, arguments).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let started = Instant::now();
    while !begun.exists() {
        assert!(started.elapsed() < LONG, "{name} {arguments:?} has not begun {}", begun.display());
        if child.try_wait().unwrap().is_some() {
            let told = errors(name, &child.wait_with_output().unwrap(), &[0, 1, 2, 3]);
            panic!("{name} {arguments:?} has ended without {}: {told}", begun.display());
        }
        thread::sleep(Duration::from_millis(20));
    }
    thread::sleep(AWHILE);
    // `timeout` hands the signal on to the program. One that has refused the rows by now is no process any more.
    let id = child.id().to_string();
    Command::new("kill").args(["-INT", &id]).status().unwrap();
    errors(name, &child.wait_with_output().unwrap(), &[0, 1, 2, 3, 124, 130]);
}

/// A set of one shard with one sample.
fn set(place: &Path) {
    summary("tools", &["scenes", "--out", text(&place.join("scenes")), "--count", "1", "--size", "32"]);
    fs::write(place.join("captions.csv"), "file,caption\n000000.jpg,a ball on the grass\n").unwrap();
    let (table, images) = (place.join("captions.csv"), place.join("scenes/images"));
    let set = place.join("set");
    summary(
        "ingest",
        &["shard", text(&table), "--images", text(&images), "--out", text(&set), "--resize-mode", "no"],
    );
    summary("ingest", &["tag", text(&set)]);
}

#[test]
fn the_table_of_a_shard() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path();
    set(place);
    let row = [
        ("key", Column::Text("000000000")),
        ("status", Column::Text("success")),
        ("error_message", Column::Text("")),
        ("url", Column::Text("000000.jpg")),
        ("caption", Column::Text("a ball on the grass")),
        ("offset", Column::Number(512)),
        ("length", Column::Number(1000)),
    ];
    let set = place.join("set");
    write(&set.join("00000.parquet"), &row, None);
    fs::remove_file(set.join("00000.sha256")).unwrap();
    fs::remove_file(set.join("00000.concepts.parquet")).unwrap();
    let too_many = "more memory than a file of its size can need";
    let verified = bounded("ingest", &["verify", text(&set)]);
    assert!(verified.contains(too_many), "{verified}");
    bounded("ingest", &["tag", text(&set)]);
    bounded("tools", &["show", text(&set.join("00000.tar"))]);
    bounded("tools", &["stats", text(&set), "--out", text(&place.join("stats"))]);
    bounded("tools", &["report", text(&set), "--out", text(&place.join("report.html"))]);
    let small = ["--steps", "1", "--size", "32", "--width", "64", "--depth", "1"];
    let out = place.join("tower.safetensors");
    bounded("trainer", &[&["pretrain", "--shards", text(&set), "--out", text(&out)], &small[..]].concat());
}

#[test]
fn the_table_of_a_shard_whose_failures_are_retried() {
    let folder = tempfile::tempdir().unwrap();
    let (list, set) = (folder.path().join("list.csv"), folder.path().join("set"));
    // An image of one pixel, and half an image.
    let whole = "R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7";
    fs::write(
        &list,
        format!("url,caption\n\"data:image/gif;base64,{whole}\",a\n\"data:image/gif,GIF89a\",b\n"),
    )
    .unwrap();
    summary("ingest", &["download", text(&list), "--out", text(&set), "--resize-mode", "no"]);
    let row = [
        ("key", Column::Text("000000000")),
        ("status", Column::Text("failed_to_download")),
        ("error_message", Column::Text("Image decoding error: damaged")),
        ("url", Column::Text("data:image/gif,GIF89a")),
        ("caption", Column::Text("a ball on the grass")),
    ];
    write(&set.join("00000.parquet"), &row, None);
    fs::remove_file(set.join("00000.sha256")).unwrap();
    let told = bounded("ingest", &["retry", text(&set), "--causes", "damaged"]);
    assert!(told.contains("00000.parquet"), "{told}");
}

#[test]
fn the_sidecar_of_a_shard() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path();
    set(place);
    let row = [
        ("key", Column::Text("000000000")),
        ("sample", Column::Position(0)),
        ("phrase", Column::Text("a ball")),
        ("concept", Column::Text("ball")),
        ("head", Column::Text("ball")),
        ("phrase_start", Column::Position(0)),
        ("phrase_end", Column::Position(6)),
        ("concept_start", Column::Position(2)),
        ("concept_end", Column::Position(6)),
        ("tags", Column::Text("DT NN")),
    ];
    let set = place.join("set");
    let bytes = fs::metadata(set.join("00000.tar")).unwrap().len();
    let about = format!(
        r#"{{"version":1,"tagger":"t","tagger_hash":"0","grammar":1,"canonical":2,"shard":"00000.tar","shard_bytes":{bytes},
        "samples":1,"captions_without_mention":0,"mentions":{ROWS}}}"#
    );
    let about = KeyValue::new("concepts".to_owned(), about);
    write(&set.join("00000.concepts.parquet"), &row, Some(about));
    fs::remove_file(set.join("00000.sha256")).unwrap();
    bounded("ingest", &["verify", text(&set)]);
    bounded("tools", &["show", text(&set.join("00000.tar"))]);
    bounded("tools", &["stats", text(&set), "--out", text(&place.join("stats"))]);
    bounded("tools", &["report", text(&set), "--out", text(&place.join("report.html"))]);
}

#[test]
fn the_list_of_a_download() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path();
    let list = place.join("list.parquet");
    let row =
        [("url", Column::Text("data:image/gif,GIF89a")), ("caption", Column::Text("a ball on the grass"))];
    write(&list, &row, None);
    let out = place.join("out");
    begins("ingest", &["tag", "--table", text(&list), "--out", text(&out)], &out);
    fs::remove_dir_all(&out).unwrap();
    let images = place.join("images");
    fs::create_dir(&images).unwrap();
    let begun = out.join("ingest.json");
    let shard = ["shard", text(&list), "--file-col", "url", "--images", text(&images), "--out", text(&out)];
    begins("ingest", &shard, &begun);
    fs::remove_dir_all(&out).unwrap();
    begins("ingest", &["download", text(&list), "--out", text(&out)], &begun);
}
