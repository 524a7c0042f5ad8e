//! `trainer eval probe`: its rungs beside NumPy and scikit-learn (`tests/fixtures/evaluation/probe.py`) and PyTorch (`probe_recipe.py`), and
//! the command from its options to its files.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::path::Path;

use image::{GrayImage, Luma, Rgb, RgbImage};
use serde_json::Value;
use tch::{Device, Kind, Tensor};
use trainer::evaluation::masks::Mask;
use trainer::evaluation::probe::learned::Learned;
use trainer::evaluation::probe::linear::{Linear, LinearSettings};
use trainer::evaluation::probe::neighbours;
use trainer::evaluation::probe::patches::{Patches, counts};
use trainer::evaluation::probe::recipe::Head;
use trainer::inference::window::{Resize, Window};

use crate::eval_command::{HEADS, clip, run, text, trainer};

fn fixture(name: &str) -> Value {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/evaluation");
    serde_json::from_slice(&fs::read(Path::new(folder).join(name)).unwrap()).unwrap()
}

fn list<T: serde::de::DeserializeOwned>(value: &Value) -> Vec<T> {
    serde_json::from_value(value.clone()).unwrap()
}

/// The largest difference.
fn apart(found: &Tensor, expected: &Value) -> f64 {
    let expected = Tensor::from_slice(&list::<f64>(expected));
    (found.reshape([-1]).to_kind(Kind::Double) - expected).abs().max().double_value(&[])
}

#[test]
fn pixels_of_patches_are_counted_as_by_numpy() {
    let all = fixture("probe.json");
    for case in all["windows"].as_array().unwrap() {
        let [height, width] = list::<u32>(&case["mask"])[..] else { panic!("{case}") };
        let size: Vec<i64> = list(&case["resized"]);
        let number = |name: &str| case[name].as_i64().unwrap();
        let (side, stride) = (number("side"), number("stride"));
        let window =
            Window { short: side, long: 0, side, stride, resize: Resize::Float, ..Window::PUBLISHED };
        let filling = Tensor::from_slice(&[0f32; 3]);
        let cut = window.cut(&Tensor::zeros([1, size[0], size[1], 3], (Kind::Float, Device::Cpu)), &filling);
        let mask = Mask { width, height, labels: list(&case["labels"]) };
        let found: Vec<Vec<Vec<i64>>> = counts(&cut, &mask, 4, side / number("patch"))
            .iter()
            .map(|window| Vec::<Vec<i64>>::try_from(window).unwrap())
            .collect();
        assert_eq!(found, list::<Vec<Vec<i64>>>(&case["counts"]), "{size:?}");
    }
}

#[test]
fn rungs_are_those_of_numpy_and_scikit_learn() {
    let all = fixture("probe.json");
    let (width, classes) = (all["width"].as_i64().unwrap(), all["classes"].as_i64().unwrap());
    let tensor = |name: &str, columns: i64| Tensor::from_slice(&list::<f64>(&all[name])).view([-1, columns]);
    let (features, shares, queries) =
        (tensor("memory", width), tensor("shares", classes), tensor("queries", width));
    let off = apart(&neighbours::shares(&queries, &features, &shares), &all["neighbours"]);
    // The softmax over the neighbours is computed in float32.
    assert!(off < 1e-5, "neighbours: off by {off:e}");

    let settings = LinearSettings { penalty: all["penalty"].as_f64().unwrap(), gradient: 1e-9, steps: 1000 };
    let linear = Linear::fit(&features, &shares, &settings);
    assert!(linear.gradient <= 1e-9 && linear.steps < 1000, "{} {:e}", linear.steps, linear.gradient);
    let probabilities = linear.scores(&queries.to_kind(Kind::Float)).softmax(1, Kind::Float);
    let off = apart(&probabilities, &all["linear"]);
    assert!(off < 1e-5, "linear: off by {off:e}");

    let sums = shares.transpose(0, 1).matmul(&features).to_kind(Kind::Float);
    let patches =
        Patches { features: features.to_kind(Kind::Float), shares: shares.to_kind(Kind::Float), sums };
    let learned = Learned::new(&patches, &settings, Device::Cpu);
    let off = apart(&learned.means, &all["means"]);
    assert!(off < 1e-6, "means: off by {off:e}");

    // A class that no patch has is never predicted.
    let more = |x: &Tensor| x.constant_pad_nd([0, 1]);
    let sums = patches.sums.constant_pad_nd([0, 0, 0, 1]);
    let unseen = Patches { shares: more(&patches.shares), sums, features: patches.features };
    let seen = Vec::<f64>::try_from(Learned::new(&unseen, &settings, Device::Cpu).seen.to_kind(Kind::Double))
        .unwrap();
    assert_eq!(seen[..4], [0.0; 4]);
    assert!(seen[4] < -1e3);
}

