//! `ingest reshard`: what is taken, what goes along, and what is refused.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::Arc;

use arrow_array::{ArrayRef, RecordBatch, StringArray};
use concepts::sidecar::Sidecar;
use loader::shards::selection::{self, Metadata, ShardOfSelection};
use loader::shards::{Archive, Index, signals, stats_path};
use storage::Location;
use tests::inject::{EVENTS, copy};

use crate::common::{code, command, contents, error_line, errors, ingest, jpeg, members, summary, table};

/// 12 samples in shards of 5, of which one failed; tagged, and with the signals of a program of its own.
fn tagged(folder: &Path) -> PathBuf {
    let images = folder.join("images");
    fs::create_dir(&images).unwrap();
    for number in 0..13u32 {
        let image = if number == 6 { b"no image".to_vec() } else { jpeg(30 + number, 20, number) };
        fs::write(images.join(format!("{number:02}.jpg")), image).unwrap();
        fs::write(images.join(format!("{number:02}.txt")), format!("a dog and {number} red cars")).unwrap();
    }
    let set = folder.join("set");
    let (images, path) = (images.to_str().unwrap(), set.to_str().unwrap());
    let output = ingest(&["shard", images, "--out", path, "--shard-size", "5", "--image-size", "16"]);
    assert_eq!(code(&output), 0, "{}", errors(&output));
    assert_eq!(code(&ingest(&["tag", path])), 0);
    for shard in 0..3 {
        own_signals(&set.join(format!("{shard:05}.tar")), "sharp");
    }
    set
}

/// Signals of a producer of its own: the length of each key's image.
fn own_signals(shard: &Path, producer: &str) {
    let index = Index::load(&Archive::open(shard).unwrap()).unwrap();
    let keys: Vec<&str> = (0..index.len() as u32).map(|sample| index.key(sample)).collect();
    let texts: ArrayRef = Arc::new(keys.iter().map(|key| Some(format!("of {key}"))).collect::<StringArray>());
    let columns = RecordBatch::try_from_iter_with_nullable([("text", texts, true)]).unwrap();
    let metadata = signals::Metadata::new(producer, "a test", shard).unwrap();
    signals::Signals::new(metadata, keys, columns).unwrap().write(shard).unwrap();
}

/// Writes a selection of these samples of the shards of a folder, as `tools select` does.
fn select(set: &Path, rows: &[(u32, u32, f32)], out: &Path) {
    let of = |number: u32| {
        let path = set.join(format!("{number:05}.tar"));
        let index = Index::load(&Archive::open(path.as_path()).unwrap()).unwrap();
        ShardOfSelection {
            shard: format!("{number:05}.tar"),
            samples: index.len() as u32,
            content: Some(index.identity()),
        }
    };
    let metadata = Metadata::new((0..3).map(of).collect(), Vec::new());
    selection::write(&out.into(), &metadata, rows.iter().copied()).unwrap();
}

fn reshard(set: &Path, out: &Path, more: &[&str]) -> Output {
    ingest(&[&["reshard", set.to_str().unwrap(), "--out", out.to_str().unwrap(), "--json"], more].concat())
}

fn verify(set: &Path) {
    let output = ingest(&["verify", set.to_str().unwrap(), "--json"]);
    assert_eq!(code(&output), 0, "{}", errors(&output));
    assert_eq!(summary(&output)["notes"].as_array().unwrap().len(), 0, "{}", errors(&output));
}

