//! Captions from tables: the contents of the sidecars, also when runs are killed, repeated or split over processes.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::common::{code, command, contents, error_line, errors, ingest, summary, table};

/// Captions with three animals in turn.
fn captions(count: usize) -> Vec<String> {
    let animals = ["dog", "cat", "horse"];
    (0..count).map(|i| format!("a {} beside {i} wooden benches", animals[i % 3])).collect()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn write_lines(path: &Path, lines: &[String]) {
    fs::write(path, lines.join("\n") + "\n").unwrap();
}

/// (key, concept) of all sidecars, in order.
fn concepts(folder: &Path) -> Vec<(String, String)> {
    let mut parts: Vec<_> = contents(folder).into_keys().filter(|name| name.ends_with(".parquet")).collect();
    parts.sort();
    let rows = parts.iter().flat_map(|part| table(&folder.join(part)));
    rows.map(|row| (row["key"].clone(), row["concept"].clone())).collect()
}

/// The files of the folder, except temporary files of killed processes.
fn finished(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    contents(folder).into_iter().filter(|(name, _)| !name.starts_with(".tmp-")).collect()
}

#[test]
fn every_format_gives_the_same_concepts() {
    let place = tempfile::tempdir().unwrap();
    let at = |name: &str| place.path().join(name);
    let lines = captions(25);
    write_lines(&at("in.txt"), &lines);
    let csv: String = lines.iter().enumerate().map(|(i, line)| format!("{i},{line}\n")).collect();
    fs::write(at("in.csv"), format!("id,ALT\n{csv}")).unwrap();
    let jsonl: String = lines.iter().map(|line| format!("{{\"text\": \"{line}\"}}\n")).collect();
    fs::write(at("in.jsonl"), &jsonl).unwrap();
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gz.write_all(jsonl.as_bytes()).unwrap();
    fs::write(at("packed.jsonl.gz"), gz.finish().unwrap()).unwrap();
    let array = lines.iter().map(|line| serde_json::json!({"caption": line, "image_id": 7}));
    let coco = serde_json::json!({"images": [], "annotations": array.collect::<Vec<_>>()});
    fs::write(at("coco.json"), coco.to_string()).unwrap();
    parquet(&at("in.parquet"), &lines);

    let mut expected = Vec::new();
    for (i, animal) in ["dog", "cat", "horse"].iter().cycle().take(25).enumerate() {
        expected.push((format!("{i:09}"), (*animal).to_owned()));
        expected.push((format!("{i:09}"), "bench".to_owned()));
    }
    for name in ["in.txt", "in.csv", "in.jsonl", "packed.jsonl.gz", "coco.json", "in.parquet"] {
        let out = at(&format!("out-{name}"));
        let (input, out_text) = (at(name), text(&out).to_owned());
        let mut arguments =
            vec!["tag", "--table", text(&input), "--out", &out_text, "--part-size", "10", "--json"];
        if name == "in.csv" {
            arguments.extend(["--caption-col", "alt"]);
        }
        let output = ingest(&arguments);
        assert_eq!(code(&output), 0, "{name}: {}", errors(&output));
        let counts = summary(&output);
        assert_eq!((&counts["shards"], &counts["captions"]), (&3.into(), &25.into()), "{name}");
        let found = concepts(&out);
        let animals: Vec<_> =
            found.iter().filter(|(_, concept)| !concept.ends_with("bench")).cloned().collect();
        let wanted: Vec<_> = expected.iter().filter(|(_, concept)| concept != "bench").cloned().collect();
        assert_eq!(animals, wanted, "{name}");
        assert_eq!(found.len(), expected.len(), "{name}");
        let manifest: Value = serde_json::from_slice(&fs::read(out.join("captions.json")).unwrap()).unwrap();
        assert_eq!(manifest["tables"][0]["rows"], 25, "{name}");
        assert_eq!(manifest["tables"][0]["name"], name);
        assert_eq!(code(&ingest(&["verify", text(&out)])), 0);
    }
    // Keys from a column of the table.
    let out = at("keys");
    let keyed = [
        "tag",
        "--table",
        text(&at("in.csv")),
        "--out",
        text(&out),
        "--caption-col",
        "ALT",
        "--key-col",
        "id",
    ]
    .map(str::to_owned);
    let output = ingest(&keyed.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(code(&output), 0, "{}", errors(&output));
    assert_eq!(concepts(&out)[2].0, "1");
}

fn parquet(path: &Path, captions: &[String]) {
    use arrow_array::{ArrayRef, RecordBatch, StringArray};
    let column: ArrayRef = std::sync::Arc::new(StringArray::from_iter_values(captions));
    let batch = RecordBatch::try_from_iter([("TEXT", column)]).unwrap();
    let file = fs::File::create(path).unwrap();
    let mut writer = parquet::arrow::ArrowWriter::try_new(file, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

#[test]
fn several_processes_together_make_what_one_makes() {
    let place = tempfile::tempdir().unwrap();
    let at = |name: &str| place.path().join(name);
    fs::create_dir(at("in")).unwrap();
    // A table that fills its parts, an empty table, and one that does not fill its last part.
    write_lines(&at("in/a.txt"), &captions(400));
    fs::write(at("in/b.txt"), "").unwrap();
    write_lines(&at("in/c.txt"), &captions(350));
    let tag = |out: &str, more: &[&str]| {
        let (input, out) = (at("in"), at(out));
        let first = ["tag", "--table", text(&input), "--out", text(&out), "--part-size", "100", "--json"];
        let output = ingest(&[&first, more].concat());
        assert_eq!(code(&output), 0, "{}", errors(&output));
        summary(&output)
    };
    let one = tag("one", &["--threads", "1"]);
    assert_eq!((&one["shards"], &one["captions"]), (&8.into(), &750.into()));
    tag("many", &["--threads", "5"]);
    let shares = ["0", "1", "2"].map(|index| tag("shared", &["--index", index, "--count", "3"]));
    assert_eq!(shares.iter().map(|it| it["captions"].as_u64().unwrap()).sum::<u64>(), 750);
    assert!(contents(&at("one")) == contents(&at("many")));
    assert!(contents(&at("one")) == contents(&at("shared")));
    // Row numbers continue from table to table.
    assert_eq!(concepts(&at("one"))[2 * 400].0, "000000400");
}

#[test]
fn a_killed_run_is_resumed() {
    let place = tempfile::tempdir().unwrap();
    let at = |name: &str| place.path().join(name);
    write_lines(&at("in.txt"), &captions(200_000));
    let (input, out, whole) = (at("in.txt"), at("out"), at("whole"));
    let arguments =
        |out| ["tag", "--table", text(&input), "--out", text(out), "--part-size", "1000", "--json"];
    let mut child = command(&arguments(&out)).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    while !out.join("00003.concepts.parquet").exists() {
        thread::sleep(Duration::from_millis(1));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let before = finished(&out);
    assert!(before.len() >= 2 && !before.contains_key("captions.json"), "{} files", before.len());

    let counts = summary(&ingest(&arguments(&out)));
    assert_eq!(counts["tagged"].as_u64().unwrap(), 200 - before.len() as u64);
    assert_eq!((&counts["shards"], &counts["captions"]), (&200.into(), &200_000.into()));
    assert_eq!(code(&ingest(&arguments(&whole))), 0);
    assert!(finished(&out) == contents(&whole));
    let again = ingest(&arguments(&out));
    assert_eq!(summary(&again)["tagged"], 0);
    assert_eq!(errors(&again), "nothing to do: 200 sidecars already complete\n");
}

#[test]
fn outdated_sidecars_are_replaced_and_named() {
    let place = tempfile::tempdir().unwrap();
    let at = |name: &str| place.path().join(name);
    let (input, out) = (at("in.txt"), at("out"));
    write_lines(&input, &captions(30));
    let tag = |size: &str| {
        ingest(&["tag", "--table", text(&input), "--out", text(&out), "--part-size", size, "--json"])
    };
    assert_eq!(summary(&tag("10"))["tagged"], 3);
    // One damaged sidecar.
    fs::write(out.join("00001.concepts.parquet"), "PAR1").unwrap();
    let output = tag("10");
    assert_eq!((&summary(&output)["tagged"], &summary(&output)["replaced"]), (&1.into(), &1.into()));
    assert!(errors(&output).contains("00001.concepts.parquet: replaced"), "{}", errors(&output));
    assert!(errors(&output).contains("already complete before this run: 2 sidecars"), "{}", errors(&output));
    // Another table, one part shorter.
    write_lines(&input, &captions(20));
    assert_eq!(code(&ingest(&["verify", text(&out)])), 0, "verify does not read the table");
    let output = tag("10");
    assert_eq!(summary(&output)["replaced"], 2);
    assert!(
        errors(&output).contains("00002.concepts.parquet: belongs to another table"),
        "{}",
        errors(&output)
    );
    // The same table in larger parts.
    let output = tag("20");
    assert_eq!((&summary(&output)["shards"], &summary(&output)["replaced"]), (&1.into(), &1.into()));
    let concepts = table(&out.join("00000.concepts.parquet"));
    assert_eq!(concepts.last().unwrap()["sample"], "19");
}

#[test]
fn captions_that_are_missing_or_broken_keep_their_rows() {
    let place = tempfile::tempdir().unwrap();
    let at = |name: &str| place.path().join(name);
    let tag = |input: &str| {
        let (input, out) = (at(input), at(&format!("out-{input}")));
        let output = ingest(&["tag", "--table", text(&input), "--out", text(&out), "--json"]);
        assert_eq!(code(&output), 0, "{}", errors(&output));
        let keys: Vec<String> = concepts(&out).into_iter().map(|(key, _)| key).collect();
        (summary(&output), keys)
    };
    fs::write(at("a.txt"), b"a dog\n\n\xff\xfe a cat\r\na horse").unwrap();
    let (counts, keys) = tag("a.txt");
    assert_eq!((&counts["captions"], &counts["captions_not_utf8"]), (&4.into(), &1.into()));
    assert!(keys.contains(&"000000000".to_owned()) && keys.contains(&"000000003".to_owned()), "{keys:?}");
    assert!(!keys.contains(&"000000001".to_owned()));

    fs::write(
        at("b.jsonl"),
        "{\"text\": null}\n{\"text\": \"a dog\"}\nno json\n{\"other\": 1}\n{\"text\": 5}\n",
    )
    .unwrap();
    let (counts, keys) = tag("b.jsonl");
    assert_eq!((&counts["captions"], &counts["mentions"]), (&5.into(), &1.into()));
    assert_eq!((&counts["captions_without_mention"], &counts["unreadable_rows"]), (&4.into(), &2.into()));
    assert_eq!(keys, ["000000001"]);

    fs::write(at("c.csv"), "caption,n\na dog,1\na cat,2,3\na horse,4\n").unwrap();
    let (counts, keys) = tag("c.csv");
    assert_eq!((&counts["captions"], &counts["unreadable_rows"]), (&3.into(), &1.into()));
    assert_eq!(keys, ["000000000", "000000002"]);
}

#[test]
fn errors_are_one_line_and_leave_no_files() {
    let place = tempfile::tempdir().unwrap();
    let at = |name: &str| place.path().join(name);
    let out = at("out");
    fs::write(at("in.csv"), "id,title\n1,a dog\n").unwrap();
    write_lines(&at("in.txt"), &captions(20_000));
    let fails_with = |expected: i32, arguments: &[&str]| {
        let output = ingest(&[&["tag"], arguments].concat());
        assert_eq!(code(&output), expected, "{}", errors(&output));
        error_line(&output)
    };
    let fails = |arguments: &[&str]| fails_with(1, arguments);
    // The command line names no column, or one that does not exist: exit code 2.
    let line = fails_with(2, &["--table", text(&at("in.csv")), "--out", text(&out)]);
    assert!(line.contains("in.csv has no column of captions; its columns are id, title"), "{line}");
    assert!(line.contains("--caption-col") && !line.contains("--no-captions"), "{line}");
    let line = fails_with(2, &["--table", text(&at("in.csv")), "--out", text(&out), "--caption-col", "alt"]);
    assert!(line.contains("no column \"alt\""), "{line}");
    let line = fails(&["--table", text(&at("nowhere.csv")), "--out", text(&out)]);
    assert!(line.contains("nowhere.csv does not exist"), "{line}");
    // A table without rows.
    for (name, contents) in [("empty.txt", ""), ("header.csv", "caption\n")] {
        fs::write(at(name), contents).unwrap();
        let line = fails(&["--table", text(&at(name)), "--out", text(&at("nothing"))]);
        assert!(line.contains(name) && line.contains("no rows"), "{line}");
        assert!(!at("nothing").exists());
    }
    // --out is a file.
    let line = fails(&["--table", text(&at("in.txt")), "--out", text(&at("in.csv"))]);
    assert!(line.contains("in.csv"), "{line}");
    fs::create_dir(at("shards")).unwrap();
    fs::write(at("shards/00000.tar"), "").unwrap();
    let line = fails(&["--table", text(&at("in.txt")), "--out", text(&at("shards"))]);
    assert!(line.contains("holds shards") && line.contains("--out"), "{line}");
    assert_eq!(code(&ingest(&["tag", "--table", text(&at("in.txt"))])), 2, "--out is missing");
    assert_eq!(code(&ingest(&["tag", text(&at("shards")), "--table", text(&at("in.txt"))])), 2);

    // A limit of the file size of 32 KiB acts like a full disk.
    let script = "trap '' XFSZ; ulimit -f 32; exec \"$@\"";
    let full = Command::new("bash")
        .args(["-c", script, "bash", env!("CARGO_BIN_EXE_ingest"), "tag", "--table", text(&at("in.txt"))])
        .args(["--out", text(&out)])
        .output()
        .unwrap();
    assert_eq!(code(&full), 1, "{}", errors(&full));
    assert!(error_line(&full).contains("00000.concepts.parquet"), "{}", error_line(&full));
    assert_eq!(fs::read_dir(&out).unwrap().count(), 0, "no files are left");
    let unwritable = command(&["tag", "--text", text(&at("in.txt"))])
        .stdout(fs::File::create("/dev/full").unwrap())
        .output()
        .unwrap();
    assert_eq!(code(&unwritable), 1);
    assert!(error_line(&unwritable).contains("standard output"), "{}", error_line(&unwritable));
}

#[test]
fn json_lines_keep_their_order_with_any_number_of_threads() {
    let place = tempfile::tempdir().unwrap();
    let input = place.path().join("in.txt");
    // Longer than several reads, and the last line has no line ending.
    let mut lines = captions(60_000).join("\n");
    lines.push_str("\nthe “last” café");
    fs::write(&input, lines).unwrap();
    let tag = |threads| ingest(&["tag", "--text", text(&input), "--threads", threads]).stdout;
    let one = tag("1");
    assert!(one == tag("4"));
    let printed = String::from_utf8(one).unwrap();
    let values: Vec<Value> = printed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(values.len(), 60_001);
    for (i, (value, caption)) in values.iter().zip(captions(60_000)).enumerate() {
        assert_eq!(value["text"], caption.as_str(), "line {i}");
    }
    assert_eq!(values[60_000]["text"], "the \"last\" café");
}

#[test]
fn every_line_is_answered_before_the_next_one_is_sent() {
    use std::io::{BufRead, BufReader};
    let mut child =
        command(&["tag", "--text", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (mut to, mut from) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
    for caption in ["a dog", "two cats"] {
        writeln!(to, "{caption}").unwrap();
        let mut line = String::new();
        from.read_line(&mut line).unwrap();
        assert_eq!(serde_json::from_str::<Value>(&line).unwrap()["text"], caption);
    }
    drop(to);
    assert!(child.wait().unwrap().success());
}
