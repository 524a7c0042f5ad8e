//! The protocols of methods without training, compared with plain implementations of their steps in Python
//! (`tests/fixtures/protocols/baselines.py`): scores of pixels, and the scores of a whole evaluation.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::path::{Path, PathBuf};

use image::{DynamicImage, GrayImage, RgbImage};
use serde_json::Value;
use tch::{Device, Kind, Tensor};
use trainer::device::Precision;
use trainer::evaluation::SegmentationDataset;
use trainer::evaluation::protocol::{PROTOCOLS, Protocol};
use trainer::evaluation::segmentation::DecisionSettings;
use trainer::inference::classes;
use trainer::inference::model::{ClipSettings, DenseFiles, Model};
use trainer::towers::{Activation, ClipShape, ClipVisionTower, Dense, TextShape, TextTower};
use trainer::weights;

use crate::dense::{dinoiser, proxy};
use crate::eval_command::{run, text, trainer, voc};
use crate::evaluation::{draws, photo};
use crate::protocols::{agree, differences, numbers};
use crate::wave::fill;

const WIDTH: i64 = 64;

/// The CLIP of the fixture, with this bias of its last LayerNorm.
fn clip(folder: &Path, bias: &Value) -> PathBuf {
    let shape = ClipShape { width: WIDTH, depth: 3, patch: 16, output: WIDTH };
    let images = ClipVisionTower::random(shape, 14, Kind::Float, Device::Cpu).named();
    fill(&images);
    let (_, last) = images.iter().find(|(name, _)| name == "visual.ln_post.bias").unwrap();
    last.shallow_clone().copy_(&Tensor::from_slice(&numbers(bias)));
    let shape = TextShape { width: WIDTH, depth: 2, heads: 2, context: 77 };
    let texts = TextTower::random(shape, WIDTH, Device::Cpu).named();
    let parameters: Vec<_> = texts
        .iter()
        .filter(|(name, _)| name != "logit_scale")
        .map(|(name, tensor)| (name.clone(), tensor.shallow_clone()))
        .collect();
    fill(&parameters);
    let (_, tokens) = parameters.iter().find(|(name, _)| name == "token_embedding.weight").unwrap();
    let values = draws(tokens.numel(), 1).into_iter().map(|draw| draw as f32 / 65536.0 - 0.5);
    let values = Tensor::from_slice(&values.collect::<Vec<_>>()).view(tokens.size().as_slice());
    tch::no_grad(|| tokens.shallow_clone().copy_(&values));
    let path = folder.join("clip.safetensors");
    weights::write(&path, &images.into_iter().chain(texts).collect::<Vec<_>>()).unwrap();
    path
}

/// Writes the image and the mask of a case in the layout of its dataset.
fn write(case: &Value, image: &RgbImage, root: &Path) {
    let dataset = case["dataset"].as_str().unwrap();
    let (images, masks, list) = match dataset {
        "cityscapes19" => {
            ("leftImg8bit/val/ulm/0_leftImg8bit.png", "gtFine/val/ulm/0_gtFine_labelIds.png", "")
        }
        "coco-object81" => ("images/val2017/0.jpg", "annotations/val2017/0_instanceTrainIds.png", ""),
        "context59" | "context60" => {
            ("JPEGImages/0.jpg", "SegmentationClassContext/0.png", "ImageSets/SegmentationContext/val.txt")
        }
        _ => ("JPEGImages/0.jpg", "SegmentationClass/0.png", "ImageSets/Segmentation/val.txt"),
    };
    let mask = case["mask"].as_str().unwrap();
    let mask = (0..mask.len()).step_by(2).map(|i| u8::from_str_radix(&mask[i..i + 2], 16).unwrap()).collect();
    let mask = GrayImage::from_raw(image.width(), image.height(), mask).unwrap();
    for (path, picture) in [(images, DynamicImage::from(image.clone())), (masks, DynamicImage::from(mask))] {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        picture.save_with_format(path, image::ImageFormat::Png).unwrap();
    }
    if !list.is_empty() {
        fs::create_dir_all(root.join(list).parent().unwrap()).unwrap();
        fs::write(root.join(list), "0\n").unwrap();
    }
}

/// The dataset of a case as the protocol predicts it.
fn set(case: &Value, protocol: &Protocol, root: &Path) -> SegmentationDataset {
    let mut set = SegmentationDataset::open(case["dataset"].as_str().unwrap(), root, None).unwrap();
    if let Some(background) = protocol.background_of(set.background) {
        set = set.with_background(background);
    }
    if let (Some(separator), Some(list)) = (protocol.separator, case["list"].as_str()) {
        let path = root.join("names.txt");
        fs::write(&path, list).unwrap();
        set.classes = classes::read_separated(&path, separator).unwrap();
    }
    set
}