/// What is known of each sample of a folder, by key: its members, its row without its place, its mentions and signals.
fn samples(set: &Path) -> BTreeMap<String, Vec<String>> {
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut names: Vec<PathBuf> = fs::read_dir(set).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.sort();
    for path in names {
        let name = path.file_name().unwrap().to_str().unwrap();
        if path.extension().is_some_and(|extension| extension == "tar") {
            for (name, bytes) in members(&path) {
                found
                    .entry(name.split('.').next().unwrap().to_owned())
                    .or_default()
                    .push(format!("{name} {bytes:?}"));
            }
        } else if name.ends_with(".concepts.parquet") {
            let sidecar = Sidecar::open(&path).unwrap();
            for sample in 0..sidecar.metadata.samples {
                for mut mention in sidecar.mentions(sample) {
                    mention.sample = 0;
                    found.entry(mention.key.to_owned()).or_default().push(format!("{mention:?}"));
                }
            }
        } else if name.ends_with(".parquet") && name != "index.parquet" {
            for mut row in table(&path) {
                let key = row["key"].clone();
                if row.get("status").is_some_and(|status| status != "success") {
                    continue;
                }
                for place in ["offset", "length", "sample"] {
                    row.remove(place);
                }
                found.entry(key).or_default().push(format!("{row:?}"));
            }
        }
    }
    for all in found.values_mut() {
        all.sort();
    }
    found
}

fn keys(tar: &Path) -> Vec<String> {
    let mut keys: Vec<String> =
        members(tar).iter().map(|(name, _)| name.split('.').next().unwrap().to_owned()).collect();
    keys.dedup();
    keys
}

#[test]
fn selected_samples_go_into_new_shards_with_all_that_belongs_to_them() {
    let folder = tempfile::tempdir().unwrap();
    let set = tagged(folder.path());
    let selection = folder.path().join("selection.parquet");
    // Of the second shard only the last sample has the number 3: one of its rows failed.
    select(&set, &[(2, 1, 1.0), (0, 1, 1.0), (0, 4, 1.0), (1, 3, 1.0), (0, 0, 0.0), (2, 0, 1.0)], &selection);
    let out = folder.path().join("out");
    let with = ["--selection", selection.to_str().unwrap(), "--samples-per-shard", "3"];
    let output = reshard(&set, &out, &with);
    assert_eq!(code(&output), 0, "{}", errors(&output));
    let counts = summary(&output);
    assert_eq!([&counts["shards_written"], &counts["samples"]], [2, 5], "{counts}");
    assert_eq!(keys(&out.join("00000.tar")), ["000001", "000004", "000014"]);
    assert_eq!(keys(&out.join("00001.tar")), ["000020", "000021"]);
    verify(&out);
    let (before, after) = (samples(&set), samples(&out));
    assert_eq!(after.len(), 5);
    for (key, known) in &after {
        // Three members, and rows of the table, of the perceptual hashes and of the other signals; two mentions.
        assert_eq!(known.len(), 8, "{known:#?}");
        assert_eq!(known, &before[key], "{key}");
    }
    // The places in the table are those in the tar.
    let shard = Location::from(out.join("00000.tar"));
    let (archive, rows) = (Archive::open(&shard).unwrap(), table(&out.join("00000.parquet")));
    for (row, image) in rows.iter().zip(members(&out.join("00000.tar")).chunks(3)) {
        let [offset, length] = ["offset", "length"].map(|name| row[name].parse::<u64>().unwrap());
        assert_eq!(archive.read(offset, length).unwrap(), image[0].1);
    }
    let sums = fs::read_to_string(out.join("00000.sha256")).unwrap();
    let names: Vec<&str> = sums.lines().map(|line| line.split_once("  ").unwrap().1).collect();
    let expected = ["concepts.parquet", "hash.parquet", "parquet", "sharp.parquet", "tar"];
    assert_eq!(names, expected.map(|name| format!("00000.{name}")));
    // Captions are those that were tagged, and the loader reads the shards.
    let shards = loader::shards::list([out.as_path()]).unwrap();
    for shard in &shards {
        let about = loader::shards::sidecar::metadata(shard.clone()).unwrap();
        loader::shards::sidecar::compare_captions(shard, &loader::shards::sidecar_path(shard), &about)
            .unwrap();
    }
    let loader = loader::Loader::open(loader::Settings::new(shards, 5)).unwrap();
    let batch = loader.batches(loader::Position::default()).next().unwrap().unwrap();
    let found: BTreeSet<&String> = batch.keys.iter().collect();
    assert_eq!(found, after.keys().collect());
    // Nothing is done twice, a sidecar is current, and other threads and another folder give the same bytes, statistics included.
    let output = reshard(&set, &out, &with);
    assert_eq!(errors(&output), "nothing to do: 2 shards already complete\n");
    assert_eq!(
        errors(&ingest(&["tag", out.to_str().unwrap()])),
        "nothing to do: 2 shards already complete\n"
    );
    let other = folder.path().join("other");
    reshard(&set, &other, &[&with[..], &["--threads", "1"]].concat());
    for entry in fs::read_dir(&out).unwrap() {
        let path = entry.unwrap().path();
        let again = fs::read(other.join(path.file_name().unwrap())).unwrap();
        assert!(fs::read(&path).unwrap() == again, "{}", path.display());
    }
    // A selection of the new shards is one of their samples, and they can be taken again.
    let all = folder.path().join("all");
    assert_eq!(code(&reshard(&out, &all, &["--compress"])), 0);
    verify(&all);
    assert_eq!(summary(&ingest(&["verify", all.to_str().unwrap(), "--json"]))["samples"], 5);
    // There is nothing to retry.
    let retried = ingest(&["retry", out.to_str().unwrap()]);
    assert!(error_line(&retried).contains("made by `ingest reshard`"), "{}", errors(&retried));
}

