//! The `tools` program as a user runs it.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use concepts::sidecar::{self, Cut, Metadata, Parts, Table, Writer};
use concepts::{Mention, TaggerDescription};

pub(crate) fn tools(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tools")).args(arguments).output().unwrap()
}

/// Runs the program, which must succeed; returns the JSON on the last line of its standard output.
pub(crate) fn summary(arguments: &[&str]) -> serde_json::Value {
    let output = tools(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    serde_json::from_str(text.lines().last().unwrap()).unwrap()
}

/// Exit code and the error line of a run that must fail; there must be exactly one such line.
pub(crate) fn failure(arguments: &[&str]) -> (i32, String) {
    let output = tools(arguments);
    let text = String::from_utf8(output.stderr).unwrap();
    let lines: Vec<&str> = text.lines().filter(|line| line.starts_with("error: ")).collect();
    assert_eq!(lines.len(), 1, "{arguments:?}: {text}");
    (output.status.code().unwrap(), lines[0].to_owned())
}

/// All files below a folder, by relative path.
pub(crate) fn contents(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(folder).unwrap().to_str().unwrap().to_owned();
                files.insert(name, fs::read(path).unwrap());
            }
        }
    }
    files
}

pub(crate) fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Job schedulers distinguish a stopped job from a failed one by this code.
#[test]
fn a_signal_ends_a_long_command_with_128_and_its_number() {
    let place = tempfile::tempdir().unwrap();
    let out = place.path().join("out");
    for (signal, code) in [("TERM", 143), ("INT", 130)] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tools"));
        command.args(["scenes", "--count", "10000000", "--out", text(&out)]).stderr(Stdio::piped());
        let child = command.spawn().unwrap();
        // It has begun when its temporary folder is there.
        while fs::read_dir(place.path()).unwrap().count() == 0 {
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        let sent = Command::new("kill").args([format!("-{signal}"), child.id().to_string()]).status();
        assert!(sent.unwrap().success());
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{said}");
        assert!(said.contains(&format!("error: interrupted: {} was not written", out.display())), "{said}");
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0, "nothing is left");
    }
}

/// The mention of `phrase` in `caption`; the concept's words end the phrase, and the last one is the head.
fn mention(caption: &str, phrase: &str, concept_words: &str, concept: &str) -> Mention {
    let start = caption.find(phrase).unwrap();
    let at = start + phrase.find(concept_words).unwrap();
    let head = at + concept_words.rfind(' ').map_or(0, |space| space + 1);
    Mention {
        phrase: start..start + phrase.len(),
        concept_span: at..at + concept_words.len(),
        head_span: head..at + concept_words.len(),
        concept: concept.to_owned(),
        head: concept.rsplit(' ').next().unwrap().to_owned(),
        tags: vec!["NN"; phrase.split(' ').count()].join(" "),
    }
}

