//! Referring segmentation: published layouts, masks and scores beside pycocotools, Pillow and NumPy
//! (`tests/fixtures/referring/make.py`), and the commands from their options to their files.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::path::{Path, PathBuf};

use image::{GrayImage, Luma};
use serde_json::{Value, json};
use trainer::evaluation::referring::regions::{MaskRule, Region};
use trainer::evaluation::referring::scores::{Counts, Tally};
use trainer::evaluation::referring::set::Sample;
use trainer::evaluation::referring::{Place, ReferringSet, open};
use trainer::inference::referring::expression::Expression;
use trainer::method::objective::Objective;

use crate::eval_command::{HEADS, checkpoint, clip, photo, run, text, trainer};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/referring")
}

fn expected() -> Value {
    serde_json::from_slice(&fs::read(fixtures().join("expected.json")).unwrap()).unwrap()
}

fn opened(name: &str, split: &str, by: Option<&str>) -> ReferringSet {
    let images = if name == "phrasecut" { "phrasecut-images" } else { "images" };
    let place = Place {
        data: fixtures().join(name),
        images: Some(fixtures().join(images)),
        split: Some(split.to_owned()),
        split_by: by.map(str::to_owned),
    };
    let set = open(name, &place).unwrap();
    set.check_complete().unwrap();
    set
}

/// The pixels of what a sample means, in rows of text.
fn shown(set: &ReferringSet, sample: &Sample, rule: MaskRule) -> Vec<String> {
    let mask = sample.target.mask((24, 18), rule, &|problem| set.invalid(sample, &problem)).unwrap();
    mask.chunks(24).map(|row| row.iter().map(|inside| if *inside { '#' } else { '.' }).collect()).collect()
}

fn rows(value: &Value) -> Vec<String> {
    serde_json::from_value(value.clone()).unwrap()
}

#[test]
fn refcoco_is_read_from_pickles_of_both_protocols_and_from_json() {
    let all = expected();
    let check = |name: &str, split: &str, by: Option<&str>, wanted: &[(&str, i64, usize)]| {
        let set = opened(name, split, by);
        let found: Vec<(&str, usize)> =
            set.samples.iter().map(|sample| (sample.text.as_str(), sample.image)).collect();
        let listed: Vec<(&str, usize)> = wanted.iter().map(|(text, _, image)| (*text, *image)).collect();
        assert_eq!(found, listed, "{name} {split}");
        for (sample, (text, annotation, _)) in set.samples.iter().zip(wanted) {
            for (rule, key) in [(MaskRule::Union, "union"), (MaskRule::Single, "single")] {
                let wanted = rows(&all["coco"]["annotations"][annotation.to_string()][key]);
                assert_eq!(shown(&set, sample, rule), wanted, "{name}: {text}, {key}");
            }
        }
    };
    let val = [
        ("left crate", 11, 0),
        ("the crate's lid", 11, 0),
        ("both crates \u{2019}til caf\u{e9}", 12, 0),
        ("bottom left", 21, 1),
    ];
    check("refcoco", "val", None, &val);
    check("refcoco", "val", Some("google"), &val);
    check("refcoco+", "val", None, &val);
    check("refcocog", "val", None, &val[..3]);
    for (split, by) in [("testA", None), ("test", Some("google"))] {
        check("refcoco", split, by, &[("crate on the right", 13, 0)]);
    }
    check("refcoco", "train", None, &[("the kite", 22, 0)]);
    // The two polygons of one annotation overlap.
    let two = &all["coco"]["annotations"]["12"];
    assert_ne!(two["union"], two["single"]);
}

