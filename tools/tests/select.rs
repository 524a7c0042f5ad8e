//! `tools select`: the rules against their definitions, and what must be refused.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use concepts::sidecar::{self, CaptionCheck, Metadata, Writer};
use concepts::{Mention, TaggerDescription};
use loader::shards::selection::SelectionFile;
use loader::{Location, Position};
use serde_json::Value;

use crate::program::text;

/// Number of shards, and of samples of each.
const SHARDS: usize = 3;
const SAMPLES: usize = 400;

/// The concepts of a sample: most have a dog, some of those a ball; few have a cat, and one in ten has none.
fn concepts_of(shard: usize, sample: usize) -> Vec<&'static str> {
    match (shard * SAMPLES + sample) % 20 {
        0 => vec!["cat"],
        1 | 2 => vec![],
        3..=8 => vec!["dog", "ball"],
        _ => vec!["dog"],
    }
}

fn key(shard: usize, sample: usize) -> String {
    format!("{shard:05}{sample:04}")
}

fn write_dataset(folder: &Path) {
    for shard in 0..SHARDS {
        let path = folder.join(format!("{shard:05}.tar"));
        let mut tar = tar::Builder::new(File::create(&path).unwrap());
        let caption = |sample| Some(concepts_of(shard, sample).join(" ")).filter(|it| !it.is_empty());
        let captions: Vec<String> =
            (0..SAMPLES).map(|sample| caption(sample).unwrap_or_else(|| "so it goes".to_owned())).collect();
        for (sample, caption) in captions.iter().enumerate() {
            for (extension, data) in [("jpg", &b"an image"[..]), ("txt", caption.as_bytes())] {
                let mut header = tar::Header::new_ustar();
                header.set_size(data.len() as u64);
                tar.append_data(&mut header, format!("{}.{extension}", key(shard, sample)), data).unwrap();
            }
        }
        tar.finish().unwrap();
        drop(tar);
        let tagger = TaggerDescription { name: "by hand".to_owned(), hash: String::new(), grammar: 1 };
        let metadata = Metadata::new(&tagger, &path, fs::metadata(&path).unwrap().len());
        let mut writer = Writer::create(&sidecar::path_for(&path), metadata).unwrap();
        for (sample, caption) in captions.iter().enumerate() {
            let mut start = 0;
            let mentions: Vec<Mention> = concepts_of(shard, sample)
                .into_iter()
                .map(|concept| {
                    let span = start..start + concept.len();
                    start = span.end + 1;
                    Mention {
                        phrase: span.clone(),
                        concept_span: span.clone(),
                        head_span: span,
                        concept: concept.to_owned(),
                        head: concept.to_owned(),
                        tags: "NN".to_owned(),
                    }
                })
                .collect();
            writer.push(sample as u32, &key(shard, sample), caption, &mentions).unwrap();
            writer.check(sample as u32, CaptionCheck::of(caption.as_bytes()));
        }
        writer.finish().unwrap();
    }
}

struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        fs::create_dir(place.at("shards")).unwrap();
        write_dataset(&place.at("shards"));
        place
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn run(&self, shards: &str, options: &[&str]) -> Output {
        let (shards, out) = (self.at(shards), self.at("selection.parquet"));
        let _ = fs::remove_file(&out);
        let arguments = [&["select", text(&shards), "--out", text(&out), "--json"], options].concat();
        Command::new(env!("CARGO_BIN_EXE_tools")).args(arguments).output().unwrap()
    }

    /// The (shard, sample) that a selection has, and the printed summary.
    fn select(&self, shards: &str, options: &[&str]) -> (BTreeSet<(usize, usize)>, Value) {
        let output = self.run(shards, options);
        assert!(output.status.success(), "{options:?}: {}", String::from_utf8_lossy(&output.stderr));
        let printed = String::from_utf8(output.stdout).unwrap();
        let summary: Value = serde_json::from_str(printed.lines().last().unwrap()).unwrap();
        let selected = self.read("selection.parquet");
        assert_eq!(summary["samples"], selected.len());
        (selected, summary)
    }

    fn read(&self, name: &str) -> BTreeSet<(usize, usize)> {
        let mut selected = BTreeSet::new();
        let file = SelectionFile::open(&Location::from(self.at(name)), 1200).unwrap();
        file.visit(|run| {
            let shard: usize = run.shard.strip_suffix(".tar").unwrap().parse().unwrap();
            assert!(run.weights.is_empty());
            selected.extend(run.samples.iter().map(|&sample| (shard, sample as usize)));
            Ok(())
        })
        .unwrap();
        selected
    }

    fn refused(&self, options: &[&str], code: i32, problem: &str) {
        let output = self.run("shards", options);
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{options:?}: {error}");
        assert!(error.contains(problem), "{options:?}: {error}");
        assert!(!self.at("selection.parquet").exists(), "{options:?}");
    }
}