#[test]
fn the_head_of_dinov2s_recipe_is_trained_as_by_pytorch() {
    let all = fixture("probe_recipe.json");
    let number = |name: &str| all[name].as_i64().unwrap();
    let (width, classes, side) = (number("width"), number("classes"), number("side"));
    let numbers = |value: &Value| Tensor::from_slice(&list::<f32>(value));
    let mut head = Head::new(&numbers(&all["first"]).view([classes, width]));
    let rates: Vec<f64> = list(&all["rates"]);
    for (step, rate) in rates.iter().enumerate() {
        let patches = numbers(&all["patches"][step]).view([number("crops"), number("places"), width]);
        let labels =
            Tensor::from_slice(&list::<i64>(&all["labels"][step])).view([number("crops"), side, side]);
        let loss = head.step(&patches, &labels, *rate).unwrap();
        let expected = all["losses"][step].as_f64().unwrap();
        assert!((loss - expected).abs() < 1e-6, "step {step}: {loss}, expected {expected}");
    }
    let queries = numbers(&all["queries"]).view([-1, width]);
    let off = apart(&head.linear(4).scores(&queries), &all["scores"]);
    assert!(off < 1e-5, "scores are off by {off:e}");
}

/// A folder of images, the left part of which is of one class and the right part of another, with 16 px a patch row on each side.
fn halves(root: &Path, from: u32, count: u32, classes: &str) {
    for folder in ["images", "masks"] {
        fs::create_dir_all(root.join(folder)).unwrap();
    }
    fs::write(root.join("classes.txt"), classes).unwrap();
    for number in from..from + count {
        let left = 8 * (1 + number % 3);
        let pixel = |x: u32, y: u32| {
            let noise = ((x * 7 + y * 13 + number * 31) % 40) as u8;
            if x < left { Rgb([200 + noise, 30, noise]) } else { Rgb([noise, 60 + noise, 210]) }
        };
        RgbImage::from_fn(32, 32, pixel).save(root.join(format!("images/{number}.png"))).unwrap();
        GrayImage::from_fn(32, 32, |x, _| Luma([u8::from(x >= left)]))
            .save(root.join(format!("masks/{number}.png")))
            .unwrap();
    }
}