#[test]
fn grefcoco_means_several_things_or_none() {
    let set = opened("grefcoco", "val", None);
    let groups: Vec<&str> = set.samples.iter().map(|sample| sample.groups[0].as_str()).collect();
    assert_eq!(groups, ["several targets", "no target", "one target", "one target"]);
    let some: Vec<bool> = set.samples.iter().map(|sample| sample.target.is_something()).collect();
    assert_eq!(some, [true, false, true, true]);
    let all = expected();
    let [left, right] = ["11", "12"].map(|number| rows(&all["coco"]["annotations"][number]["union"]));
    let both = |a: &String, b: &String| -> String {
        a.chars().zip(b.chars()).map(|(a, b)| if a == '#' { a } else { b }).collect()
    };
    let joined: Vec<String> = left.iter().zip(&right).map(|(a, b)| both(a, b)).collect();
    assert_eq!(shown(&set, &set.samples[0], MaskRule::Union), joined);
    assert!(shown(&set, &set.samples[1], MaskRule::Union).iter().all(|row| !row.contains('#')));
}

#[test]
fn phrasecut_has_the_pixels_of_pillow_and_its_slices() {
    let (set, all) = (opened("phrasecut", "val", None), expected());
    for (sample, wanted) in set.samples.iter().zip(all["phrasecut"]["masks"].as_array().unwrap()) {
        assert_eq!(shown(&set, sample, MaskRule::Union), rows(wanted), "{}", sample.text);
    }
    let groups: Vec<String> = set.samples.iter().map(|sample| sample.groups.join(", ")).collect();
    assert_eq!(
        groups,
        ["with attribute, one instance", "name only, more than one instance", "with relation, one instance"]
    );
}

#[test]
fn polygons_have_the_pixels_of_pycocotools_and_pillow() {
    let all = expected();
    let cases = all["polygons"].as_array().unwrap();
    assert_eq!(cases.len(), 60);
    for (number, case) in cases.iter().enumerate() {
        let side = |name: &str| case[name].as_u64().unwrap() as u32;
        let corners: Vec<f64> = serde_json::from_value(case["corners"].clone()).unwrap();
        let whole: Vec<[i64; 2]> = serde_json::from_value(case["whole"].clone()).unwrap();
        for (region, by) in
            [(Region::Polygons(vec![corners]), "pycocotools"), (Region::Drawn(vec![whole]), "pillow")]
        {
            let mask = region.mask(side("width"), side("height"), MaskRule::Union).unwrap();
            let found: String = mask.into_iter().map(|inside| if inside { '1' } else { '0' }).collect();
            assert_eq!(found, case[by].as_str().unwrap(), "polygon {number}, {by}");
        }
    }
}

/// Checks scores against those of NumPy.
fn alike(found: &Value, expected: &Value, of: &str) {
    for (name, value) in expected.as_object().unwrap() {
        let numbers = |value: &Value| -> Vec<Option<f64>> {
            match value {
                Value::Array(all) => all.iter().map(Value::as_f64).collect(),
                one => vec![one.as_f64()],
            }
        };
        let (found, expected) = (numbers(&found[name]), numbers(value));
        assert_eq!(found.len(), expected.len(), "{of}: {name}");
        for (found, expected) in found.into_iter().zip(expected) {
            let near = match (found, expected) {
                (Some(found), Some(expected)) => (found - expected).abs() < 1e-12,
                (found, expected) => found == expected,
            };
            assert!(near, "{of}: {name} is {found:?} instead of {expected:?}");
        }
    }
}

#[test]
fn scores_are_those_of_numpy() {
    let all = expected();
    let mut tally = Tally::new(false);
    let cases = all["scores"]["cases"].as_array().unwrap();
    for case in cases {
        let bits = |name: &str| -> Vec<bool> {
            case[name].as_str().unwrap().chars().map(|bit| bit == '1').collect()
        };
        let counts = Counts::new(&bits("mask"), &bits("target"), case["absent"] == true);
        tally.add(counts, &[case["group"].as_str().unwrap().to_owned()]);
    }
    alike(&serde_json::to_value(tally.scores()).unwrap(), &all["scores"]["all"], "all");
    for (name, scores) in tally.groups() {
        alike(&serde_json::to_value(scores).unwrap(), &all["scores"]["groups"][&name], &name);
    }
}