fn all() -> impl Iterator<Item = (usize, usize)> {
    (0..SHARDS).flat_map(|shard| (0..SAMPLES).map(move |sample| (shard, sample)))
}

fn counts(selected: &BTreeSet<(usize, usize)>) -> BTreeMap<&'static str, usize> {
    let mut counts = BTreeMap::new();
    for &(shard, sample) in selected {
        for concept in concepts_of(shard, sample) {
            *counts.entry(concept).or_default() += 1;
        }
    }
    counts
}

#[test]
fn samples_are_balanced_by_their_concepts() {
    let place = Place::new();
    let (everything, summary) = place.select("shards", &[]);
    assert_eq!(everything, all().collect());
    assert_eq!(summary["rules"], serde_json::json!([{"rule": "all samples", "dropped": 0, "kept": 1200}]));

    // 60 cats, 1,020 dogs, 360 of them with a ball.
    let options = ["--balance", "90", "--seed", "5"];
    let (selected, summary) = place.select("shards", &options);
    assert_eq!(selected, place.select("shards", &options).0);
    let kinds = |kind: &[&str]| selected.iter().filter(|at| concepts_of(at.0, at.1) == kind).count() as f64;
    assert_eq!(kinds(&["cat"]), 60.0, "a rare concept is kept");
    assert_eq!(kinds(&[]), 0.0, "samples without a concept are left out");
    let (dog, ball) = (90.0 / 1020.0, 90.0 / 360.0);
    for (kind, of, likely) in
        [(&["dog"][..], 660.0, dog), (&["dog", "ball"], 360.0, 1.0 - (1.0 - dog) * (1.0 - ball))]
    {
        let (expected, deviation) = (of * likely, (of * likely * (1.0_f64 - likely)).sqrt());
        assert!((kinds(kind) - expected).abs() < 4.0 * deviation, "{kind:?}: {} of {expected}", kinds(kind));
    }
    let rule = &summary["rules"][1];
    assert_eq!((&rule["rule"], &rule["kept"]), (&"--balance 90".into(), &selected.len().into()));
    assert_eq!(rule["dropped"], 1200 - selected.len());
    let other = place.select("shards", &["--balance", "90", "--seed", "6"]).0;
    assert!(other != selected && other.len().abs_diff(selected.len()) < 100);
}

/// With the counts of the whole dataset, a part of it is chosen from as the whole is.
#[test]
fn parts_give_the_same_samples_as_the_whole() {
    let place = Place::new();
    let statistics = place.at("statistics");
    let arguments = ["stats", text(&place.at("shards")), "--out", text(&statistics)].map(str::to_owned);
    assert!(Command::new(env!("CARGO_BIN_EXE_tools")).args(arguments).status().unwrap().success());
    let (whole, _) = place.select("shards", &["--balance", "60"]);
    let mut parts = BTreeSet::new();
    for part in ["shards/00001.tar", "shards/{00000,00002}.tar"] {
        parts.extend(place.select(part, &["--balance", "60", "--statistics", text(&statistics)]).0);
    }
    assert_eq!(parts, whole);
}

