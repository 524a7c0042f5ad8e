//! The command line of `trainer`: `trainer eval` from its options to its files, with a narrow CLIP with random weights as the model;
//! exit codes and help of all commands.

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
fn photo(number: u32, width: u32, height: u32) -> RgbImage {
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

/// The exit code of the program, and all it prints.
fn trainer(arguments: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_trainer")).args(arguments).output().unwrap();
    let printed = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&printed).into_owned())
}

#[test]
fn wrong_use_ends_with_exit_code_2_and_says_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let settings = folder.path().join("run.toml");
    fs::write(&settings, "steps = 3\n").unwrap();
    let (here, settings) = (text(folder.path()), text(&settings));
    let no_model = "error: missing --checkpoint or --clip\n";
    for (arguments, message) in [
        (vec!["eval", "segmentation", "--data", here, "--dataset", "voc20"], no_model),
        (vec!["eval", "classification", "--data", here], no_model),
        (vec!["eval", "retrieval", "--data", here], no_model),
        (vec!["eval", "retrieval", "--data", settings, "--clip", "x"], "add --images DIR"),
        (
            vec!["eval", "segmentation", "--data", here, "--dataset", "voc", "--check"],
            "option `dataset` is voc; it must be one of folder, voc20",
        ),
        (
            vec!["train", "--config", settings],
            "error: option `out` (run folder) is missing; add --set out=DIR\n",
        ),
        (
            vec!["train", "--config", settings, "--set", "seed=1", "--set", "text.widht=64"],
            "error: option `text.widht` is unknown; did you mean `text.width`?",
        ),
        (vec!["bench", "--config", settings, "--set", "stepz=1"], "did you mean `steps`?"),
        (vec!["bench", "--objectives", "clip", "--size", "100"], "needs a multiple of its patch size, 16 px"),
        (vec!["bench", "--precision", "float16"], "[possible values: auto, float32, bfloat16]"),
        (vec!["bench", "--device", "gpu"], "option `device` is gpu; it must be auto, cpu, cuda or cuda:N"),
        (vec!["segment", "x.jpg", "--out", "y", "--checkpoint", "z"], "--classes <LIST>|--class-file <FILE>"),
        (
            vec!["pretrain", "--shards", here, "--out", "y", "--width", "65"],
            "option `--width` must be a multiple of 64",
        ),
        (vec!["embed", "--text", "a cat", "--out", "y"], "error: missing --checkpoint or --text-tower"),
    ] {
        let (code, printed) = trainer(&arguments);
        assert_eq!(code, Some(2), "{arguments:?}: {printed}");
        assert!(printed.contains(message), "{arguments:?}: {printed}");
    }
    // What cannot be read is a failure, not wrong use.
    for (arguments, message) in [
        (vec!["train", "--config", "gone.toml"], "error: gone.toml does not exist\n"),
        (
            vec!["serve", "--checkpoint", "gone", "--words", "cat"],
            "error: gone does not exist; give a run folder",
        ),
        (vec!["eval", "table", "gone.json"], "error: gone.json does not exist\n"),
    ] {
        let (code, printed) = trainer(&arguments);
        assert_eq!((code, printed.contains(message)), (Some(1), true), "{arguments:?}: {printed}");
    }
}

