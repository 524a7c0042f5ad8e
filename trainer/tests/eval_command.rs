//! `trainer eval segmentation` from its options to its files, with a narrow CLIP with random weights as the model.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use image::{GrayImage, Luma, Rgb, RgbImage};
use serde_json::{Value, json};
use tch::{Device, Kind, Tensor};
use trainer::checkpoint::State;
use trainer::method::objective::Objective;
use trainer::method::optimizer::Optimizer;
use trainer::settings::Settings;
use trainer::towers::{ClipShape, ClipVisionTower, TextShape, TextTower, VisionShape, VisionTower};
use trainer::weights;

/// The summary that `trainer eval .. --json` prints, or its error.
pub(crate) fn run(arguments: &[&str]) -> Result<Value, String> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_trainer"));
    let output = command.arg("eval").args(arguments).arg("--json").output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if !output.status.success() {
        return Err(text(&output.stderr));
    }
    Ok(serde_json::from_str(text(&output.stdout).lines().last().unwrap()).unwrap())
}

/// The exit code of the program, and all it prints.
pub(crate) fn trainer(arguments: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_trainer")).args(arguments).output().unwrap();
    let printed = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&printed).into_owned())
}

pub(crate) fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// The numbers of heads of the narrow CLIP, which do not follow from its file.
pub(crate) const HEADS: [&str; 4] = ["--vision-heads", "1", "--text-heads", "1"];

/// A CLIP with patches of 8 px for images of 32 px, with the state-dict keys of open_clip.
pub(crate) fn clip(folder: &Path) -> PathBuf {
    let _turn = crate::random(11);
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/evaluation/cases.json");
    let cases: Value = serde_json::from_slice(&fs::read(cases).unwrap()).unwrap();
    let shapes = cases["clip"][0]["shapes"].as_object().unwrap();
    let tower = TextTower::random(TextShape { width: 64, depth: 1, heads: 1, context: 77 }, 48, Device::Cpu);
    let mut named = tower.named();
    for (name, shape) in shapes {
        let shape: Vec<i64> = shape.as_array().unwrap().iter().map(|n| n.as_i64().unwrap()).collect();
        let values = Tensor::randn(shape.as_slice(), (Kind::Float, Device::Cpu));
        // Patches must have different features for labels to differ: large position embeddings, and norms that keep them.
        let values = match name.as_str() {
            "positional_embedding" => values,
            name if name.starts_with("ln_") && name.ends_with("weight") => values * 0.1 + 1.0,
            _ => values * 0.15,
        };
        named.push((format!("visual.{name}"), values));
    }
    let path = folder.join("open_clip_model.safetensors");
    weights::write(&path, &named).unwrap();
    path
}

/// A different image for each number.
pub(crate) fn photo(number: u32, width: u32, height: u32) -> RgbImage {
    let wave = |v: u32, by: u32| ((v * (by + number % 7) + number * 37) % 256) as u8;
    RgbImage::from_fn(width, height, |x, y| Rgb([wave(x, 3), wave(y, 5), wave(x + y, 2)]))
}

/// The folder layout of PASCAL VOC, with `count` images of two classes and a border.
pub(crate) fn voc(root: &Path, count: u32) {
    let root = root.join("VOCdevkit/VOC2012");
    for folder in ["JPEGImages", "SegmentationClass", "ImageSets/Segmentation"] {
        fs::create_dir_all(root.join(folder)).unwrap();
    }
    let keys: Vec<String> = (0..count).map(|number| format!("2007_{number:06}")).collect();
    fs::write(root.join("ImageSets/Segmentation/val.txt"), keys.join("\n")).unwrap();
    for (number, key) in (0..count).zip(&keys) {
        let (width, height) = (50 + 7 * number, 44);
        photo(number, width, height).save(root.join(format!("JPEGImages/{key}.jpg"))).unwrap();
        let label = |x: u32| {
            if x < 20 {
                0
            } else if x < 22 {
                255
            } else {
                12
            }
        };
        GrayImage::from_fn(width, height, |x, _| Luma([label(x)]))
            .save(root.join(format!("SegmentationClass/{key}.png")))
            .unwrap();
    }
}