#[test]
fn a_seed_mixes_samples_over_shards_and_two_processes_make_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let set = tagged(folder.path());
    let run = |name: &str, more: &[&str]| {
        let out = folder.path().join(name);
        let output = reshard(&set, &out, &[&["--samples-per-shard", "4"], more].concat());
        assert_eq!(code(&output), 0, "{}", errors(&output));
        out
    };
    let plain = run("plain", &[]);
    let mixed = run("mixed", &["--shuffle", "--seed", "7"]);
    let order = |set: &Path| -> Vec<String> {
        (0..3).flat_map(|shard| keys(&set.join(format!("{shard:05}.tar")))).collect()
    };
    assert!(order(&plain).is_sorted());
    assert_ne!(order(&plain), order(&mixed));
    assert_ne!(order(&mixed), order(&run("other", &["--shuffle", "--seed", "8"])));
    assert_eq!(order(&mixed).into_iter().collect::<BTreeSet<_>>(), order(&plain).into_iter().collect());
    assert_eq!((samples(&plain), samples(&mixed)), (samples(&set), samples(&set)));
    verify(&mixed);
    // Shards of two jobs, and of two processes that do not know of each other.
    let expected = contents(&mixed);
    let seed = ["--shuffle", "--seed", "7", "--samples-per-shard", "4"];
    let jobs = folder.path().join("jobs");
    for index in ["1", "0"] {
        reshard(&set, &jobs, &[&seed[..], &["--index", index, "--count", "2"]].concat());
    }
    // One of several jobs does not know when the others have finished, so none writes the index.
    let mut without_index = expected.clone();
    assert!(without_index.remove("index.parquet").is_some());
    assert!(contents(&jobs) == without_index);
    let both = folder.path().join("both");
    let arguments =
        [&["reshard", set.to_str().unwrap(), "--out", both.to_str().unwrap()], &seed[..]].concat();
    let mut running: Vec<_> = (0..2).map(|_| command(&arguments).spawn().unwrap()).collect();
    assert!(running.iter_mut().all(|process| process.wait().unwrap().success()));
    assert!(contents(&both) == expected);
}

#[test]
fn a_reshard_that_is_killed_or_fails_anywhere_resumes_to_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let set = tagged(folder.path());
    let arguments = |out: &Path| {
        let mut arguments =
            vec!["reshard", set.to_str().unwrap(), "--out", out.to_str().unwrap(), "--shuffle"];
        arguments.extend(["--samples-per-shard", "6", "--threads", "2"]);
        command(&arguments)
    };
    let whole = folder.path().join("whole");
    assert!(arguments(&whole).status().unwrap().success());
    let (expected, before) = (contents(&whole), contents(&set));
    for event in EVENTS {
        let count = tests::inject::each(event, None, &arguments, &|out, about| {
            assert!(contents(&set) == before, "{about}");
            let output = arguments(out).output().unwrap();
            assert_eq!(code(&output), 0, "{about}: {}", errors(&output));
            assert!(contents(out) == expected, "{about}");
        });
        println!("reshard, {event}: {count} points");
        assert!(count == 0 || count > 30, "{count}");
    }
}