#[test]
fn the_whole_image_has_the_scores_of_numpy() {
    let (all, folder) = (expected(), tempfile::tempdir().unwrap());
    for (name, images, expected) in [
        ("refcoco", "images", &all["coco"]["whole image"]["refcoco"]),
        ("grefcoco", "images", &all["coco"]["whole image"]["grefcoco"]),
        ("phrasecut", "phrasecut-images", &all["phrasecut"]["whole image"]),
    ] {
        let (data, images, out) = (fixtures().join(name), fixtures().join(images), folder.path().join(name));
        let arguments = ["referring", "--dataset", name, "--data", text(&data), "--images", text(&images)];
        let more = ["--control", "whole-image", "--out", text(&out)];
        let result = run(&[&arguments[..], &more].concat()).unwrap();
        alike(&result["scores"], expected, name);
        assert_eq!((&result["split"], &result["control"]), (&json!("val"), &json!("whole-image")));
        assert_eq!(result["scores"]["without_subject"], 0, "no model compared anything");
        let records = fs::read_to_string(out.join("expressions.jsonl")).unwrap();
        let records: Vec<Value> = records.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(records.len() as u64, result["scores"]["expressions"].as_u64().unwrap());
        assert!(records.iter().all(|record| record["mask"] == 24 * 18));
        let table = fs::read_to_string(out.join("table.md")).unwrap();
        let miou = format!("{:.1}", 100.0 * expected["miou"].as_f64().unwrap());
        assert!(table.contains("control whole-image") && table.contains(&miou), "{table}");
    }
}

/// Our own layout with two images: a thing of value 3, one of value 5, both, and none of them.
fn own(root: &Path) {
    for folder in ["images", "instances"] {
        fs::create_dir_all(root.join(folder)).unwrap();
    }
    let mut lines = String::new();
    for number in 0..2 {
        photo(number, 48, 32).save(root.join(format!("images/{number}.png"))).unwrap();
        let value = |x: u32, y: u32| match (x, y) {
            (4..16, 8..20) => 3,
            (30..44, 8..28) => 5,
            _ => 0,
        };
        let mask = GrayImage::from_fn(48, 32, |x, y| Luma([value(x, y)]));
        mask.save(root.join(format!("instances/{number}.png"))).unwrap();
        let (image, mask) = (format!("images/{number}.png"), format!("instances/{number}.png"));
        for line in [
            json!({"image": image, "mask": mask, "values": [3], "expression": "the crate on the left", "kind": "place"}),
            json!({"image": image, "mask": mask, "values": [5], "expression": "the large crate", "kind": "size"}),
            json!({"image": image, "mask": mask, "values": [3, 5], "expression": "the crates", "kind": "plural"}),
            json!({"image": image, "mask": null, "values": [], "expression": "the green ball", "kind": "none"}),
            json!({"image": image, "mask": mask, "values": [5], "expression": "right"}),
        ] {
            lines += &format!("{line}\n");
        }
    }
    fs::write(root.join("expressions.jsonl"), lines).unwrap();
}

