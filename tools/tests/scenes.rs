//! `tools scenes`: the files of a dataset of generated scenes.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use arrow_array::cast::AsArray;
use arrow_array::types::{UInt8Type, UInt32Type};
use arrow_array::{Array, RecordBatch};

use crate::program::{contents, failure, summary, text, tools};

fn table(path: &Path) -> RecordBatch {
    let file = fs::File::open(path).unwrap();
    let reader = parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder::try_new(file).unwrap();
    reader.build().unwrap().next().unwrap().unwrap()
}

#[test]
fn scenes_do_not_depend_on_the_number_of_threads() {
    let place = tempfile::tempdir().unwrap();
    let (one, four) = (place.path().join("one"), place.path().join("four"));
    for (out, threads) in [(&one, "1"), (&four, "4")] {
        let arguments =
            ["scenes", "--count", "12", "--seed", "9", "--size", "48", "--captions-per-image", "3"];
        let output = tools(&[&arguments[..], &["--threads", threads, "--out", text(out)]].concat());
        assert!(output.status.success());
        let line = String::from_utf8(output.stdout).unwrap();
        assert_eq!(line, format!("written to {} (12 scenes)\n", out.display()));
    }
    let files = contents(&one);
    assert_eq!(files.len(), 12 * 2 + 3);
    assert!(files == contents(&four));
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 2, "a temporary folder was left");
}

#[test]
fn a_scene_depends_only_on_seed_and_index() {
    let place = tempfile::tempdir().unwrap();
    let (all, tail) = (place.path().join("all"), place.path().join("tail"));
    assert!(tools(&["scenes", "--count", "6", "--size", "32", "--out", text(&all)]).status.success());
    let arguments = ["scenes", "--count", "2", "--first-index", "4", "--size", "32", "--out", text(&tail)];
    assert!(tools(&arguments).status.success());
    for name in ["images/000004.jpg", "images/000005.jpg", "masks/000004.png", "masks/000005.png"] {
        assert!(fs::read(all.join(name)).unwrap() == fs::read(tail.join(name)).unwrap(), "{name}");
    }
}

/// Duplicates have the image and mask of an earlier scene, in another file; captions that are mismatched are those of another scene.
#[test]
fn scenes_can_be_duplicates_or_have_captions_of_others() {
    let place = tempfile::tempdir().unwrap();
    let out = place.path().join("set");
    let arguments = [
        "scenes",
        "--count",
        "80",
        "--size",
        "64",
        "--duplicates",
        "0.3",
        "--mismatched",
        "0.2",
        "--zipf",
        "1",
    ];
    let told = summary(&[&arguments[..], &["--seed", "4", "--json", "--out", text(&out)]].concat());
    let batch = table(&out.join("captions.parquet"));
    let originals = batch.column_by_name("duplicate_of").unwrap().as_string::<i32>().clone();
    let mismatched = batch.column_by_name("mismatched").unwrap().as_boolean().clone();
    assert_eq!((originals.len(), mismatched.len()), (80, 80));
    let (duplicates, others) = (originals.len() - originals.null_count(), mismatched.true_count());
    assert_eq!((&told["duplicates"], &told["mismatched"]), (&duplicates.into(), &others.into()));
    assert!((12..36).contains(&duplicates) && (6..28).contains(&others), "{duplicates}, {others}");
    for (number, original) in originals.iter().enumerate() {
        let Some(original) = original else { continue };
        assert!(original.parse::<usize>().unwrap() < number && originals.is_null(original.parse().unwrap()));
        assert!(!mismatched.value(number));
        let file = |stem: &str, kind: &str| fs::read(out.join(kind.replace('*', stem))).unwrap();
        let stem = format!("{number:06}");
        assert_eq!(file(&stem, "masks/*.png"), file(original, "masks/*.png"));
        let [one, other] = [file(&stem, "images/*.jpg"), file(original, "images/*.jpg")];
        assert!(one.len() < other.len(), "stored at a lower quality");
        let [one, other] =
            [one, other].map(|jpeg| image::load_from_memory(&jpeg).unwrap().to_rgb8().into_raw());
        let difference: u32 = one.iter().zip(&other).map(|(a, b)| u32::from(a.abs_diff(*b))).sum();
        assert!(difference < 12 * one.len() as u32, "{difference}");
    }
    let (code, error) =
        failure(&["scenes", "--count", "2", "--duplicates", "0.6", "--mismatched", "0.6", "--out", "x"]);
    assert!(code == 2 && error.contains("together they are at most 1"), "{error}");
}

#[test]
fn masks_contain_class_indices_and_the_summary_counts_them() {
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
        let image = image::open(out.join(format!("images/{index:06}.jpg"))).unwrap();
        assert_eq!((image.width(), image.height()), (40, 40));
        let mask = image::open(out.join(format!("masks/{index:06}.png"))).unwrap();
        let image::DynamicImage::ImageLuma8(mask) = mask else { panic!("the mask is not 8-bit grey") };
        for pixel in mask.pixels() {
            counts[usize::from(pixel.0[0])] += 1;
        }
    }
    let total: u64 = counts.iter().sum();
    assert_eq!(total, 20 * 40 * 40);
    for (class, count) in counts.iter().enumerate() {
        let counted = &summary["classes"][class];
        assert_eq!(counted["name"], names[class]);
        assert!((counted["pixel_share"].as_f64().unwrap() - *count as f64 / total as f64).abs() < 1e-12);
    }
    let written: serde_json::Value =
        serde_json::from_slice(&fs::read(out.join("scenes.json")).unwrap()).unwrap();
    assert_eq!(written, summary);
    assert!(image::open(sheet).unwrap().width() > 800);
}