#[test]
fn a_published_set_becomes_scores_table_and_pictures() {
    let folder = tempfile::tempdir().unwrap();
    let (model, out) = (clip(folder.path()), folder.path().join("out"));
    voc(folder.path(), 3);
    let args = |rest: &[&str]| -> Result<Value, String> {
        let data =
            ["segmentation", "--data", text(folder.path()), "--clip", text(&model), "--out", text(&out)];
        run(&[&data, HEADS.as_slice(), &["--templates", "simple", "--size", "32"], rest].concat())
    };
    let scores = args(&["--dataset", "voc20", "--worst", "2"]).unwrap();
    // Foreground only: in all 44 rows, the columns from 22 on count; the background and the border do not.
    assert_eq!(scores["pixels"], 44 * (28 + 35 + 42));
    assert_eq!(scores["ignored"], 44 * 22 * 3);
    assert_eq!((&scores["images"], &scores["published_images"]), (&json!(3), &json!(1449)));
    assert_eq!(scores["protocol"]["background"], "ignored");
    assert_eq!(scores["protocol"]["vectors"], "caption");
    assert_eq!(scores["classes"].as_array().unwrap().len(), 20);
    let seen = scores["classes"].as_array().unwrap().iter().filter(|class| !class["iou"].is_null()).count();
    assert!(seen > 2, "the model tells patches apart");
    let written: Value = serde_json::from_slice(&fs::read(out.join("result.json")).unwrap()).unwrap();
    assert_eq!(written["scores"]["miou"], scores["miou"]);
    let table = fs::read_to_string(out.join("table.md")).unwrap();
    assert!(table.contains("| SimZSS [p] | ViT-B, COCO Captions | 90.3 |"), "{table}");
    assert!(table.contains("**clip** [1]"), "{table}");
    assert_eq!(fs::read_dir(out.join("worst")).unwrap().count(), 4, "two images, predicted and true");

    let with_background = args(&["--dataset", "voc21", "--threshold", "0.0"]).unwrap();
    assert_eq!(with_background["pixels"], 44 * (48 + 55 + 62));
    assert_eq!(with_background["classes"][0]["iou"], 0.0, "no threshold, no background");
    let all = args(&["--dataset", "voc21", "--threshold", "1.1"]).unwrap();
    let share = all["classes"][0]["share"].as_f64().unwrap();
    assert!((all["pixel_accuracy"].as_f64().unwrap() - share).abs() < 1e-12, "all is background");
    let refined = args(&["--dataset", "voc21", "--pamr", "2"]).unwrap();
    assert_eq!(refined["protocol"]["pamr"]["iterations"], 2);
    assert_eq!(args(&["--dataset", "voc20", "--limit", "1"]).unwrap()["images"], 1);
    let maskclip = args(&["--dataset", "voc20", "--dense", "values"]).unwrap();
    assert!(maskclip["model"]["description"].as_str().unwrap().contains("MaskCLIP"));
    assert_ne!(maskclip["classes"], scores["classes"]);
    // All names of a custom list count by default.
    let list: Vec<String> = (0..20).map(|class| format!("thing {class}|object {class}")).collect();
    let named = |more: &[&str]| {
        let list = list.join(",");
        args(&[&["--dataset", "voc20", "--classes", &list], more].concat()).unwrap()["classes"].clone()
    };
    assert_eq!(named(&[]), named(&["--class-names", "synonyms"]));
    assert_ne!(named(&[]), named(&["--class-names", "plain"]));

    // The labels do not depend on the number of windows per batch, except for pixels with almost equal scores.
    let accuracy = |scores: &Value| scores["pixel_accuracy"].as_f64().unwrap();
    for batch in ["1", "64"] {
        let found = args(&["--dataset", "voc20", "--batch", batch, "--threads", "1"]).unwrap();
        assert!((accuracy(&found) - accuracy(&scores)).abs() < 0.002, "batch {batch}");
    }

    let tables = folder.path().join("tables.md");
    let merged = run(&["table", text(&out), text(&out.join("result.json")), "--out", text(&tables)]).unwrap();
    assert_eq!(merged["results"], 2);
    assert!(fs::read_to_string(&tables).unwrap().contains("**clip** [1]"));
}