#[test]
fn caps_hold_and_leave_out_no_more_than_they_must() {
    let place = Place::new();
    let (selected, _) = place.select("shards", &["--cap", "100"]);
    let counts = counts(&selected);
    assert_eq!((counts["cat"], counts["dog"]), (60, 100));
    assert!(counts["ball"] <= 100);
    let is_full = |concept: &&str| counts[concept] == 100;
    for at in all().filter(|at| !selected.contains(at)) {
        assert!(concepts_of(at.0, at.1).iter().any(is_full), "{at:?} was left out");
    }
}

/// Of 1,200 samples in shards of 400.
#[test]
fn a_number_of_samples_is_drawn_at_random() {
    let place = Place::new();
    let (selected, summary) = place.select("shards", &["--count", "300"]);
    assert_eq!(selected.len(), 300);
    assert_eq!(summary["rules"][1], serde_json::json!({"rule": "--count 300", "dropped": 900, "kept": 300}));
    for shard in 0..SHARDS {
        // 100 are expected, with a standard deviation of 7.
        let of_shard = selected.iter().filter(|at| at.0 == shard).count();
        assert!((68..132).contains(&of_shard), "{of_shard} of shard {shard}");
    }
    let (more, _) = place.select("shards", &["--count", "301"]);
    assert!(more.len() == 301 && selected.is_subset(&more), "one more is added");
    let (other, _) = place.select("shards", &["--count", "300", "--seed", "1"]);
    assert!(other.intersection(&selected).count() < 150);
    assert_eq!(place.select("shards", &["--count", "1200"]).0.len(), 1200);
    assert_eq!(place.select("shards", &["--count", "9999999999"]).0.len(), 1200);
    // Of what the rules before have left.
    let (capped, _) = place.select("shards", &["--cap", "100"]);
    let (some, _) = place.select("shards", &["--cap", "100", "--count", "50"]);
    assert!(some.len() == 50 && some.is_subset(&capped));
}

#[test]
fn classes_are_covered() {
    let place = Place::new();
    let classes = ["--classes", "cat, dog, ball, zebra"];
    let (selected, summary) =
        place.select("shards", &[&["--balance", "20", "--cover", "150"][..], &classes].concat());
    let counts = counts(&selected);
    assert!(counts["dog"] >= 150 && counts["ball"] >= 150, "{counts:?}");
    assert_eq!(counts["cat"], 60);
    let lacking = serde_json::json!([{"class": "cat", "samples": 60}, {"class": "zebra", "samples": 0}]);
    assert_eq!(summary["classes_not_covered"], lacking);
    let (balanced, _) = place.select("shards", &["--balance", "20"]);
    assert!(balanced.is_subset(&selected));
    place.refused(&["--cover", "3"], 2, "--cover needs classes");
    place.refused(&classes, 2, "--cover needs classes");
}

#[test]
fn names_take_the_place_of_concepts() {
    let place = Place::new();
    fs::write(place.at("names.txt"), "cat\npet = dog | hound\n").unwrap();
    let (selected, _) = place.select("shards", &["--names", text(&place.at("names.txt")), "--cap", "10"]);
    let counts = counts(&selected);
    assert_eq!((counts["cat"], counts["dog"]), (10, 10));
    place.refused(&["--names", text(&place.at("names.txt"))], 2, "--names needs --balance or --cap");
}

#[test]
fn other_tables_are_left_out() {
    let place = Place::new();
    let (first, _) = place.select("shards", &["--balance", "60"]);
    fs::rename(place.at("selection.parquet"), place.at("first.parquet")).unwrap();
    let (rest, _) = place.select("shards", &["--without", text(&place.at("first.parquet"))]);
    assert_eq!(rest.len() + first.len(), 1200);
    assert!(rest.is_disjoint(&first));
    let shard = place.run("shards/00001.tar", &["--without", text(&place.at("first.parquet"))]);
    let error = String::from_utf8(shard.stderr).unwrap();
    assert!(error.contains("it is of the shard 00000.tar, which is not among the shards"), "{error}");
}