/// Two options of which one has no effect beside the other: the user meant something else.
#[test]
fn no_option_is_ignored_silently() {
    let folder = tempfile::tempdir().unwrap();
    voc(folder.path(), 1);
    let here = text(folder.path());
    let voc20 = ["eval", "segmentation", "--data", here, "--dataset", "voc20", "--checkpoint", "run"];
    let own = ["eval", "segmentation", "--data", here, "--checkpoint", "run"];
    let retrieval = ["eval", "retrieval", "--data", here, "--checkpoint", "run"];
    let classification = ["eval", "classification", "--data", here, "--checkpoint", "run"];
    let embed = ["embed", "--out", "out"];
    let captions = [&embed[..], &["--text", "a cat"]].concat();
    let of_run = [&captions[..], &["--checkpoint", "run"]].concat();
    let cases: &[(&[&str], &[&str], &str)] = &[
        (&own, &["--quick-gelu"], "--quick-gelu & cannot be used with & --checkpoint"),
        (&retrieval, &["--quick-gelu"], "--quick-gelu & cannot be used with & --checkpoint"),
        (&own, &["--vision-heads", "2"], "--vision-heads & cannot be used with & --checkpoint"),
        (&classification, &["--text-heads", "2"], "--text-heads & cannot be used with & --checkpoint"),
        // Whole images have no patch features.
        (&classification, &["--dense", "values"], "unexpected argument '--dense'"),
        (&voc20, &["--threshold", "0.3"], "--threshold has an effect only with --background threshold"),
        (&voc20, &["--scale", "30"], "--scale has an effect only with --background threshold"),
        (&voc20, &["--worst", "3"], "--out <DIR>"),
        (&retrieval, &["--captions", "2"], "--images <DIR>"),
        (&of_run, &["--position", "timm"], "--position & cannot be used with & --checkpoint"),
        (&of_run, &["--denoiser", "x"], "--denoiser & cannot be used with & --checkpoint"),
        (&of_run, &["--heads", "4"], "--heads & cannot be used with & --checkpoint"),
        (&of_run, &["--size", "32"], "--image <FILES>"),
        (
            &captions,
            &["--text-tower", "t", "--vision", "v"],
            "--vision has an effect only with --image or --pixels",
        ),
        (
            &embed,
            &["--vision", "v", "--image", "i", "--text-tower", "t"],
            "--text-tower has an effect only with --text",
        ),
        (&["weights"], &["--out", "x"], "--from-url <URL>"),
        (&["weights"], &["--sha256", "0"], "--from-url <URL>"),
    ];
    for &(arguments, more, message) in cases {
        let (code, printed) = trainer(&[arguments, more].concat());
        assert_eq!(code, Some(2), "{arguments:?} {more:?}: {printed}");
        for part in message.split(" & ") {
            assert!(printed.contains(part), "{arguments:?} {more:?}: {printed}");
        }
    }
    fs::create_dir_all(folder.path().join("own/images")).unwrap();
    fs::create_dir_all(folder.path().join("own/masks")).unwrap();
    fs::write(folder.path().join("own/classes.txt"), "cat\n").unwrap();
    photo(0, 8, 8).save(folder.path().join("own/images/0.png")).unwrap();
    let folder = folder.path().join("own");
    let own = ["segmentation", "--data", text(&folder), "--split", "val", "--check"];
    assert!(run(&own).unwrap_err().contains("--split has an effect only with a published dataset"));
}

/// A checkpoint of objective `clip` or `lit` with narrow towers of random weights.
fn checkpoint(run: &Path, objective: Objective) -> PathBuf {
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
    trainer::checkpoint::save(run, &state, &named, &optimizer).unwrap()
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

#[test]
fn help_lists_only_options_that_have_an_effect() {
    for (command, listed, absent) in [
        ("pca", "--stride", "--templates"),
        ("pca", "--size", "--class-vectors"),
        ("classes", "--templates", "--stride"),
        ("classes", "--class-file", "--size"),
        ("similarity", "--templates", "--classes"),
        ("eval retrieval", "--captions", "--templates"),
        ("eval classification", "--templates", "--captions"),
        ("eval segmentation", "--class-names", "--words"),
        ("serve", "--classes", "--words"),
        ("segment", "--class-file", "--words"),
    ] {
        let (code, help) = trainer(&[&command.split(' ').collect::<Vec<_>>()[..], &["--help"]].concat());
        assert_eq!(code, Some(0), "{command}: {help}");
        let option = |name: &str| help.lines().any(|line| line.trim_start().starts_with(&format!("{name} ")));
        assert!(option(listed) && !option(absent), "{command}: {help}");
    }
    // Classification compares with captions, whatever trained the model.
    let (_, help) = trainer(&["eval", "classification", "--help"]);
    assert!(!help.contains("trained with simzss") && help.contains("[default: caption]"), "{help}");
}

/// A WebDataset shard: (key, extension, bytes).
fn shard(path: &Path, members: &[(String, &str, Vec<u8>)]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mut tar = tar::Builder::new(fs::File::create(path).unwrap());
    for (key, extension, bytes) in members {
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, format!("{key}.{extension}"), bytes.as_slice()).unwrap();
    }
    tar.finish().unwrap();
}