#[test]
fn what_is_missing_is_named_before_anything_is_computed() {
    let folder = tempfile::tempdir().unwrap();
    voc(folder.path(), 3);
    let data = ["segmentation", "--dataset", "voc20", "--data", text(folder.path())];
    assert_eq!(run(&[&data, ["--check"].as_slice()].concat()).unwrap()["images"], 3);
    fs::remove_file(folder.path().join("VOCdevkit/VOC2012/SegmentationClass/2007_000001.png")).unwrap();
    for rest in [&["--check"][..], &["--clip", "nowhere.safetensors"]] {
        let error = run(&[&data, rest].concat()).unwrap_err();
        assert!(error.contains("2007_000001.png") && error.contains("missing"), "{error}");
    }
    let context = ["segmentation", "--dataset", "context59", "--data", text(folder.path()), "--check"];
    let error = run(&context).unwrap_err();
    assert!(error.contains("SegmentationClassContext"), "{error}");
    let error = run(&[&data, ["--check", "--background", "threshold"].as_slice()].concat()).unwrap_err();
    assert!(error.contains("background"), "{error}");
    fs::write(folder.path().join("words.txt"), "cat\ndog\n").unwrap();
    let words = folder.path().join("words.txt");
    // A file after `--classes`, and `--words`, are the former spellings.
    for list in [["--class-file", text(&words)], ["--classes", text(&words)], ["--classes", "cat, dog"]] {
        let former = ["--check", "--words", "synonyms"];
        let error = run(&[&data[..], &list, &former].concat()).unwrap_err();
        assert!(error.contains("has 2 classes") && error.contains("has 20"), "{error}");
    }
}

/// A checkpoint of objective `clip` or `lit` with narrow towers of random weights.
pub(crate) fn checkpoint(run: &Path, objective: Objective) -> PathBuf {
    let _turn = crate::random(12);
    let mut settings = Settings { out: run.to_owned(), ..Settings::default() };
    settings.objective.name = objective;
    settings.data.loading.size = 32;
    settings.text = TextShape { width: 64, depth: 1, heads: 1, context: 77 }.into();
    settings.clip = ClipShape { width: 64, depth: 2, patch: 8, output: 64 };
    // Those that `--clip` uses.
    settings.vision.mean = Some([0.481_454_66, 0.457_827_5, 0.408_210_73]);
    settings.vision.std = Some([0.268_629_54, 0.261_302_58, 0.275_777_11]);
    let mut named = TextTower::random(settings.text.shape(), 64, Device::Cpu).named();
    fs::create_dir_all(run).unwrap();
    if objective == Objective::Clip {
        let tower = ClipVisionTower::random(settings.clip, 4, Kind::Float, Device::Cpu).named();
        for (_, tensor) in tower.iter().filter(|(name, _)| name == "visual.positional_embedding") {
            // So large that patches differ, and with them labels.
            let _ = tensor.shallow_clone().g_mul_scalar_(8.0);
        }
        named.extend(tower);
    } else {
        let shape = VisionShape { width: 64, depth: 1, patch: 8, grid: 4 };
        let tower = VisionTower::random(shape, Device::Cpu).named();
        weights::write(&trainer::checkpoint::vision_path(run), &tower).unwrap();
    }
    let optimizer = Optimizer::new(&settings.optimizer, Vec::new());
    let state = State::new(&settings, 1, (0, 1), "", 0);
    trainer::checkpoint::save(run, &state, &named, &optimizer, None).unwrap()
}

#[test]
fn maskclips_features_of_a_run_are_those_of_its_file() {
    let folder = tempfile::tempdir().unwrap();
    voc(folder.path(), 2);
    let eval = |model: &[&str]| {
        let set = ["segmentation", "--dataset", "voc20", "--data", text(folder.path())];
        run(&[&set[..], &["--templates", "simple", "--size", "32"], model].concat())
    };
    let run = folder.path().join("run");
    let file = checkpoint(&run, Objective::Clip).join("model.safetensors");
    let of_run = |dense| eval(&["--checkpoint", text(&run), "--dense", dense]).unwrap();
    let of_file = |dense| eval(&[&["--clip", text(&file), "--dense", dense], &HEADS[..]].concat()).unwrap();
    for dense in ["tokens", "values"] {
        assert_eq!(of_run(dense)["classes"], of_file(dense)["classes"], "{dense}");
    }
    let values = of_run("values");
    assert_ne!(of_run("tokens")["classes"], values["classes"]);
    assert_eq!(values["model"]["description"], "clip step 1, values of the last block (MaskCLIP)");
    assert_eq!(eval(&["--checkpoint", text(&run)]).unwrap()["classes"], of_run("tokens")["classes"]);

    let lit = folder.path().join("lit");
    checkpoint(&lit, Objective::Lit);
    let values = eval(&["--checkpoint", text(&lit), "--dense", "values"]).unwrap();
    assert_eq!(values["model"]["description"], "lit step 1, values of the last block (MaskCLIP)");
    assert_eq!(values["protocol"]["dense"], "values");
    assert_ne!(values["classes"], eval(&["--checkpoint", text(&lit)]).unwrap()["classes"]);
}