#[test]
fn protocols_of_methods_without_training_give_the_scores_of_plain_implementations() {
    let _turn = crate::random(31);
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/protocols/baselines.json");
    let all: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    let mut seen = Vec::new();
    for case in all["cases"].as_array().unwrap() {
        let dataset = case["dataset"].as_str().unwrap();
        let protocol = PROTOCOLS.iter().find(|it| it.name == case["protocol"]).unwrap();
        let name = format!("{} {dataset}", protocol.name);
        seen.push(protocol.name);
        let [width, height, seed] = ["width", "height", "seed"].map(|it| case[it].as_u64().unwrap() as u32);
        let image = photo(seed, width, height);
        let folder = tempfile::tempdir().unwrap();
        write(case, &image, folder.path());
        let set = set(case, protocol, folder.path());
        assert!(protocol.datasets.contains(&set.name.as_str()));
        let parts = protocol.parts(dataset);
        let files = DenseFiles {
            proxy: (parts.dense == Dense::Proxyclip).then(|| proxy(folder.path())),
            dinoiser: (parts.dense == Dense::ClipDinoiser)
                .then(|| dinoiser(folder.path(), WIDTH, &Value::Null)),
        };
        let settings =
            ClipSettings { activation: Activation::Gelu, vision_heads: Some(1), text_heads: Some(2) };
        let path = clip(folder.path(), &case["bias"]);
        let model = Model::open_clip(&path, settings, Precision::Float32, Device::Cpu).unwrap();
        let segmenter = parts.segmenter(model.with_dense(parts.dense, &files).unwrap(), &set).unwrap();

        let (apart, _) = differences(&name, case, &segmenter.scores(&image));
        // Without the residual little is left of the differences between the patches of this tower: PyTorch in float32 differs as much
        // from float64. A similarity of two patches may be on the other side of a threshold, and probabilities are of similarities 100
        // times as large.
        let tolerance = match parts.dense {
            Dense::Proxyclip | Dense::ClipDinoiser => 1e-3,
            Dense::Naclip | Dense::Clearclip => 3e-4,
            _ => 2e-5,
        };
        assert!(apart < tolerance, "{name}: {apart:e}");

        let decision = DecisionSettings {
            threshold: parts.threshold,
            scale: parts.scale.unwrap_or(1.0),
            batch: 3,
            readers: 1,
            worst: 0,
        };
        agree(&name, case, &set, &segmenter, &decision);
    }
    seen.dedup();
    let named: Vec<&str> = PROTOCOLS[4..].iter().map(|protocol| protocol.name).collect();
    assert_eq!(seen, named, "each has a reference");
}

/// Found before a model is opened.
#[test]
fn lists_of_names_are_asked_for_and_taken() {
    let folder = tempfile::tempdir().unwrap();
    let here = text(folder.path());
    let with = |protocol: &str, dataset: &str, more: &[&str]| {
        let arguments = [
            "eval",
            "segmentation",
            "--data",
            here,
            "--clip",
            "gone",
            "--protocol",
            protocol,
            "--dataset",
            dataset,
        ];
        trainer(&[&arguments[..], more].concat())
    };
    for (protocol, dataset, more, message) in [
        ("sclip", "voc21", &[][..], "--protocol sclip needs --class-file: the list of names of its authors"),
        ("sclip", "voc21", &["--classes", "a,b"], "option `--classes` replaces the class names"),
        ("maskclip", "voc20", &["--class-file", "x"], "option `--class-file` replaces the class names"),
        ("maskclip", "voc21", &[], "is maskclip, which has prompts for voc20, context59"),
        ("clearclip", "camvid11", &["--class-file", "x"], "not for camvid11"),
        ("proxyclip", "voc21", &["--class-file", "x"], "--dense proxyclip needs --proxy-weights FILE"),
        ("clip-dinoiser", "voc21", &[], "--dense clip-dinoiser needs --dinoiser-weights FILE"),
        ("naclip", "voc21", &["--class-file", "x", "--scale", "50"], "--protocol naclip fixes it to 40"),
        ("naclip", "voc21", &["--class-file", "x", "--dense", "kk"], "invalid value 'kk'"),
        (
            "sclip",
            "cityscapes19",
            &["--class-file", "x", "--size", "336"],
            "option `--size` is 336, but --protocol sclip fixes it to 560",
        ),
    ] {
        let (code, printed) = with(protocol, dataset, more);
        assert_eq!(code, Some(2), "{protocol} {dataset} {more:?}: {printed}");
        assert!(printed.contains(message), "{protocol} {dataset} {more:?}: {printed}");
    }
}

/// From the options to the result.
#[test]
fn a_result_says_how_it_was_decided() {
    let _turn = crate::random(33);
    let folder = tempfile::tempdir().unwrap();
    voc(folder.path(), 1);
    let bias = serde_json::json!(vec![0.0; WIDTH as usize]);
    let clip = clip(folder.path(), &bias);
    let list = folder.path().join("names.txt");
    let lines: Vec<String> = (0..21).map(|class| format!("thing {class}, object {class}")).collect();
    let eval = |lines: &[String]| {
        fs::write(&list, lines.join("\n")).unwrap();
        let model = ["segmentation", "--clip", text(&clip), "--vision-heads", "1", "--text-heads", "2"];
        let data =
            ["--dataset", "voc21", "--data", text(folder.path()), "--protocol", "sclip", "--class-file"];
        run(&[&model[..], &data[..], &[text(&list)]].concat())
    };
    let result = eval(&lines).unwrap();
    let protocol = &result["protocol"];
    assert_eq!(
        (&protocol["name"], &protocol["background"], &protocol["dense"]),
        (&"sclip".into(), &"words".into(), &"sclip".into())
    );
    assert_eq!(
        protocol["names"],
        serde_json::json!({ "scale": 65.0, "threshold": 0.1, "least_area": 0.1, "pamr": null })
    );
    assert_eq!(protocol["words"], text(&list));
    assert_eq!(result["model"]["description"], "clip, sclip");
    // `plain` is another name of `tokens`.
    let of = |dense: &str| {
        let model = ["segmentation", "--clip", text(&clip), "--vision-heads", "1", "--text-heads", "2"];
        let data =
            ["--dataset", "voc20", "--data", text(folder.path()), "--templates", "simple", "--dense", dense];
        run(&[&model[..], &data[..]].concat()).unwrap()
    };
    assert_eq!(of("plain")["classes"], of("tokens")["classes"]);
    assert_eq!(of("plain")["protocol"]["dense"], Value::Null);
    // Results have the names of the dataset.
    assert_eq!(result["classes"][1]["class"], "aeroplane");
    let error = eval(&lines[..20]).unwrap_err();
    assert!(error.contains("names.txt has 20 classes, but"), "{error}");
}