#[test]
fn the_ladder_is_climbed_and_what_was_learned_is_used_again() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let model = clip(folder.path());
    halves(&at("set"), 0, 4, "red thing\nblue thing\nthird thing\n");
    halves(&at("more"), 10, 6, "red thing\nblue thing\nthird thing\n");
    let (set, more, out) = (at("set"), at("more"), at("out"));
    let model = ["--clip", text(&model), "--templates", "simple", "--size", "32"];
    let common = [&["--data", text(&set)], model.as_slice(), HEADS.as_slice()].concat();
    let probe = |rest: &[&str]| {
        run(&[&["probe"], common.as_slice(), &["--train", text(&more), "--out", text(&out)], rest].concat())
    };
    let found = probe(&[]).unwrap();
    let miou = |result: &Value, rung: usize| result["rungs"][rung]["miou"].as_f64().unwrap();
    let names: Vec<&str> =
        found["rungs"].as_array().unwrap().iter().map(|rung| rung["rung"].as_str().unwrap()).collect();
    assert_eq!(names, ["text", "means", "neighbours", "linear", "oracle"]);
    let zero_shot = run(&[&["segmentation"], common.as_slice()].concat()).unwrap();
    assert_eq!(miou(&found, 0), zero_shot["miou"].as_f64().unwrap(), "the lowest rung is zero-shot");
    assert_eq!(miou(&found, 4), 1.0, "the borders lie between patches");
    assert!(miou(&found, 3) > 0.9 && miou(&found, 2) > 0.9, "{}", found["rungs"]);
    assert!(miou(&found, 3) >= miou(&found, 1) - 0.05, "{}", found["rungs"]);
    assert!(
        found["classes"][2]["iou"]["linear"].is_null(),
        "a class of no training patch is never predicted"
    );
    let share = found["zero_shot_of_linear"].as_f64().unwrap();
    assert!((share - miou(&found, 0) / miou(&found, 3)).abs() < 1e-9);
    assert!(found["classes"][0]["cosine_of_name_and_mean"].as_f64().unwrap().abs() <= 1.0);
    for name in ["result.json", "table.md", "ladder.png", "learned.safetensors", "source.json"] {
        assert!(out.join(name).is_file(), "{name}");
    }
    let table = fs::read_to_string(out.join("table.md")).unwrap();
    assert!(table.contains("| class names (zero-shot) |") && table.contains("| 100 % |"), "{table}");

    // What was learned is used again, and only for what it was learned from; parts that are missing are made again.
    let written = fs::metadata(out.join("learned.safetensors")).unwrap().modified().unwrap();
    fs::remove_file(out.join("scores-00000.json")).unwrap();
    let again = probe(&[]).unwrap();
    assert_eq!((&again["rungs"], &again["classes"]), (&found["rungs"], &found["classes"]));
    assert_eq!(fs::metadata(out.join("learned.safetensors")).unwrap().modified().unwrap(), written);
    let other = probe(&["--memory", "20"]).unwrap_err();
    assert!(other.contains("was made with the memory 102400, but now it is 20"), "{other}");
    for name in ["scores-00000.json", "learned.json", "source.json"] {
        let path = out.join(name);
        let kept = fs::read(&path).unwrap();
        fs::write(&path, "{").unwrap();
        let error = probe(&[]).unwrap_err();
        assert!(error.contains(name) && error.contains("is damaged"), "{error}");
        fs::write(&path, kept).unwrap();
    }

    // In parts, by one process and by three: the sums of patches are rounded otherwise, but hardly.
    let split = |out: &Path, ranks: usize| -> Vec<Value> {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let start = |rank: usize| {
            let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_trainer"));
            command.args(["eval", "probe"]).args(&common).args(["--train", text(&more), "--out", text(out)]);
            command.args(["--part", "2", "--json"]).stdout(std::process::Stdio::piped());
            if ranks > 1 {
                command.envs([("RANK", rank.to_string()), ("WORLD_SIZE", ranks.to_string())]);
                command.envs([("MASTER_ADDR", "127.0.0.1".to_owned()), ("MASTER_PORT", port.to_string())]);
            }
            command.spawn().unwrap()
        };
        let started: Vec<_> = (0..ranks).map(start).collect();
        let result = |child: std::process::Child| {
            let output = child.wait_with_output().unwrap();
            assert!(output.status.success());
            serde_json::from_str(String::from_utf8_lossy(&output.stdout).lines().last().unwrap()).unwrap()
        };
        started.into_iter().map(result).collect()
    };
    let one = split(&at("one"), 1).remove(0);
    for of_rank in split(&at("three"), 3) {
        assert_eq!((&of_rank["rungs"], &of_rank["classes"]), (&one["rungs"], &one["classes"]));
    }
    for rung in 0..5 {
        assert!((miou(&one, rung) - miou(&found, rung)).abs() < 0.01, "{} {}", one["rungs"], found["rungs"]);
    }
    let left =
        fs::read_dir(at("one")).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let left: std::collections::BTreeSet<String> = left.collect();
    assert!(
        left.contains("scores-00001.json") && !left.iter().any(|name| name.starts_with("patches")),
        "{left:?}"
    );
}