/// What a protocol fixes cannot be changed beside it, and it is only for the datasets that it has prompts for: found before a model is
/// opened.
#[test]
fn a_protocol_is_not_mixed_with_other_options() {
    let folder = tempfile::tempdir().unwrap();
    voc(folder.path(), 1);
    let here = text(folder.path());
    let with = |dataset: &str, protocol: &str, more: &[&str]| {
        let arguments = [
            "eval",
            "segmentation",
            "--data",
            here,
            "--dataset",
            dataset,
            "--clip",
            "gone",
            "--protocol",
            protocol,
        ];
        trainer(&[&arguments[..], more].concat())
    };
    for (dataset, protocol, more, message) in [
        (
            "voc20",
            "tips",
            &[][..],
            "option `--protocol` is tips, which has prompts for ade150 only, not for voc20",
        ),
        (
            "voc20",
            "dinotxt",
            &[],
            "option `--protocol` is dinotxt, which has prompts for cityscapes19, ade150 only",
        ),
        ("folder", "tcl", &[], "not for folder"),
        ("camvid11", "talk2dino", &[], "not for camvid11"),
        ("voc20", "tcl", &["--size", "336"], "option `--size` is 336, but --protocol tcl fixes it to 448"),
        (
            "voc20",
            "tcl",
            &["--long-side", "0"],
            "option `--long-side` is 0, but --protocol tcl fixes it to 2048",
        ),
        ("voc20", "tcl", &["--window", "224"], "option `--window` is 224"),
        ("voc20", "tcl", &["--stride", "448"], "option `--stride` is 448"),
        (
            "voc20",
            "tcl",
            &["--resize", "float"],
            "option `--resize` is float, but --protocol tcl fixes it to opencv",
        ),
        ("voc20", "tcl", &["--dense", "values"], "option `--dense` is values"),
        ("voc20", "tcl", &["--fusion", "softmax"], "option `--fusion` is softmax"),
        ("voc20", "tcl", &["--pamr", "10"], "option `--pamr` is 10, but --protocol tcl fixes it to 0"),
        (
            "voc20",
            "talk2dino",
            &["--pamr", "0"],
            "option `--pamr` is 0, but --protocol talk2dino fixes it to 10",
        ),
        ("voc20", "tcl", &["--templates", "simple"], "option `--templates` is simple"),
        ("voc20", "tcl", &["--class-vectors", "concept"], "option `--class-vectors` is concept"),
        ("voc20", "tcl", &["--class-names", "synonyms"], "option `--class-names` is synonyms"),
        (
            "voc20",
            "tcl",
            &["--classes", "a,b"],
            "option `--classes` replaces the class names that --protocol tcl fixes",
        ),
        ("voc20", "tcl", &["--class-file", "x"], "option `--class-file` replaces"),
        (
            "voc21",
            "talk2dino",
            &["--threshold", "0.4"],
            "option `--threshold` is 0.4, but --protocol talk2dino fixes it to 0.55",
        ),
        (
            "voc21",
            "tcl",
            &["--scale", "40"],
            "option `--scale` is 40.0, but --protocol tcl fixes it to what the model learned",
        ),
        (
            "voc21",
            "tcl",
            &["--background", "words"],
            "option `--background` differs from what --protocol tcl fixes for voc21",
        ),
    ] {
        let (code, printed) = with(dataset, protocol, more);
        assert_eq!(code, Some(2), "{protocol} {dataset} {more:?}: {printed}");
        assert!(printed.contains(message), "{protocol} {dataset} {more:?}: {printed}");
    }
    // The same value is no contradiction: only the model is missing.
    let same = [
        "--size",
        "448",
        "--stride",
        "224",
        "--pamr",
        "0",
        "--templates",
        "imagenet",
        "--class-names",
        "plain",
    ];
    let (code, printed) = with("voc20", "tcl", &same);
    assert_eq!((code, printed.contains("gone does not exist")), (Some(1), true), "{printed}");
}