#[test]
fn scenes_with_impossible_options_fail() {
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
    assert!(!out.exists(), "no dataset without the sheet that was requested");

    for wrong in [&["scenes", "--out", "x", "--count", "0"][..], &["scenes", "--count", "1"], &["paint"]] {
        assert_eq!(tools(wrong).status.code(), Some(2), "{wrong:?}");
    }
    assert_eq!(failure(&["scenes", "--count", "1", "--out", "/"]).0, 2);
}

/// What --objects and --expressions write agrees with the masks, and changes neither images nor masks.
#[test]
fn objects_and_expressions_agree_with_the_masks() {
    let place = tempfile::tempdir().unwrap();
    let (plain, out) = (place.path().join("plain"), place.path().join("set"));
    let arguments = ["scenes", "--count", "60", "--size", "64", "--seed", "3"];
    summary(&[&arguments[..], &["--json", "--out", text(&plain)]].concat());
    let told =
        summary(&[&arguments[..], &["--expressions", "--two-names", "--json", "--out", text(&out)]].concat());
    let grey = |part: &str, image: &str| {
        let file = image.replace("images/", &format!("{part}/")).replace(".jpg", ".png");
        let image::DynamicImage::ImageLuma8(mask) = image::open(out.join(file)).unwrap() else {
            panic!("a mask is not 8-bit grey")
        };
        mask.into_raw()
    };
    let classes = fs::read_to_string(out.join("classes.txt")).unwrap();
    let classes: Vec<&str> = classes.lines().collect();
    let second = fs::read_to_string(out.join("second-names.txt")).unwrap();
    assert_eq!(second.lines().count(), classes.len());
    assert_eq!(second.lines().zip(&classes).filter(|(second, first)| second != *first).count(), 8);

    let things = table(&out.join("objects.parquet"));
    let column = |name: &str| things.column_by_name(name).unwrap();
    let (images, names) = (column("image").as_string::<i32>(), column("class").as_string::<i32>());
    let (instances, pixels) =
        (column("instance").as_primitive::<UInt8Type>(), column("pixels").as_primitive::<UInt32Type>());
    assert_eq!(column("colour").null_count(), things.num_rows(), "colours follow from the classes");
    let mut objects = 0;
    for row in 0..things.num_rows() {
        let class = classes.iter().position(|class| *class == names.value(row)).unwrap() as u8;
        let (mask, of_objects) = (grey("masks", images.value(row)), grey("instances", images.value(row)));
        let value = if instances.is_null(row) { 0 } else { instances.value(row) };
        let own = of_objects.iter().zip(&mask).filter(|&(&object, &label)| object == value && label == class);
        assert_eq!(own.count() as u32, pixels.value(row), "row {row}");
        if value > 0 {
            objects += 1;
            assert!(of_objects.iter().zip(&mask).all(|(&object, &label)| object != value || label == class));
        }
    }
    assert!((2 * 60..=5 * 60).contains(&objects), "{objects}");

    let lines = fs::read_to_string(out.join("expressions.jsonl")).unwrap();
    assert_eq!(told["expressions"], lines.lines().count());
    let mut kinds = BTreeSet::new();
    for line in lines.lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        let word = |key: &str| line[key].as_str().unwrap().to_owned();
        let mask = grey("instances", &word("image"));
        assert!(out.join(word("mask")).exists());
        let values: Vec<u8> = serde_json::from_value(line["values"].clone()).unwrap();
        assert!(values.iter().all(|value| mask.contains(value)), "{line}");
        assert_eq!(values.is_empty(), word("kind") == "absent-name", "{line}");
        kinds.insert(word("kind"));
    }
    let expected = ["absent-name", "all", "name", "place", "relation", "size"];
    assert_eq!(kinds.into_iter().collect::<Vec<_>>(), expected, "no colours without --colours");

    let (plain, all) = (contents(&plain), contents(&out));
    for (name, bytes) in
        plain.iter().filter(|(name, _)| name.starts_with("images") || name.starts_with("masks"))
    {
        assert!(all[name] == *bytes, "{name}");
    }
}

#[test]
fn colours_and_naming_rates_are_counted() {
    let place = tempfile::tempdir().unwrap();
    let out = place.path().join("set");
    let arguments =
        ["scenes", "--count", "40", "--size", "48", "--colours", "--expressions", "--naming-rate", "1"];
    let told = summary(&[&arguments[..], &["--json", "--out", text(&out)]].concat());
    assert_eq!((&told["colours"], &told["naming_rate"]), (&true.into(), &1.0.into()));
    // Every visible class is named: a class is in as many captions as it is visible in images.
    let things = table(&out.join("objects.parquet"));
    let column = |name: &str| things.column_by_name(name).unwrap();
    let (images, names) = (column("image").as_string::<i32>(), column("class").as_string::<i32>());
    let visible = column("visible").as_boolean();
    let seen: BTreeSet<(&str, &str)> = (0..things.num_rows())
        .filter(|&row| visible.value(row))
        .map(|row| (images.value(row), names.value(row)))
        .collect();
    for class in told["classes"].as_array().unwrap() {
        let name = class["name"].as_str().unwrap();
        assert_eq!(class["captions"], seen.iter().filter(|(_, of)| *of == name).count(), "{name}");
    }
    let grounds = column("instance").null_count();
    assert_eq!(column("colour").null_count(), grounds, "every object has a colour");
    let lines = fs::read_to_string(out.join("expressions.jsonl")).unwrap();
    assert!(lines.contains("\"kind\":\"colour\"") && lines.contains("\"kind\":\"absent-pairing\""));
    let (code, error) = failure(&["scenes", "--count", "2", "--naming-rate", "1.5", "--out", "x"]);
    assert!(code == 2 && error.contains("a fraction is 0 to 1"), "{error}");
}