#[test]
fn a_folder_becomes_scores_records_and_a_threshold_for_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (set, out) = (folder.path().join("set"), folder.path().join("out"));
    own(&set);
    let weights = clip(folder.path());
    let evaluated = |more: &[&str]| {
        let arguments = ["referring", "--data", text(&set), "--clip", text(&weights), "--out", text(&out)];
        run(&[&arguments[..], HEADS.as_slice(), &["--size", "32"], more].concat()).unwrap()
    };
    let result = evaluated(&["--calibrate"]);
    let scores = &result["scores"];
    assert_eq!(
        (&scores["expressions"], &scores["with_target"], &scores["images"]),
        (&json!(10), &json!(8), &json!(2))
    );
    let groups: Vec<&String> = scores["groups"].as_object().unwrap().keys().collect();
    assert_eq!(groups, ["none", "place", "plural", "size"]);
    assert_eq!((&scores["n_acc"], &scores["t_acc"]), (&json!(0.0), &json!(1.0)), "nothing is held back");
    assert_eq!(
        (&scores["without_subject"], &result["without_subject"][0]["expression"]),
        (&json!(2), &json!("right"))
    );
    let written: Value = serde_json::from_slice(&fs::read(out.join("result.json")).unwrap()).unwrap();
    assert_eq!(written, result);
    let records: Vec<Value> = fs::read_to_string(out.join("expressions.jsonl"))
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let mean =
        records.iter().filter(|record| record["target"] != 0).map(|record| record["iou"].as_f64().unwrap());
    assert!((mean.sum::<f64>() / 8.0 - scores["miou"].as_f64().unwrap()).abs() < 1e-12);
    assert_eq!((&records[0]["head"], &records[0]["target"]), (&json!("crate"), &json!(144)));

    // With the threshold that was found, 7 of 8 would be too few: all of them are kept, and what was promised about the others holds.
    let found = &result["calibration"];
    let threshold = found["absent_below"].as_f64().unwrap();
    let lowest = records
        .iter()
        .filter(|record| record["target"] != 0)
        .map(|record| record["highest"].as_f64().unwrap());
    assert_eq!(threshold, lowest.fold(f64::INFINITY, f64::min));
    let held = evaluated(&["--absent-below", &format!("{threshold:.17}")]);
    assert_eq!((&held["scores"]["t_acc"], &held["scores"]["n_acc"]), (&json!(1.0), &found["n_acc"]));
    let none = evaluated(&["--absent-below", "1"]);
    assert_eq!(
        (&none["scores"]["miou"], &none["scores"]["giou"], &none["scores"]["n_acc"]),
        (&json!(0.0), &json!(0.2), &json!(1.0))
    );
    assert_eq!(none["scores"]["ciou"], json!(0.0));
}

#[test]
fn controls_have_the_scores_that_they_must() {
    let folder = tempfile::tempdir().unwrap();
    let set = folder.path().join("set");
    own(&set);
    let weights = clip(folder.path());
    let control = |name: &str, size: &str| {
        let arguments = ["referring", "--data", text(&set), "--clip", text(&weights), "--size", size];
        run(&[&arguments[..], HEADS.as_slice(), &["--control", name]].concat()).unwrap()
    };
    // Patches of 8 px. The crate of 12 x 12 px has a share of 1/2 in the patches at its left and right, and half of them below; with
    // twice the size, its borders are those of patches.
    let (coarse, fine) = (control("patches", "32"), control("patches", "64"));
    let miou = |result: &Value| result["scores"]["groups"]["place"]["miou"].as_f64().unwrap();
    assert!(miou(&coarse) < miou(&fine) && miou(&fine) > 0.9, "{} {}", miou(&coarse), miou(&fine));
    assert_eq!(
        coarse["scores"]["groups"]["none"]["giou"],
        json!(1.0),
        "nothing is meant, and nothing is drawn"
    );

    let mirrored = control("mirrored", "32");
    let mirror = mirrored["scores"]["mirror"].as_f64().unwrap();
    assert!((0.0..=1.0).contains(&mirror), "a tower with position embeddings is not symmetrical: {mirror}");
}