fn png(image: &RgbImage) -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    image.write_to(&mut bytes, image::ImageFormat::Png).unwrap();
    bytes.into_inner()
}

/// The same twelve images of three classes in both layouts: WebDataset, and one folder per class.
fn classified(root: &Path) -> (PathBuf, PathBuf) {
    let (shards, folders) = (root.join("wds_animals"), root.join("animals"));
    for part in 0..2u32 {
        let members: Vec<(String, &str, Vec<u8>)> = (6 * part..6 * part + 6)
            .flat_map(|number| {
                let key = format!("s{number:04}");
                let class = (number % 3).to_string().into_bytes();
                [(key.clone(), "cls", class), (key, "png", png(&photo(number, 40 + number, 36)))]
            })
            .collect();
        shard(&shards.join(format!("test/{part}.tar")), &members);
    }
    fs::write(shards.join("test/nshards.txt"), "2\n").unwrap();
    fs::write(shards.join("classnames.txt"), "cat\ndog\ngreat white shark\n").unwrap();
    fs::write(shards.join("zeroshot_classification_templates.txt"), "a photo of a {c}.\nthe {c}\n").unwrap();
    for number in 0..12 {
        let folder = folders.join("val").join(["n1", "n2", "n3"][number as usize % 3]);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(format!("{number:02}.png")), png(&photo(number, 40 + number, 36))).unwrap();
    }
    fs::write(folders.join("classnames.txt"), "cat\ndog\ngreat white shark\n").unwrap();
    (shards, folders)
}

#[test]
fn both_layouts_of_classified_images_score_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let (model, out) = (clip(folder.path()), folder.path().join("out"));
    let (shards, folders) = classified(folder.path());
    let templates = folder.path().join("templates.txt");
    fs::write(&templates, "a photo of a {}.\nthe {}\n").unwrap();
    let data = [&["classification", "--clip", text(&model)], &HEADS[..], &["--data"]].concat();
    let own = run(&[&data[..], &[text(&shards), "--out", text(&out)]].concat()).unwrap();
    let both = [text(&shards), text(&folders), "--templates", text(&templates), "--batch", "5"];
    let both = run(&[&data[..], &both].concat()).unwrap();
    assert_eq!(own["results"][0]["protocol"]["templates"], "of the dataset");
    assert_eq!(own["results"][0]["protocol"]["vectors"], "caption");
    assert_eq!(own["results"][0]["scores"]["images"], 12);
    assert_eq!(own["results"][0]["scores"]["top5"], 1.0, "three classes are all among the first five");
    for score in ["top1", "top5", "mean_per_class"] {
        let first = &own["results"][0]["scores"][score];
        assert_eq!(first, &both["results"][0]["scores"][score], "{score}");
        assert_eq!(first, &both["results"][1]["scores"][score], "{score}");
        assert_eq!(first, &both["mean"][score]);
    }
    // The classes have the same size, so the mean over classes is the mean over images.
    let (top1, mean) = (&own["mean"]["top1"], &own["mean"]["mean_per_class"]);
    assert!((top1.as_f64().unwrap() - mean.as_f64().unwrap()).abs() < 1e-12);
    assert!(
        fs::read_to_string(out.join("table.md"))
            .unwrap()
            .contains("| SimZSS [p] | COCO Captions | 24.3 | 26.1 |")
    );

    for set in [&shards, &folders] {
        let error = run(&[&data[..], &[text(set), "--split", "train"]].concat()).unwrap_err();
        assert!(error.contains("train does not exist"), "{error}");
    }
    fs::write(shards.join("test/nshards.txt"), "3\n").unwrap();
    let error = run(&[&data[..], &[text(&shards)]].concat()).unwrap_err();
    assert!(error.contains("nshards.txt") && error.contains("3 shards"), "{error}");
    fs::write(shards.join("test/nshards.txt"), "2\n").unwrap();
    fs::write(shards.join("classnames.txt"), "cat\ndog\n").unwrap();
    let error = run(&[&data[..], &[text(&shards)]].concat()).unwrap_err();
    assert!(error.contains("s0002") && error.contains("class 2"), "{error}");
    fs::write(shards.join("dataset_type.txt"), "multilabel\n").unwrap();
    let error = run(&[&data[..], &[text(&shards)]].concat()).unwrap_err();
    assert!(error.contains("multilabel"), "{error}");
}