/// A stand-in for `tools-sql`, which is tested where it is built.
#[test]
fn a_query_chooses_samples() {
    let place = Place::new();
    let tools = place.at("tools");
    fs::copy(env!("CARGO_BIN_EXE_tools"), &tools).unwrap();
    let run = |rows: &str, status: i32| {
        let rows: String = rows.lines().map(|row| format!("echo '{row}'\n")).collect();
        fs::write(
            place.at("tools-sql"),
            format!("#!/bin/sh\necho \"$@\" > {}\n{rows}exit {status}\n", text(&place.at("asked"))),
        )
        .unwrap();
        fs::set_permissions(place.at("tools-sql"), Permissions::from_mode(0o755)).unwrap();
        let out = place.at("selection.parquet");
        let _ = fs::remove_file(&out);
        let shards = place.at("shards");
        let arguments = ["select", text(&shards), "--out", text(&out), "--where", "SELECT x"];
        Command::new(&tools).args(arguments).output().unwrap()
    };
    let output = run("{\"shard\":\"00001\",\"key\":\"000010007\"}\n{\"shard\":\"00000\",\"sample\":3}", 0);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(place.read("selection.parquet"), BTreeSet::from([(0, 3), (1, 7)]));
    let asked = fs::read_to_string(place.at("asked")).unwrap();
    assert_eq!(asked, format!("--format json SELECT x {}\n", text(&place.at("shards"))));
    for (rows, status, problem) in [
        (
            "{\"shard\":\"00001\",\"url\":\"u\"}",
            0,
            "must return the columns shard and key, or shard and sample",
        ),
        ("{\"shard\":\"00001\",\"key\":\"gone\"}", 0, "has no sample with it"),
        ("{\"shard\":\"00009\",\"sample\":1}", 0, "which is not among the shards"),
        ("{\"shard\":\"00001\",\"sample\":400}", 0, "which has 400 samples"),
        ("", 1, "the query of --where failed"),
        ("", 0, "these rules leave no sample"),
    ] {
        let output = run(rows, status);
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && error.contains(problem), "{rows}: {error}");
        assert!(!place.at("selection.parquet").exists());
    }
}

#[test]
fn the_loader_reads_what_is_selected() {
    let place = Place::new();
    let (selected, _) = place.select("shards", &["--cap", "30"]);
    let mut settings = loader::Settings::new(loader::shards::list([place.at("shards")]).unwrap(), 10);
    settings.images = false;
    settings.options.selection = Some(place.at("selection.parquet").into());
    let loader = loader::Loader::open(settings).unwrap();
    assert_eq!(loader.samples(), selected.len() as u64);
    let batches = loader.batches(Position::default()).take(loader.steps_per_epoch() as usize);
    let keys: BTreeSet<String> = batches.flat_map(|batch| batch.unwrap().keys).collect();
    let wanted: BTreeSet<String> = selected.iter().map(|&(shard, sample)| key(shard, sample)).collect();
    assert!(keys.is_subset(&wanted) && keys.len() >= wanted.len() - 9);
}

#[test]
fn an_existing_file_is_not_replaced() {
    let place = Place::new();
    fs::write(place.at("other"), "kept").unwrap();
    let arguments =
        ["select", text(&place.at("shards")), "--out", text(&place.at("other"))].map(str::to_owned);
    let output = Command::new(env!("CARGO_BIN_EXE_tools")).args(arguments).output().unwrap();
    assert!(String::from_utf8(output.stderr).unwrap().contains("exists; remove it or choose another --out"));
    assert_eq!(fs::read_to_string(place.at("other")).unwrap(), "kept");
}