/// A training that is interrupted goes on as if it had not been.
#[test]
fn a_linear_classifier_is_trained_by_dinov2s_recipe() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let model = clip(folder.path());
    let classes = "red thing\nblue thing\n";
    halves(&at("set"), 0, 4, classes);
    halves(&at("more"), 10, 6, classes);
    let (set, more) = (at("set"), at("more"));
    let probe = |out: &str, steps: &str| {
        let out = at(out);
        let fixed =
            ["probe", "--clip", text(&model), "--templates", "simple", "--size", "32", "--data", text(&set)];
        let rest = ["--train", text(&more), "--out", text(&out), "--recipe", steps, "--threads", "1"];
        run(&[&fixed[..], &HEADS, &rest].concat()).unwrap()
    };
    let found = probe("out", "60");
    let names: Vec<&str> =
        found["rungs"].as_array().unwrap().iter().map(|rung| rung["rung"].as_str().unwrap()).collect();
    assert_eq!(names, ["text", "means", "neighbours", "linear", "recipe", "oracle"]);
    let miou = found["rungs"][4]["miou"].as_f64().unwrap();
    assert!(miou > 0.8, "{}", found["rungs"]);
    assert_eq!(
        (&found["recipe"]["steps"], &found["recipe"]["published_steps"]),
        (&60.into(), &40_000.into())
    );
    assert!(found["zero_shot_of_recipe"].as_f64().is_some());

    // What is on the disk after an interruption: the state of some step. Here it is that of the last one.
    let [whole, again] = ["out", "again"].map(|out| at(out).join("recipe.safetensors"));
    fs::create_dir(at("again")).unwrap();
    fs::copy(&whole, &again).unwrap();
    let second = probe("again", "60");
    assert_eq!(second["rungs"][4], found["rungs"][4], "nothing was left to train");
    assert_eq!(fs::read(&whole).unwrap(), fs::read(&again).unwrap());
    let refused = run(&[
        &["probe", "--clip", text(&model), "--templates", "simple", "--size", "32", "--data", text(&set)][..],
        &HEADS,
        &["--train", text(&more), "--out", text(&at("out")), "--recipe", "80"],
    ]
    .concat());
    assert!(refused.unwrap_err().contains("was made with the recipe 60, but now it is 80"));
}

#[test]
fn sets_that_are_no_training_sets_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let model = clip(folder.path());
    let classes = "red thing\nblue thing\nthird thing\n";
    halves(&at("set"), 0, 2, classes);
    halves(&at("fewer"), 5, 2, "red thing\nblue thing\n");
    halves(&at("others"), 5, 2, "red thing\ngreen thing\nthird thing\n");
    halves(&at("sizes"), 5, 2, classes);
    GrayImage::from_pixel(30, 32, Luma([0])).save(at("sizes/masks/5.png")).unwrap();
    let data = at("set");
    let out = at("out");
    let attempt = |rest: &[&str]| {
        let fixed = ["eval", "probe", "--clip", text(&model), "--templates", "simple", "--size", "32"];
        trainer(&[&fixed, HEADS.as_slice(), &["--out", text(&out), "--data", text(&data)], rest].concat())
    };
    let [set, fewer, others, sizes] = ["set", "fewer", "others", "sizes"].map(at);
    for (options, code, message) in [
        (&[][..], 2, "option `--train` is missing: a folder has no training split"),
        (&["--train", text(&set)], 1, "is no training set: its image"),
        (&["--train", text(&fewer)], 1, "has 2 classes, but set has 3"),
        (&["--train", text(&others)], 1, "has the class \"green thing\" where set has \"blue thing\""),
        (&["--train", text(&sizes)], 1, "has (30, 32) pixels, but its image has (32, 32)"),
        (&["--train", text(&sizes), "--memory", "0"], 2, "option `--memory` must be at least 1"),
        (&["--train", text(&sizes), "--penalty", "0"], 2, "option `--penalty` must be more than 0"),
        (&["--train", text(&sizes), "--pamr", "2"], 2, "option `--pamr` cannot be used by a probe"),
        (&["--dataset", "camvid11"], 1, "contains nothing of CamVid"),
    ] {
        let (found, printed) = attempt(options);
        assert!(found == Some(code) && printed.contains(message), "{options:?}: {found:?} {printed}");
    }
    // CamVid is here, but has no split for training.
    for name in ["test/a.png", "testannot/a.png"] {
        let path = at("set").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        GrayImage::from_pixel(32, 32, Luma([0])).save(path).unwrap();
    }
    let (code, printed) = attempt(&["--dataset", "camvid11"]);
    assert!(code == Some(2) && printed.contains("camvid11 has no split train; its splits are"), "{printed}");
}