#[test]
fn segment_draws_what_expressions_mean() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    photo(1, 48, 32).save(at("photo.png")).unwrap();
    let model = checkpoint(&at("run"), Objective::Simzss);
    let (image, out) = (at("photo.png"), at("out"));
    let segment = |more: &[&str]| {
        let arguments = ["segment", text(&image), "--checkpoint", text(&model), "--out", text(&out)];
        trainer(&[&arguments[..], more].concat())
    };
    let (code, printed) = segment(&["--refer", "the crate on the left", "--refer", "the two balls"]);
    assert_eq!(code, Some(0), "{printed}");
    let told: Value = serde_json::from_slice(&fs::read(out.join("photo.json")).unwrap()).unwrap();
    let mask = image::open(out.join("photo.mask.png")).unwrap().into_luma8();
    assert_eq!(mask.dimensions(), (48, 32));
    let expressions = told["expressions"].as_array().unwrap();
    let heads: Vec<&str> = expressions.iter().map(|one| one["head"].as_str().unwrap()).collect();
    assert_eq!(heads, ["crate", "balls"]);
    let count = |value: u8| mask.pixels().filter(|pixel| pixel.0[0] == value).count() as f64 / (48.0 * 32.0);
    for (number, one) in expressions.iter().enumerate() {
        let share = one["share"].as_f64().unwrap();
        assert!(share > 0.0 && count(number as u8) <= share + 1e-9, "{one}");
    }
    assert!((count(255) - told["background"].as_f64().unwrap()).abs() < 1e-9);
    assert!(image::open(out.join("photo.png")).unwrap().width() > 2 * 48, "photo and overlay");

    for (more, words) in [
        (&["--refer", "left"][..], "in \"left\" no noun names a thing"),
        (&["--refer", "the crate", "--refer", "the crate"], "twice"),
        (&["--refer", "the crate", "--classes", "crate"], "cannot be used with"),
        (&["--classes", "crate", "--cut", "0.5"], "only with --refer"),
        (&["--refer", "the crate", "--cut", "2"], "--cut"),
        (&["--refer", "the crate", "--threshold", "0.1"], "cannot be used with"),
        (&[], "missing --classes, --class-file or --refer"),
    ] {
        let (code, printed) = segment(more);
        assert!(code == Some(2) && printed.contains(words), "{more:?}: {code:?} {printed}");
    }
}

#[test]
fn damaged_sets_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let set = folder.path().join("refcoco+");
    fs::create_dir(&set).unwrap();
    let read = |name: &str| fs::read_to_string(fixtures().join("refcoco+").join(name)).unwrap();
    let (refs, instances) = (read("refs(unc).json"), read("instances.json"));
    let images = fixtures().join("images");
    let refusal = |refs: &str, instances: &str, more: &[&str]| {
        fs::write(set.join("refs(unc).json"), refs).unwrap();
        fs::write(set.join("instances.json"), instances).unwrap();
        let data = folder.path().to_owned();
        let arguments =
            ["referring", "--dataset", "refcoco+", "--data", text(&data), "--images", text(&images)];
        run(&[&arguments[..], &["--control", "whole-image"], more].concat())
    };
    assert!(refusal(&refs, &instances, &[]).is_ok(), "also in the folder above");
    let without = |what: &str, by: &str| {
        assert!(instances.contains(what), "{what}");
        instances.replace(what, by)
    };
    for (refs, instances, words) in [
        (refs.clone(), without("\"id\": 12, ", "\"id\": 99, "), "ref 2 means annotation 12 of image 1"),
        (refs.clone(), without("\"id\": 2, \"file", "\"id\": 7, \"file"), "ref 4 is about image 2"),
        (
            refs.clone(),
            without("[[2.0, 2.0, 10.0, 2.0, ", "[[2.0, "),
            "annotation 11, which has a polygon of 5 numbers",
        ),
        (refs.replace("\"split\"", "\"part\""), instances.clone(), "missing field `split`"),
        (
            refs.replace("left crate", " ").replace("Left Crate", ""),
            instances.clone(),
            "ref 1 has an empty sentence",
        ),
        (refs.replace("\"val\"", "\"other\""), instances.clone(), "has no expressions"),
        (refs.clone(), without("000000000002.jpg", "000000000003.jpg"), "000000000003.jpg: is missing"),
    ] {
        let problem = refusal(&refs, &instances, &[]).unwrap_err();
        assert!(problem.contains(words), "{words}: {problem}");
    }
    // Run lengths: of another size, of another number of pixels, damaged.
    let size = "\"size\": [18, 24], \"counts\": \"";
    for (instances, words) in [
        (
            without(size, "\"size\": [24, 18], \"counts\": \""),
            "annotation 21, which has run lengths of 18 x 24",
        ),
        (without(size, "\"size\": [18, 24], \"counts\": \"11"), "pixels, but its image has 432"),
        (without(size, "\"size\": [18, 24], \"counts\": \"~"), "damaged"),
    ] {
        let problem = refusal(&refs, &instances, &[]).unwrap_err();
        assert!(problem.contains(words), "{words}: {problem}");
    }
    for (more, words) in [
        (&["--split", "testC"][..], "--split` is testC; refcoco+ has the splits val, testA, testB, train"),
        (&["--split-by", "google"], "--split-by` is google; refcoco+ was split by unc"),
        (&["--calibrate"], "--calibrate"),
    ] {
        let problem = refusal(&refs, &instances, more).unwrap_err();
        assert!(problem.contains(words), "{words}: {problem}");
    }
    fs::remove_file(set.join("refs(unc).json")).unwrap();
    fs::write(set.join("refs(unc).p"), b"cos\nsystem\n(S'true'\ntR.").unwrap();
    let data = ["referring", "--dataset", "refcoco+", "--data", text(&set), "--images", text(&images)];
    // Before a model is asked for, which this file is not.
    let model = ["--clip", text(&set)];
    let problem = run(&[&data[..], &model].concat()).unwrap_err();
    assert!(problem.contains("refs(unc).p: is refused") && problem.contains("os.system"), "{problem}");

    let own_set = folder.path().join("own");
    own(&own_set);
    let file = own_set.join("expressions.jsonl");
    let lines = fs::read_to_string(&file).unwrap();
    for (changed, words) in [
        (
            lines.replace("\"values\":[5]", "\"value\":[5]"),
            "line 2: is not an expression: unknown field `value`",
        ),
        (
            lines.replacen("\"mask\":\"instances/0.png\"", "\"mask\":null", 1),
            "line 1: has values but no mask",
        ),
        (lines.replacen("images/1.png", "images/9.png", 1), "images/9.png: is missing"),
    ] {
        fs::write(&file, changed).unwrap();
        let problem = run(&["referring", "--data", text(&own_set), "--control", "whole-image"]).unwrap_err();
        assert!(problem.contains(words), "{words}: {problem}");
    }
    fs::write(&file, &lines).unwrap();
    GrayImage::new(10, 10).save(own_set.join("instances/0.png")).unwrap();
    let problem = run(&["referring", "--data", text(&own_set), "--control", "whole-image"]).unwrap_err();
    assert!(problem.contains("instances/0.png: has 10 x 10 pixels, but its image has 48 x 32"), "{problem}");
    let (code, printed) = trainer(&["eval", "referring", "--data", text(&own_set), "--check"]);
    assert!(
        code == Some(0) && printed.contains("10 expressions about 2 images, 0 files missing"),
        "{printed}"
    );
}

