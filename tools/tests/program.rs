//! The program as a user runs it.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use concepts::sidecar::{self, Cut, Metadata, Parts, Table, Writer};
use concepts::{Mention, TaggerDescription};

fn tools(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tools")).args(arguments).output().unwrap()
}

/// The JSON on the last line of standard output of a run that must succeed.
fn summary(arguments: &[&str]) -> serde_json::Value {
    let output = tools(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    serde_json::from_str(text.lines().last().unwrap()).unwrap()
}

/// Exit code and the error line, which must be the only one.
fn failure(arguments: &[&str]) -> (i32, String) {
    let output = tools(arguments);
    let text = String::from_utf8(output.stderr).unwrap();
    let lines: Vec<&str> = text.lines().filter(|line| line.starts_with("error: ")).collect();
    assert_eq!(lines.len(), 1, "{arguments:?}: {text}");
    (output.status.code().unwrap(), lines[0].to_owned())
}

/// Every file below a folder, by relative path.
fn contents(folder: &Path) -> BTreeMap<String, Vec<u8>> {
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

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn scenes_are_the_same_whatever_the_threads() {
    let place = tempfile::tempdir().unwrap();
    let (one, four) = (place.path().join("one"), place.path().join("four"));
    for (out, threads) in [(&one, "1"), (&four, "4")] {
        let arguments =
            ["scenes", "--count", "12", "--seed", "9", "--size", "48", "--captions-per-image", "3"];
        let output = tools(&[&arguments[..], &["--threads", threads, "--out", text(out)]].concat());
        assert!(output.status.success());
    }
    let files = contents(&one);
    assert_eq!(files.len(), 12 * 2 + 3);
    assert!(files == contents(&four));
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 2, "nothing temporary is left");
}

#[test]
fn a_scene_does_not_depend_on_the_range_it_is_in() {
    let place = tempfile::tempdir().unwrap();
    let (all, tail) = (place.path().join("all"), place.path().join("tail"));
    assert!(tools(&["scenes", "--count", "6", "--size", "32", "--out", text(&all)]).status.success());
    let arguments = ["scenes", "--count", "2", "--first-index", "4", "--size", "32", "--out", text(&tail)];
    assert!(tools(&arguments).status.success());
    for name in ["images/000004.jpg", "images/000005.jpg", "masks/000004.png", "masks/000005.png"] {
        assert!(fs::read(all.join(name)).unwrap() == fs::read(tail.join(name)).unwrap(), "{name}");
    }
}

#[test]
fn masks_hold_classes_and_the_summary_counts_them() {
    let place = tempfile::tempdir().unwrap();
    let out = place.path().join("set");
    let sheet = place.path().join("sheet.png");
    let summary = summary(&[
        "scenes",
        "--count",
        "20",
        "--size",
        "40",
        "--json",
        "--out",
        text(&out),
        "--sheet",
        text(&sheet),
    ]);
    let names: Vec<String> =
        fs::read_to_string(out.join("classes.txt")).unwrap().lines().map(str::to_owned).collect();
    let mut counts = vec![0_u64; names.len()];
    for index in 0..20 {
        let picture = image::open(out.join(format!("images/{index:06}.jpg"))).unwrap();
        assert_eq!((picture.width(), picture.height()), (40, 40));
        let mask = image::open(out.join(format!("masks/{index:06}.png"))).unwrap();
        let image::DynamicImage::ImageLuma8(mask) = mask else { panic!("the mask is not 8-bit grey") };
        for pixel in mask.pixels() {
            counts[usize::from(pixel.0[0])] += 1;
        }
    }
    let total: u64 = counts.iter().sum();
    assert_eq!(total, 20 * 40 * 40);
    for (class, count) in counts.iter().enumerate() {
        let told = &summary["classes"][class];
        assert_eq!(told["name"], names[class]);
        assert!((told["pixel_share"].as_f64().unwrap() - *count as f64 / total as f64).abs() < 1e-12);
    }
    let written: serde_json::Value =
        serde_json::from_slice(&fs::read(out.join("scenes.json")).unwrap()).unwrap();
    assert_eq!(written, summary);
    assert!(image::open(sheet).unwrap().width() > 800);
}

#[test]
fn scenes_refuse_what_they_cannot_do() {
    let place = tempfile::tempdir().unwrap();
    let full = place.path().join("full");
    fs::create_dir(&full).unwrap();
    fs::write(full.join("mine"), "precious").unwrap();
    let (code, line) = failure(&["scenes", "--count", "1", "--out", text(&full)]);
    assert_eq!(code, 1);
    assert!(line.contains("full exists and is not empty"), "{line}");
    assert_eq!(fs::read(full.join("mine")).unwrap(), b"precious");

    let (code, line) = failure(&["scenes", "--count", "1", "--out", text(&full.join("mine/below"))]);
    assert_eq!(code, 1);
    assert!(line.contains("mine/below"), "{line}");

    let sheet = place.path().join("no/sheet.png");
    let out = place.path().join("set");
    let (code, line) = failure(&["scenes", "--count", "1", "--out", text(&out), "--sheet", text(&sheet)]);
    assert_eq!(code, 1);
    assert!(line.contains("no/sheet.png"), "{line}");
    assert!(!out.exists(), "no set without the sheet that was asked for");

    for wrong in [&["scenes", "--out", "x", "--count", "0"][..], &["scenes", "--count", "1"], &["paint"]] {
        assert_eq!(tools(wrong).status.code(), Some(2), "{wrong:?}");
    }
    assert_eq!(failure(&["scenes", "--count", "1", "--out", "/"]).0, 2);
}

/// A mention of the last `words` words before byte `end` of `caption`, whose last word is the head.
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

/// A caption and its mentions: phrase, the concept's words in it, concept.
type Captioned = (&'static str, &'static [(&'static str, &'static str, &'static str)]);

/// A shard and its sidecar.
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
fn statistics_count_and_parts_add_up() {
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
        "--classes",
        text(&at("classes")),
        "--json",
    ]);
    // By hand from the two lists above.
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
    // "pine tree" is not a class, its head is.
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
    assert!(whole == merged, "the parts' statistics do not add up to the whole's");

    assert_eq!(failure(&["merge", text(&parts[0]), text(&parts[0]), "--out", text(&at("x"))]).0, 2);
    let (code, line) = failure(&["merge", text(&at("a")), "--out", text(&at("x"))]);
    assert!(code == 1 && line.contains("stats.json"), "{line}");
    assert!(!at("x").exists());
}

#[test]
fn statistics_refuse_sidecars_that_do_not_match() {
    let place = tempfile::tempdir().unwrap();
    let (shards, out) = (place.path().join("shards"), place.path().join("out"));
    write_shard(&shards, "00000.tar", FIRST);
    write_shard(&shards, "00001.tar", SECOND);
    fs::copy(shards.join("00000.tar"), shards.join("00001.tar")).unwrap();
    let (code, line) = failure(&["stats", text(&shards), "--out", text(&out)]);
    assert!(code == 1 && line.contains("00001.concepts.parquet"), "{line}");
    fs::remove_file(shards.join("00001.concepts.parquet")).unwrap();
    let (code, line) = failure(&["stats", text(&shards), "--out", text(&out)]);
    assert!(code == 1 && line.contains("00001.tar has no sidecar") && line.contains("ingest tag"), "{line}");
    let nowhere = place.path().join("nowhere");
    let (code, line) = failure(&["stats", text(&nowhere), "--out", text(&out)]);
    assert!(code == 1 && line.contains("nowhere"), "{line}");
    assert!(!out.exists());
}

/// The parts of a table of FIRST's and SECOND's captions, three captions each.
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
fn statistics_of_captions_without_shards() {
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
    // One shard by its own name, too.
    assert_eq!(count("shards/00001.tar", "of-one", &[]).0["samples"], 2);
    // The same captions, so the same counts.
    let (of_parts, one_thread) = count("parts", "one", &["--threads", "1"]);
    assert_eq!(of_parts, count("shards", "of-shards", &[]).0);
    assert!(one_thread == count("parts", "four", &["--threads", "4"]).1);
    // Counting for classes reads whole sidecars; what it counts of concepts is the same.
    let classes = at("classes");
    let (_, mut with_classes) = count("parts", "classed", &["--threads", "2", "--classes", text(&classes)]);
    assert!(with_classes.remove("coverage.json").is_some());
    assert!(with_classes == one_thread);

    let refused = |what: &str| {
        let (code, line) = failure(&["stats", text(&at("parts")), "--out", text(&at("x"))]);
        assert!(code == 1 && line.contains(what), "{line}");
        line
    };
    // A part of another table, of another cut, a missing one, and a run that is not through.
    let (first, second) = (Parts::path(&at("parts"), 0), Parts::path(&at("parts"), 1));
    fs::copy(&first, &second).unwrap();
    refused("00001.concepts.parquet: was made from 3 captions of captions.txt (120 bytes) from row 0 on");
    let mut other = parts.clone();
    other.tagger = "other".into();
    other.write(&at("parts")).unwrap();
    refused("00000.concepts.parquet");
    parts.write(&at("parts")).unwrap();
    fs::remove_file(&second).unwrap();
    assert!(refused("00001.concepts.parquet is missing").contains("ingest tag --table"));
    fs::remove_file(at("parts").join("captions.json")).unwrap();
    assert!(refused("captions.json").contains("to its end"));
    // Nor does such a part pass for a shard's.
    fs::copy(at("shards/00000.tar"), at("parts/00000.tar")).unwrap();
    refused("was made from captions.txt, not from 00000.tar");
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
    assert!(code == 1 && line.contains("7777"), "{line}");
    let (code, line) = failure(&["show", text(&place.path().join("none.tar"))]);
    assert!(code == 1 && line.contains("none.tar"), "{line}");
}