/// Shuffled in windows of one sample, neighbours stay together; in one window over everything, batches are those of a full
/// shuffle.
#[test]
fn the_order_is_compared_with_a_full_shuffle() {
    let place = Place::new();
    let figures = |options: &[&str]| -> Vec<Value> {
        let shards = place.at("shards");
        let arguments = [&["order", text(&shards), "--batch-size", "40", "--json"], options].concat();
        let output = Command::new(env!("CARGO_BIN_EXE_tools")).args(arguments).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let printed = String::from_utf8(output.stdout).unwrap();
        serde_json::from_str(printed.lines().last().unwrap()).unwrap()
    };
    let rows = figures(&["--streams", "1", "--window", "1,2000"]);
    let value = |row: usize, name: &str| rows[row][name].as_f64().unwrap();
    // 1 - (2/3)^40 of three shards; 399 / 1199; 39 / 1199.
    assert!((value(0, "shards") - 3.0).abs() < 1e-4);
    assert!((value(0, "same_shard") - 399.0 / 1199.0).abs() < 1e-9);
    assert!((value(0, "neighbours") - 39.0 / 1199.0).abs() < 1e-9);
    // 30 batches in tar order: one shard each, and 39 of 40 neighbours (399 a shard, of which 9 are torn apart).
    assert_eq!((value(1, "shards"), value(1, "same_shard")), (1.0, 1.0));
    assert!((value(1, "neighbours") - 390.0 / 399.0).abs() < 1e-9);
    assert!(
        (value(2, "shards") - 3.0).abs() < 0.05 && (value(2, "same_shard") - 399.0 / 1199.0).abs() < 0.02
    );
    assert!((value(2, "neighbours") - 39.0 / 1199.0).abs() < 0.015);
    // As many streams as the batch has rows.
    let rows = figures(&["--streams", "64"]);
    assert_eq!(rows[1]["streams"], 8);
}

/// 1,020 samples have a dog, 60 a cat.
#[test]
fn the_report_shows_what_a_selection_takes() {
    let place = Place::new();
    let (selected, _) = place.select("shards", &["--cap", "100"]);
    let (shards, selection, page) =
        (place.at("shards"), place.at("selection.parquet"), place.at("report.html"));
    let report = |selection: &Path| {
        let arguments =
            ["report", text(&shards), "--out", text(&page), "--json", "--classes", "cat, dog, zebra"];
        let more = ["--selection", text(selection)];
        Command::new(env!("CARGO_BIN_EXE_tools")).args(arguments).args(more).output().unwrap()
    };
    let output = report(&selection);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let printed = String::from_utf8(output.stdout).unwrap();
    let summary: Value = serde_json::from_str(printed.lines().last().unwrap()).unwrap();
    assert_eq!(summary["selected"], selected.len());
    let html = fs::read_to_string(&page).unwrap();
    let section = html.split("<section").find(|part| part.contains("<h2 id=\"selection\">")).unwrap();
    let (kept, left_out) = (selected.len(), 1200 - selected.len());
    let numbers = |numbers: &[&str]| -> String {
        numbers.iter().map(|number| format!("<td class=\"number\">{number}</td>")).collect()
    };
    let grouped = |number: usize| {
        if number < 1000 { number.to_string() } else { format!("{},{:03}", number / 1000, number % 1000) }
    };
    let rule = format!("<code>--cap 100</code></th>{}", numbers(&[&grouped(left_out), &grouped(kept)]));
    let dogs = format!("<bdi>dog</bdi></th>{}", numbers(&["1,020", "100", "9.8%"]));
    for part in [rule.as_str(), &dogs, "3 → 3", "absent classes</dt><dd>1 → 1"] {
        assert!(section.contains(part), "{part} is not in {section}");
    }
    assert!(!html.contains("zebra</bdi></th>"));

    // A selection of other shards.
    fs::remove_file(place.at("shards").join("00002.tar")).unwrap();
    fs::remove_file(&page).unwrap();
    let output = report(&selection);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.contains("is of other shards: it is of the shard 00002.tar"), "{error}");
    assert!(!page.exists());
}