/// The fifty expressions about photographs: each means something in its photograph, of its size, and has a subject.
#[test]
fn expressions_about_photographs_fit_them() {
    let photos = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/coco");
    if !photos.is_dir() {
        println!("skipped: {} is not there", photos.display());
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let ours = fixtures().join("coco");
    let link = |from: PathBuf, to: &str| {
        std::os::unix::fs::symlink(from.canonicalize().unwrap(), folder.path().join(to)).unwrap();
    };
    link(photos.join("semantic_train2017_images"), "images");
    link(photos.join("semantic_train2017"), "masks");
    link(ours.join("drawn"), "drawn");
    fs::copy(ours.join("expressions.jsonl"), folder.path().join("expressions.jsonl")).unwrap();
    let out = folder.path().join("out");
    let data = ["referring", "--data", text(folder.path()), "--out", text(&out)];
    let result = run(&[&data[..], &["--control", "whole-image"]].concat()).unwrap();
    assert_eq!(
        (&result["scores"]["expressions"], &result["scores"]["with_target"]),
        (&json!(50), &json!(46))
    );
    let extractor = concepts::Extractor::new(concepts::TaggerKind::default()).unwrap();
    for line in fs::read_to_string(out.join("expressions.jsonl")).unwrap().lines() {
        let record: Value = serde_json::from_str(line).unwrap();
        let share = record["target"].as_f64().unwrap() / record["mask"].as_f64().unwrap();
        let fits = if record["groups"][0] == "none" { share == 0.0 } else { (0.002..0.9).contains(&share) };
        assert!(fits, "{share}: {record}");
        let expression = Expression::read(&extractor, record["expression"].as_str().unwrap());
        assert!(expression.subject.is_some(), "{record}");
    }
}
