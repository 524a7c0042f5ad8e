//! Sidecars of shards, also those of other tools, and captions on standard input.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Stdio;

use crate::common::{code, command, contents, error_line, errors, ingest, jpeg, summary, table};
use concepts::sidecar::{Sidecar, Writer};
use serde_json::Value;

/// A tar as other tools write it: no table, no statistics, captions before images, names with folders.
fn foreign(path: &Path, captions: &[&[u8]]) {
    let mut tar = tar::Builder::new(fs::File::create(path).unwrap());
    for (index, caption) in captions.iter().enumerate() {
        for (extension, bytes) in [("txt", caption.to_vec()), ("jpg", jpeg(16, 16, 1))] {
            let mut header = tar::Header::new_ustar();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            tar.append_data(&mut header, format!("data/{index:04}.{extension}"), bytes.as_slice()).unwrap();
        }
    }
    tar.finish().unwrap();
}

#[test]
fn foreign_shards_are_tagged_in_tar_order_and_once() {
    let folder = tempfile::tempdir().unwrap();
    let captions: [&[u8]; 4] =
        [b"Two dogs on a wooden bench.", b"", b"A tennis racket \xff and a red ball", b"running fast"];
    foreign(&folder.path().join("a.tar"), &captions);
    foreign(&folder.path().join("b.tar"), &captions[..1]);
    let path = folder.path().to_str().unwrap();
    let output = ingest(&["tag", path, "--json", "--threads", "3"]);
    assert_eq!(code(&output), 0, "{}", errors(&output));
    let counts = summary(&output);
    assert_eq!(
        (&counts["shards"], &counts["tagged"], &counts["captions"]),
        (&2.into(), &2.into(), &5.into())
    );
    assert_eq!(counts["captions_not_utf8"], 1);

    let rows = table(&folder.path().join("a.concepts.parquet"));
    assert_eq!(
        rows.len() as u64 + table(&folder.path().join("b.concepts.parquet")).len() as u64,
        counts["mentions"].as_u64().unwrap()
    );
    let concepts: Vec<(&str, &str)> =
        rows.iter().map(|row| (row["sample"].as_str(), row["concept"].as_str())).collect();
    assert!(concepts.contains(&("0", "dog")) && concepts.contains(&("2", "tennis racket")), "{concepts:?}");
    assert!(rows.iter().all(|row| row["key"] == format!("data/{:0>4}", row["sample"])));

    // A second run has nothing to do, says so, and has the same totals.
    let before = contents(folder.path());
    let output = ingest(&["tag", path, "--json"]);
    let again = summary(&output);
    assert_eq!((&again["tagged"], &again["mentions"]), (&0.into(), &counts["mentions"]));
    assert_eq!(errors(&output), "nothing to do: 2 shards already complete\n");
    assert!(contents(folder.path()) == before);

    // Another shard with the old sidecar: the sidecar is replaced, and counted as replaced.
    foreign(&folder.path().join("a.tar"), &captions[2..]);
    let stale = ingest(&["verify", path]);
    assert_eq!(code(&stale), 1);
    assert!(errors(&stale).contains("a.concepts.parquet"), "{}", errors(&stale));
    let again = summary(&ingest(&["tag", path, "--json"]));
    assert_eq!((&again["tagged"], &again["replaced"]), (&1.into(), &1.into()));
    assert_eq!(code(&ingest(&["verify", path])), 0);
}