#[test]
fn shards_of_others_keep_their_columns_and_get_a_table_if_they_have_none() {
    let folder = tempfile::tempdir().unwrap();
    let set = folder.path().join("set");
    fs::create_dir(&set).unwrap();
    let tar = |name: &str, keys: &[&str]| {
        let mut tar = tar::Builder::new(fs::File::create(set.join(name)).unwrap());
        for (number, key) in (0..).zip(keys) {
            for (extension, bytes) in [
                ("jpg", jpeg(30, 20, number)),
                ("txt", format!("a dog {key}").into_bytes()),
                ("json", b"{}".to_vec()),
            ] {
                let mut header = tar::Header::new_gnu();
                header.set_size(bytes.len() as u64);
                header.set_mode(0o600);
                tar.append_data(&mut header, format!("x/{key}.{extension}"), &bytes[..]).unwrap();
            }
        }
        tar.finish().unwrap();
    };
    tar("00000.tar", &["a", "b"]);
    tar("00001.tar", &["c"]);
    let out = folder.path().join("out");
    assert_eq!(code(&reshard(&set, &out, &["--samples-per-shard", "2"])), 0);
    verify(&out);
    let rows = table(&out.join("00001.parquet"));
    let expected = [("caption", "a dog c"), ("key", "x/c"), ("status", "success")];
    assert_eq!(rows, [expected.map(|(name, value)| (name.to_owned(), value.to_owned())).into()]);
    // As img2dataset writes them: without places of images, with columns of its own, and one failed row.
    let write = |name: &str, columns: &[(&str, &[Option<&str>])]| {
        let array = |values: &[Option<&str>]| Arc::new(StringArray::from(values.to_vec())) as ArrayRef;
        let columns = columns.iter().map(|(name, values)| (*name, array(values), true));
        let rows = RecordBatch::try_from_iter_with_nullable(columns).unwrap();
        let file = fs::File::create(set.join(name)).unwrap();
        let mut writer = parquet::arrow::ArrowWriter::try_new(file, rows.schema(), None).unwrap();
        writer.write(&rows).unwrap();
        writer.close().unwrap();
    };
    let success = Some("success");
    write(
        "00000.parquet",
        &[
            ("url", &[Some("u1"), Some("u2"), Some("u3")]),
            ("key", &[Some("x/a"), Some("x/failed"), Some("x/b")]),
            ("status", &[success, Some("failed_to_download"), success]),
            ("similarity", &[Some("0.3"), None, Some("0.4")]),
        ],
    );
    write(
        "00001.parquet",
        &[("key", &[Some("x/c")]), ("status", &[success]), ("url", &[Some("u4")]), ("lang", &[Some("en")])],
    );
    for (shard, successes) in [("00000", 2), ("00001", 1)] {
        let stats = format!(
            "{{\"count\": {successes}, \"successes\": {successes}, \"failed_to_download\": 0, \"failed_to_resize\": 0, \"duration\": 1, \"start_time\": 1, \"end_time\": 2, \"status_dict\": {{}}}}"
        );
        fs::write(set.join(format!("{shard}_stats.json")), stats).unwrap();
    }
    let out = folder.path().join("of-tables");
    let output = reshard(&set, &out, &[]);
    assert_eq!(code(&output), 0, "{}", errors(&output));
    verify(&out);
    let rows = table(&out.join("00000.parquet"));
    let of =
        |name: &str| rows.iter().map(|row| row.get(name).cloned().unwrap_or_default()).collect::<Vec<_>>();
    assert_eq!(of("url"), ["u1", "u3", "u4"]);
    assert_eq!(
        (of("similarity"), of("lang")),
        (vec!["0.3".into(), "0.4".into(), String::new()], vec![String::new(), String::new(), "en".into()])
    );
    // Equal keys cannot go into one dataset; types that differ cannot go into one column.
    tar("00001.tar", &["a"]);
    write("00001.parquet", &[("key", &[Some("x/a")]), ("status", &[success]), ("url", &[Some("u4")])]);
    let refused = folder.path().join("refused");
    let line = error_line(&reshard(&set, &refused, &[]));
    assert!(line.contains("00000.tar") && line.contains("00001.tar") && line.contains("same key"), "{line}");
    assert!(!refused.exists());
}