/// A caption and its mentions: phrase, the words of the concept in the phrase, concept.
type Captioned = (&'static str, &'static [(&'static str, &'static str, &'static str)]);

/// Writes a shard and its sidecar.
fn write_shard(folder: &Path, name: &str, samples: &[Captioned]) {
    fs::create_dir_all(folder).unwrap();
    let path = folder.join(name);
    let mut archive = tar::Builder::new(fs::File::create(&path).unwrap());
    for (i, (caption, _)) in samples.iter().enumerate() {
        let mut header = tar::Header::new_ustar();
        header.set_size(caption.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, format!("{i:04}.txt"), caption.as_bytes()).unwrap();
    }
    archive.finish().unwrap();
    drop(archive);
    let tagger = TaggerDescription { name: "hand".into(), hash: "0".into(), grammar: 1 };
    let metadata = Metadata::new(&tagger, &path, fs::metadata(&path).unwrap().len());
    let mut writer = Writer::create(&sidecar::path_for(&path), metadata).unwrap();
    for (i, (caption, mentions)) in samples.iter().enumerate() {
        let mentions: Vec<Mention> = mentions.iter().map(|(p, w, c)| mention(caption, p, w, c)).collect();
        writer.push(i as u32, &format!("{i:04}"), caption, &mentions).unwrap();
    }
    writer.finish().unwrap();
}

const FIRST: &[Captioned] = &[
    (
        "two yellow tennis balls near a crate",
        &[("two yellow tennis balls", "tennis balls", "tennis ball"), ("a crate", "crate", "crate")],
    ),
    ("so it goes", &[]),
    ("a crate and a crate", &[("a crate", "crate", "crate"), ("a crate", "crate", "crate")]),
];
const SECOND: &[Captioned] = &[
    ("a pine tree", &[("a pine tree", "pine tree", "pine tree")]),
    ("a crate by a pine tree", &[("a crate", "crate", "crate"), ("a pine tree", "pine tree", "pine tree")]),
];

#[test]
fn statistics_are_counted_and_merged() {
    let place = tempfile::tempdir().unwrap();
    let at = |name: &str| place.path().join(name);
    write_shard(&at("whole"), "00000.tar", FIRST);
    write_shard(&at("whole"), "00001.tar", SECOND);
    write_shard(&at("a"), "00000.tar", FIRST);
    write_shard(&at("b"), "00001.tar", SECOND);
    fs::write(at("classes"), "crate\ntree\ntennis ball\numbrella\n").unwrap();

    let counted = summary(&[
        "stats",
        text(&at("whole")),
        "--out",
        text(&at("stats")),
        "--class-file",
        text(&at("classes")),
        "--json",
    ]);
    // Counted by hand in the two lists above.
    for (name, value) in [
        ("shards", 2),
        ("samples", 5),
        ("samples_without_mention", 1),
        ("mentions", 7),
        ("concepts", 3),
        ("pairs", 2),
    ] {
        assert_eq!(counted[name], value, "{name}");
    }
    assert_eq!(counted["top"][0], serde_json::json!({"concept": "crate", "mentions": 4, "samples": 3}));
    assert_eq!(counted["coverage"]["absent"], serde_json::json!(["umbrella"]));
    // "pine tree" is not a class, but its head "tree" is.
    assert_eq!(
        counted["coverage"]["classes"][1],
        serde_json::json!({"class": "tree", "mentions": 2, "samples": 2})
    );
    for part in ["a", "b"] {
        let out = at(&format!("stats-{part}"));
        assert!(tools(&["stats", text(&at(part)), "--out", text(&out)]).status.success());
    }
    let parts = [at("stats-a"), at("stats-b")];
    let merged = at("merged");
    assert!(tools(&["merge", text(&parts[1]), text(&parts[0]), "--out", text(&merged)]).status.success());
    let (mut whole, merged) = (contents(&at("stats")), contents(&merged));
    assert!(whole.remove("coverage.json").is_some());
    assert!(whole == merged, "the statistics of the parts do not add up to those of the whole");

    assert_eq!(failure(&["merge", text(&parts[0]), text(&parts[0]), "--out", text(&at("x"))]).0, 2);
    let (code, line) = failure(&["merge", text(&at("a")), "--out", text(&at("x"))]);
    assert!(code == 1 && line.contains("stats.json"), "{line}");
    assert!(!at("x").exists());
}

#[test]
fn statistics_reject_missing_and_wrong_sidecars() {
    let place = tempfile::tempdir().unwrap();
    let (shards, out) = (place.path().join("shards"), place.path().join("out"));
    write_shard(&shards, "00000.tar", FIRST);
    write_shard(&shards, "00001.tar", SECOND);
    fs::copy(shards.join("00000.tar"), shards.join("00001.tar")).unwrap();
    let (code, line) = failure(&["stats", text(&shards), "--out", text(&out)]);
    assert!(code == 1 && line.contains("00001.concepts.parquet"), "{line}");
    fs::remove_file(shards.join("00001.concepts.parquet")).unwrap();
    let (code, line) = failure(&["stats", text(&shards), "--out", text(&out)]);
    let command = format!("`ingest tag {}`", shards.display());
    assert!(code == 1 && line.contains("00001.tar has no sidecar") && line.contains(&command), "{line}");
    assert!(!out.exists());
}

/// Writes the sidecars of a table with the captions of FIRST and SECOND, in parts of three captions.
fn write_parts(folder: &Path) -> Parts {
    fs::create_dir_all(folder).unwrap();
    let tagger = TaggerDescription { name: "hand".into(), hash: "0".into(), grammar: 1 };
    let mut parts = Parts::new(&tagger, Cut { part_size: 3, caption: None, key: None });
    parts.tables.push(Table { name: "captions.txt".into(), bytes: 120, rows: 5 });
    let samples: Vec<&Captioned> = FIRST.iter().chain(SECOND).collect();
    for (number, footer) in (0..).zip(parts.footers()) {
        let (first, count) = (footer.rows.as_ref().unwrap().first as usize, footer.samples as usize);
        let mut writer = Writer::create(&Parts::path(folder, number), footer).unwrap();
        for (i, (caption, mentions)) in samples[first..first + count].iter().enumerate() {
            let mentions: Vec<Mention> = mentions.iter().map(|(p, w, c)| mention(caption, p, w, c)).collect();
            writer.push(i as u32, &format!("{:09}", first + i), caption, &mentions).unwrap();
        }
        writer.finish().unwrap();
    }
    parts.write(folder).unwrap();
    parts
}

#[test]
fn statistics_of_sidecars_without_shards() {
    let place = tempfile::tempdir().unwrap();
    let at = |name: &str| place.path().join(name);
    write_shard(&at("shards"), "00000.tar", FIRST);
    write_shard(&at("shards"), "00001.tar", SECOND);
    let parts = write_parts(&at("parts"));
    fs::write(at("classes"), "crate\ntree\numbrella\n").unwrap();
    let count = |of: &str, out: &str, more: &[&str]| {
        let (of, out) = (at(of), at(out));
        let counted = summary(&[&["stats", text(&of), "--out", text(&out), "--json"], more].concat());
        (counted, contents(&out))
    };
    // A single shard instead of a folder.
    assert_eq!(count("shards/00001.tar", "of-one", &[]).0["samples"], 2);
    // The captions are the same, so the counts must be.
    let (of_parts, one_thread) = count("parts", "one", &["--threads", "1"]);
    assert_eq!(of_parts, count("shards", "of-shards", &[]).0);
    assert!(one_thread == count("parts", "four", &["--threads", "4"]).1);
    // With classes, the whole sidecars are read. The counts of concepts must be the same.
    let classes = at("classes");
    let (_, mut with_classes) =
        count("parts", "classed", &["--threads", "2", "--class-file", text(&classes)]);
    assert!(with_classes.remove("coverage.json").is_some());
    assert!(with_classes == one_thread);

    let fails_with = |what: &str| {
        let (code, line) = failure(&["stats", text(&at("parts")), "--out", text(&at("x"))]);
        assert!(code == 1 && line.contains(what), "{line}");
        line
    };
    // A sidecar of other rows, of another tagger, a missing one, and a run that was not finished.
    let (first, second) = (Parts::path(&at("parts"), 0), Parts::path(&at("parts"), 1));
    fs::copy(&first, &second).unwrap();
    fails_with("00001.concepts.parquet: was made from 3 captions of captions.txt (120 bytes) from row 0 on");
    let mut other = parts.clone();
    other.tagger = "other".into();
    other.write(&at("parts")).unwrap();
    // Of both sidecars, whichever is looked at first.
    fails_with("with the tagger other");
    parts.write(&at("parts")).unwrap();
    fs::remove_file(&second).unwrap();
    assert!(fails_with("00001.concepts.parquet does not exist").contains("ingest tag --table"));
    fs::remove_file(at("parts").join("captions.json")).unwrap();
    assert!(fails_with("captions.json").contains("which finishes it"));
    // A sidecar of a table is not accepted as the sidecar of a shard.
    fs::copy(at("shards/00000.tar"), at("parts/00000.tar")).unwrap();
    fails_with("was made from captions.txt, not from 00000.tar");
}

#[test]
fn show_lists_samples() {
    let place = tempfile::tempdir().unwrap();
    write_shard(place.path(), "00000.tar", FIRST);
    let shard = place.path().join("00000.tar");
    let output = tools(&["show", text(&shard)]);
    let listing = String::from_utf8(output.stdout).unwrap();
    for part in ["0000", "two yellow tennis balls near a crate", "tennis ball  ", "3 of 3 samples"] {
        assert!(listing.contains(part), "{part:?} is missing in {listing}");
    }
    let one = summary(&["show", text(&shard), "--key", "0002", "--json"]);
    assert_eq!(one["samples"], 3);
    assert_eq!(one["shown"].as_array().unwrap().len(), 1);
    assert_eq!(one["shown"][0]["mentions"][1]["concept"], "crate");
    assert_eq!(
        summary(&["show", text(&shard), "--limit", "2", "--json"])["shown"].as_array().unwrap().len(),
        2
    );

    let (code, line) = failure(&["show", text(&shard), "--key", "7777"]);
    assert!(code == 1 && line.contains("has no sample 7777; its first key is 0000"), "{line}");
    let (code, line) = failure(&["show", text(&place.path().join("none.tar"))]);
    assert!(code == 1 && line.ends_with("none.tar does not exist"), "{line}");
    let (code, line) = failure(&["show", text(place.path())]);
    assert!(code == 2 && line.contains("is a folder") && line.contains("00000.tar"), "{line}");

    fs::remove_file(place.path().join("00000.concepts.parquet")).unwrap();
    let listing = String::from_utf8(tools(&["show", text(&shard)]).stdout).unwrap();
    let command = format!("run `ingest tag {}` to find them", place.path().display());
    assert!(listing.ends_with(&format!("3 of 3 samples; without mentions: {command}\n")), "{listing}");
}

/// Mentions and samples of each class in a summary of `tools stats`.
fn coverage(counted: &serde_json::Value) -> Vec<(&str, u64, u64)> {
    let classes = counted["coverage"]["classes"].as_array().unwrap().iter();
    let number = |class: &serde_json::Value, name: &str| class[name].as_u64().unwrap();
    classes
        .map(|class| (class["class"].as_str().unwrap(), number(class, "mentions"), number(class, "samples")))
        .collect()
}

#[test]
fn classes_are_a_list_or_a_file() {
    let place = tempfile::tempdir().unwrap();
    let at = |name: &str| place.path().join(name);
    write_shard(&at("shards"), "00000.tar", FIRST);
    write_shard(&at("shards"), "00001.tar", SECOND);
    // One class per line, in the three forms of a line.
    fs::write(at("file"), "crate\ntennis ball | soccer ball\n\nPlant = tree | flower\numbrella\n").unwrap();
    let count = |name: &str, options: &[&str]| {
        let (shards, out) = (at("shards"), at(name));
        summary(&[&["stats", text(&shards), "--out", text(&out), "--json"], options].concat())
    };
    // Counted by hand: four mentions of "crate" in three samples, one of "tennis balls", two of "pine tree".
    let of_file = count("of-file", &["--class-file", text(&at("file"))]);
    assert_eq!(
        coverage(&of_file),
        [("crate", 4, 3), ("tennis ball", 1, 1), ("plant", 2, 2), ("umbrella", 0, 0)]
    );
    let of_list = count("of-list", &["--classes", "crate, soccer ball|tennis ball,umbrella,"]);
    assert_eq!(coverage(&of_list), [("crate", 4, 3), ("soccer ball", 1, 1), ("umbrella", 0, 0)]);
    // A word of two classes counts for both.
    let shared = count("shared", &["--classes", "crate, thing|crate"]);
    assert_eq!(coverage(&shared), [("crate", 4, 3), ("thing", 4, 3)]);
    // The path of a file, as earlier versions expected it.
    assert_eq!(count("as-before", &["--classes", text(&at("file"))]), of_file);

    let fail = |options: &[&str]| {
        let (shards, out) = (at("shards"), at("failed"));
        let failed = failure(&[&["stats", text(&shards), "--out", text(&out)], options].concat());
        assert!(!out.exists());
        failed
    };
    let (code, line) = fail(&["--classes", " ,|"]);
    assert!(code == 2 && line.contains("cat|kitten, sofa"), "{line}");
    let (code, line) = fail(&["--classes", "classes.txt"]);
    assert!(code == 2 && line.contains("classes.txt") && line.contains("--class-file"), "{line}");
    let (code, line) = fail(&["--class-file", text(&at("nothing"))]);
    assert!(code == 1 && line.ends_with("nothing does not exist"), "{line}");
    fs::write(at("empty"), "\n \n").unwrap();
    let (code, line) = fail(&["--class-file", text(&at("empty"))]);
    assert!(code == 1 && line.contains("empty has no classes"), "{line}");
    let (shards, out) = (at("shards"), at("failed"));
    for wrong in [&["--classes", "a", "--class-file", "b"][..], &["--matching", "loose"], &["--threads", "0"]]
    {
        let output = tools(&[&["stats", text(&shards), "--out", text(&out)], wrong].concat());
        assert_eq!(output.status.code(), Some(2), "{wrong:?}");
    }
}

#[test]
fn strict_matching_compares_the_whole_concept() {
    let place = tempfile::tempdir().unwrap();
    let at = |name: &str| place.path().join(name);
    write_shard(&at("shards"), "00000.tar", FIRST);
    write_shard(&at("shards"), "00001.tar", SECOND);
    let count = |name: &str, matching: &str, classes: &str| {
        let (shards, out) = (at("shards"), at(name));
        let options = ["--json", "--classes", classes, "--matching", matching];
        let counted = summary(&[&["stats", text(&shards), "--out", text(&out)], &options[..]].concat());
        assert_eq!(counted["coverage"]["matching"], matching);
        let classes = coverage(&counted);
        classes.into_iter().map(|(class, mentions, _)| (class.to_owned(), mentions)).collect::<Vec<_>>()
    };
    let pairs =
        |pairs: [(&str, u64); 2]| pairs.map(|(class, mentions)| (class.to_owned(), mentions)).to_vec();
    // "a pine tree" ends with "tree", but its concept is "pine tree".
    assert_eq!(count("longest", "longest", "tree, crate"), pairs([("tree", 2), ("crate", 4)]));
    assert_eq!(count("strict", "strict", "tree, crate"), pairs([("tree", 0), ("crate", 4)]));
    // Where both are classes, the longer one counts.
    assert_eq!(count("both", "longest", "tree, pine tree"), pairs([("tree", 0), ("pine tree", 2)]));
}

#[test]
fn the_summary_says_that_rare_classes_are_mentioned() {
    let place = tempfile::tempdir().unwrap();
    let at = |name: &str| place.path().join(name);
    // "pine tree" is in 1 of 1,001 samples, "crate" in all of them.
    let crate_only: Captioned = ("a crate", &[("a crate", "crate", "crate")]);
    let mut samples = vec![crate_only; 1000];
    samples.push(SECOND[1]);
    write_shard(&at("shards"), "00000.tar", &samples);
    let (shards, out) = (at("shards"), at("statistics"));
    let classes = ["--classes", "crate, tree, umbrella, sofa"];
    let output = tools(&[&["stats", text(&shards), "--out", text(&out)], &classes[..]].concat());
    let printed = String::from_utf8(output.stdout).unwrap();
    let (_, summary) = printed.split_once("\n4 classes: ").unwrap();
    assert_eq!(
        summary,
        format!(
            "2 mentioned (1 of them rare: in fewer than 1 in 1000 samples), 2 absent\n\
             rare classes, with their number of samples: tree (1)\n\
             absent classes, never mentioned: umbrella, sofa\n\n\
             written to {} (concepts.parquet, pairs.parquet, stats.json, coverage.json)\n",
            out.display()
        )
    );
    let totals = printed.lines().nth(1).unwrap().split_whitespace();
    assert_eq!(totals.collect::<Vec<_>>(), ["samples", "1001"]);
}

#[test]
fn inputs_without_data_are_errors_that_name_the_command_to_run() {
    let place = tempfile::tempdir().unwrap();
    let at = |name: &str| place.path().join(name);
    let (out, page) = (at("out"), at("page.html"));
    let commands = |input: &Path| {
        let input = text(input).to_owned();
        [
            vec!["stats".to_owned(), input.clone(), "--out".to_owned(), text(&out).to_owned()],
            vec!["report".to_owned(), input.clone(), "--out".to_owned(), text(&page).to_owned()],
            vec!["bench".to_owned(), "loader".to_owned(), input],
        ]
    };
    let fails = |input: &str, parts: &[&str], commands: &[Vec<String>]| {
        for command in commands {
            let arguments: Vec<&str> = command.iter().map(String::as_str).collect();
            let (code, line) = failure(&arguments);
            assert_eq!(code, 1, "{command:?}: {line}");
            assert!(
                line.contains(input) && parts.iter().all(|part| line.contains(part)),
                "{command:?}: {line}"
            );
        }
        assert!(!out.exists() && !page.exists(), "{input}: something was written");
    };
    fails("nowhere", &["nowhere does not exist"], &commands(&at("nowhere")));
    fs::create_dir(at("empty")).unwrap();
    fails("empty", &["has no shards", "`ingest download`", "`ingest shard`"], &commands(&at("empty")));
    fs::create_dir(at("other")).unwrap();
    fs::write(at("other/photo.jpg"), "no shard").unwrap();
    // What a killed writer leaves is not a shard.
    fs::write(at("other/.tmp-1-00000.tar"), "").unwrap();
    fails("other", &["has no shards"], &commands(&at("other")));

    write_shard(&at("untagged"), "00000.tar", FIRST);
    fs::remove_file(at("untagged/00000.concepts.parquet")).unwrap();
    let command = format!("`ingest tag {}`", at("untagged").display());
    fails("untagged", &["00000.tar has no sidecar", &command], &commands(&at("untagged"))[..2]);

    write_shard(&at("hollow"), "00000.tar", &[]);
    fails("hollow", &["no samples"], &commands(&at("hollow"))[..2]);

    // `ingest tag --table` writes sidecars without shards: they have statistics, but no images to report.
    write_parts(&at("parts"));
    fails("parts", &["has no shards", "`ingest tag --table`"], &commands(&at("parts"))[1..2]);

    for (part, what) in [("nowhere", "does not exist"), ("empty", "`tools stats`")] {
        let (code, line) = failure(&["merge", text(&at(part)), "--out", text(&out)]);
        assert!(code == 1 && line.contains(part) && line.contains(what), "{line}");
    }
    for wrong in [&["--scale", "0"][..], &["--scale", "1.5"], &["--threads", "0"], &["--passes", "0"]] {
        let output = tools(&[&["bench", "loader", text(&at("untagged"))], wrong].concat());
        assert_eq!(output.status.code(), Some(2), "{wrong:?}");
    }
}

#[test]
fn incomplete_shards_are_skipped_with_a_note() {
    let place = tempfile::tempdir().unwrap();
    let (shards, out) = (place.path().join("shards"), place.path().join("out"));
    write_shard(&shards, "00000.tar", FIRST);
    write_shard(&shards, "00001.tar", SECOND);
    fs::write(shards.join("00000_stats.json"), r#"{"count": 3, "successes": 3}"#).unwrap();
    let output = tools(&["stats", text(&shards), "--out", text(&out), "--json"]);
    let note = String::from_utf8(output.stderr).unwrap();
    assert!(note.contains("note: skipped") && note.contains("it has no 00001_stats.json"), "{note}");
    let printed = String::from_utf8(output.stdout).unwrap();
    let counted: serde_json::Value = serde_json::from_str(printed.lines().last().unwrap()).unwrap();
    assert_eq!(counted["samples"], 3);
}