#[test]
fn sidecars_of_an_older_normalisation_are_renewed_and_counted() {
    let folder = tempfile::tempdir().unwrap();
    let captions: [&[u8]; 2] = ["The dog’s “ﬁrst” ball &amp; a cafÃ©".as_bytes(), b"two cats"];
    for name in ["a", "b", "c"] {
        foreign(&folder.path().join(name).with_extension("tar"), &captions);
    }
    let path = folder.path().to_str().unwrap();
    assert_eq!(code(&ingest(&["tag", path])), 0);
    let tagged = contents(folder.path());
    // As the program of that version wrote them: without the field.
    for name in ["a.concepts.parquet", "c.concepts.parquet"] {
        let sidecar = folder.path().join(name);
        let mut metadata = Sidecar::read_metadata(&sidecar).unwrap();
        metadata.canonical = 1;
        let mut writer = Writer::create(&sidecar, metadata).unwrap();
        for (sample, key) in [(0, "data/0000"), (1, "data/0001")] {
            writer.push(sample, key, "", &[]).unwrap();
        }
        writer.finish().unwrap();
    }
    let outdated = ingest(&["verify", path]);
    assert_eq!(code(&outdated), 1);
    assert!(errors(&outdated).contains("c.concepts.parquet: its offsets count"), "{}", errors(&outdated));
    let output = ingest(&["tag", path, "--json"]);
    let counts = summary(&output);
    assert_eq!(
        (&counts["tagged"], &counts["renewed"], &counts["replaced"]),
        (&2.into(), &2.into(), &0.into())
    );
    assert!(errors(&output).contains("renewed 2 sidecars"), "{}", errors(&output));
    assert!(contents(folder.path()) == tagged);
    assert_eq!(code(&ingest(&["verify", path])), 0);
    let rows = table(&folder.path().join("a.concepts.parquet"));
    let phrases: Vec<&str> = rows.iter().map(|row| row["phrase"].as_str()).collect();
    assert!(phrases.contains(&"a café"), "{phrases:?}");
}

#[test]
fn the_number_of_threads_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let captions: Vec<String> =
        (0..1500).map(|i| format!("a cat number {i} on the old kitchen table")).collect();
    let captions: Vec<&[u8]> = captions.iter().map(String::as_bytes).collect();
    foreign(&folder.path().join("a.tar"), &captions);
    let tag = |threads: &str| {
        let output = ingest(&["tag", folder.path().join("a.tar").to_str().unwrap(), "--threads", threads]);
        assert_eq!(code(&output), 0, "{}", errors(&output));
        let sidecar = folder.path().join("a.concepts.parquet");
        let bytes = fs::read(&sidecar).unwrap();
        fs::remove_file(sidecar).unwrap();
        bytes
    };
    assert!(tag("1") == tag("4"));
}

#[test]
fn captions_become_json_lines_with_offsets_in_characters() {
    let mut child =
        command(&["tag", "--text", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    // The quotes and the e with accent are one character and several bytes each.
    child
        .stdin
        .take()
        .unwrap()
        .write_all("A “café” with two\u{a0}Big Dogs &amp; a CAT\n\nrunning\n".as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(code(&output), 0);
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 3, "one line per caption, also for empty ones");
    let canonical: Vec<char> = lines[0]["text"].as_str().unwrap().chars().collect();
    let mentions = lines[0]["mentions"].as_array().unwrap();
    assert!(mentions.iter().any(|mention| mention["concept"] == "dog"), "{mentions:?}");
    for mention in mentions {
        let at = |name: &str| mention[name].as_u64().unwrap() as usize;
        let phrase: String = canonical[at("start")..at("end")].iter().collect();
        assert_eq!(mention["phrase"], phrase.as_str());
        assert!(
            at("start") <= at("concept_start")
                && at("concept_end") == at("head_end")
                && at("head_end") <= at("end")
        );
    }
    assert_eq!(lines[1]["mentions"].as_array().unwrap().len(), 0);
}

#[test]
fn invalid_input_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let nothing = ingest(&["tag", folder.path().to_str().unwrap()]);
    assert_eq!(code(&nothing), 1);
    assert!(error_line(&nothing).contains("no shards"), "{}", error_line(&nothing));
    assert_eq!(code(&ingest(&["tag", "/nowhere/at/all"])), 1);
    let nothing = ingest(&["tag"]);
    assert_eq!(code(&nothing), 2);
    assert!(error_line(&nothing).contains("give a folder of shards, --table"), "{}", error_line(&nothing));
    let missing = ingest(&["tag", "--text", "/nowhere/at/all"]);
    assert_eq!(code(&missing), 1);
    assert_eq!(error_line(&missing), "error: /nowhere/at/all does not exist");
    // With --text every job would print all captions.
    assert_eq!(code(&ingest(&["tag", "--text", "-", "--index", "0", "--count", "2"])), 2);
    fs::write(folder.path().join("a.tar"), b"this is not a tar, despite its name").unwrap();
    let damaged = ingest(&["tag", folder.path().to_str().unwrap()]);
    assert_eq!(code(&damaged), 1);
    assert!(error_line(&damaged).contains("a.tar"), "{}", error_line(&damaged));
    assert!(!folder.path().join("a.concepts.parquet").exists());
}