#[test]
fn shards_and_captions_files_retrieve_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let (model, images) = (clip(folder.path()), folder.path().join("images"));
    fs::create_dir_all(&images).unwrap();
    let (mut members, mut lines, mut coco) =
        (Vec::new(), String::new(), json!({ "images": [], "annotations": [] }));
    for number in 0..12u32 {
        let name = format!("{number:04}.png");
        let captions: Vec<String> =
            (0..2).map(|i| format!("picture {} of {} things", number * 2 + i, number % 5)).collect();
        let bytes = png(&photo(number, 48, 40));
        fs::write(images.join(&name), &bytes).unwrap();
        members.push((format!("{number:04}"), "png", bytes));
        members.push((format!("{number:04}"), "txt", captions.join("\n").into_bytes()));
        lines += &format!("{}\n", json!({ "file": name, "captions": captions }));
        coco["images"].as_array_mut().unwrap().push(json!({ "id": number, "file_name": name }));
        for caption in &captions {
            coco["annotations"]
                .as_array_mut()
                .unwrap()
                .push(json!({ "image_id": number, "caption": caption }));
        }
    }
    let (set, jsonl, file) =
        (folder.path().join("set"), folder.path().join("c.jsonl"), folder.path().join("c.json"));
    shard(&set.join("test/0.tar"), &members);
    fs::write(&jsonl, lines).unwrap();
    fs::write(&file, coco.to_string()).unwrap();
    let model = [&["retrieval", "--clip", text(&model)], &HEADS[..], &["--data"]].concat();
    let shards = run(&[&model[..], &[text(&set)]].concat()).unwrap();
    assert_eq!((&shards["scores"]["images"], &shards["scores"]["captions"]), (&json!(12), &json!(24)));
    for captions in [&jsonl, &file] {
        let found = run(&[&model[..], &[text(captions), "--images", text(&images)]].concat()).unwrap();
        assert_eq!(found["scores"]["image_to_text"], shards["scores"]["image_to_text"]);
        assert_eq!(found["scores"]["text_to_image"], shards["scores"]["text_to_image"]);
    }
    let first = run(&[&model[..], &[text(&jsonl), "--images", text(&images), "--captions", "1"]].concat());
    assert_eq!(first.unwrap()["scores"]["captions"], 12);
    let error = run(&[&model[..], &[text(&jsonl)]].concat()).unwrap_err();
    assert!(error.contains("images"), "{error}");

    // The same images as Karpathy's test split, and one image of another split that is not there.
    let sentences = |id: &Value| -> Vec<Value> {
        let all = coco["annotations"].as_array().unwrap();
        all.iter()
            .filter(|one| one["image_id"] == *id)
            .map(|one| json!({ "raw": one["caption"], "tokens": [] }))
            .collect()
    };
    let mut karpathy: Vec<Value> = coco["images"]
        .as_array()
        .unwrap()
        .iter()
        .map(|image| {
            let name = &image["file_name"];
            json!({ "filepath": "images", "filename": name, "split": "test", "sentences": sentences(&image["id"]) })
        })
        .collect();
    karpathy.push(json!({ "filepath": "images", "filename": "gone.png", "split": "train", "sentences": [{ "raw": "x" }] }));
    let file = folder.path().join("dataset_coco.json");
    fs::write(&file, json!({ "images": karpathy, "dataset": "coco" }).to_string()).unwrap();
    let above = ["--images", text(folder.path())];
    for more in [&[][..], &["--split", "test"]] {
        let found = run(&[&model[..], &[text(&file)], &above[..], more].concat()).unwrap();
        assert_eq!(found["scores"]["image_to_text"], shards["scores"]["image_to_text"]);
    }
    let error = run(&[&model[..], &[text(&file)], &above[..], &["--split", "val"]].concat()).unwrap_err();
    assert!(error.contains("its splits are test, train"), "{error}");
    let error = run(&[&model[..], &[text(&jsonl)], &above[..], &["--split", "test"]].concat()).unwrap_err();
    assert!(error.contains("--split is for Karpathy"), "{error}");
}