#[test]
fn what_only_some_shards_have_is_left_out_and_what_is_wrong_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let set = tagged(folder.path());
    let some = folder.path().join("some");
    copy(&set, &some);
    fs::remove_file(some.join("00001.concepts.parquet")).unwrap();
    fs::remove_file(some.join("00002.sharp.parquet")).unwrap();
    for shard in 0..3 {
        fs::remove_file(some.join(format!("{shard:05}.sha256"))).unwrap();
    }
    let out = folder.path().join("out");
    let output = reshard(&some, &out, &[]);
    assert_eq!(code(&output), 0, "{}", errors(&output));
    let told = errors(&output);
    assert!(
        told.contains("sidecars (concept mentions) are left out, because")
            && told.contains("00001.tar has none"),
        "{told}"
    );
    assert!(
        told.contains("signals \"sharp\" are left out, because") && told.contains("00002.tar has none"),
        "{told}"
    );
    assert_eq!(summary(&output)["left_out"].as_array().unwrap().len(), 2);
    verify(&out);
    assert!(out.join("00000.hash.parquet").exists() && !out.join("00000.concepts.parquet").exists());

    let refused = folder.path().join("refused");
    let line = |set: &Path, more: &[&str]| {
        let line = error_line(&reshard(set, &refused, more));
        assert!(!refused.exists(), "{line}");
        line
    };
    let selection = folder.path().join("selection.parquet");
    let with = ["--selection", selection.to_str().unwrap()];
    let selected = |rows: &[(u32, u32, f32)]| {
        select(&set, rows, &selection);
        line(&set, &with)
    };
    assert!(selected(&[(1, 4, 1.0)]).contains("sample 4 of 00001.tar, which has 4 samples"));
    assert!(selected(&[(0, 1, 1.0), (0, 1, 1.0)]).contains("has sample 1 of"));
    assert!(selected(&[(0, 1, 1.0), (2, 0, 2.5)]).contains("has the weight 2.5"));
    assert!(selected(&[(0, 1, 0.0)]).contains("it has no samples"));
    select(&set, &[(0, 1, 1.0)], &selection);
    let first = set.join("00000.tar");
    let one = error_line(&reshard(&set.join("00001.tar"), &refused, &with));
    assert!(one.contains("it is of the shard 00000.tar, which is not among the shards"), "{one}");
    // A shard that changed since the selection was made, and one whose signals or sidecar are those of another state.
    let changed = folder.path().join("changed");
    copy(&set, &changed);
    fs::copy(set.join("00001.parquet"), changed.join("00000.parquet")).unwrap();
    fs::copy(set.join("00001.tar"), changed.join("00000.tar")).unwrap();
    fs::copy(set.join("00001_stats.json"), changed.join("00000_stats.json")).unwrap();
    assert!(line(&changed, &[]).contains("same key"));
    for name in ["00000.concepts.parquet", "00000.hash.parquet"] {
        let stale = folder.path().join(name);
        copy(&set, &stale);
        fs::copy(set.join(name.replace("00000", "00001")), stale.join(name)).unwrap();
        let line = line(&stale, &[]);
        assert!(line.contains(name), "{line}");
    }
    fs::remove_file(stats_path(&first.as_path().into()).as_name()).unwrap();
    assert!(line(&set, &[]).contains("incomplete (no _stats.json)"));
    // A folder that has other shards.
    let line = error_line(&reshard(&folder.path().join("some"), &set, &[]));
    assert!(line.contains("already holds another dataset"), "{line}");
}
