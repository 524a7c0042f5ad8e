//! The published protocols of segmentation by name, compared with plain implementations of their steps in Python
//! (`tests/fixtures/protocols/named.py`): scores of pixels, and the scores of a whole evaluation.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::path::Path;

use image::{DynamicImage, GrayImage, RgbImage};
use serde_json::Value;
use sha2::{Digest, Sha256};
use tch::{Device, Kind, Tensor};
use trainer::Silent;
use trainer::data::frozen_tower;
use trainer::evaluation::SegmentationDataset;
use trainer::evaluation::protocol::PROTOCOLS;
use trainer::evaluation::segmentation::{DecisionSettings, evaluate};
use trainer::inference::class_vectors::ClassVectors;
use trainer::inference::model::{DenseFiles, Model, Vision};
use trainer::inference::pillow;
use trainer::inference::segmenter::Segmenter;
use trainer::settings::VisionSettings;
use trainer::towers::{
    Dense, Embedding, FrozenVision, PositionResize, TextShape, TextTower, VisionHead, VisionShape,
    VisionTower,
};
use trainer::weights;

use crate::evaluation::{draws, photo};
use crate::wave::fill;

const WIDTH: i64 = 64;

fn fixture() -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/protocols/named.json");
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

pub(crate) fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap_or(f64::NAN)).collect()
}

/// The towers of the fixture.
fn model(logit_scale: f64, blocks: i64) -> Model {
    let folder = tempfile::tempdir().unwrap();
    let weights = folder.path().join("tower.safetensors");
    let shape = VisionShape { width: WIDTH, depth: 2, patch: 14, grid: 4 };
    let tower = VisionTower::random(shape, Device::Cpu).named();
    fill(&tower);
    weights::write(&weights, &tower).unwrap();
    let settings =
        VisionSettings { weights, position: Some(PositionResize::Timm), ..VisionSettings::default() };
    let shape = TextShape { width: WIDTH, depth: 2, heads: 2, context: 77 };
    let text = TextTower::random(shape, WIDTH, Device::Cpu).with_logits(logit_scale, None);
    let parameters: Vec<_> = text.named().into_iter().filter(|(name, _)| name != "logit_scale").collect();
    fill(&parameters);
    // The formula repeats itself too often for as many tokens.
    let (_, tokens) = parameters.iter().find(|(name, _)| name == "token_embedding.weight").unwrap();
    let values = draws(tokens.numel(), 1).into_iter().map(|draw| draw as f32 / 65536.0 - 0.5);
    let values = Tensor::from_slice(&values.collect::<Vec<_>>()).view(tokens.size().as_slice());
    tch::no_grad(|| tokens.shallow_clone().copy_(&values));
    let vision = FrozenVision {
        encoder: frozen_tower::open(&settings, Kind::Float, Device::Cpu).unwrap(),
        head: VisionHead::random(blocks, Embedding::Class, WIDTH, Device::Cpu),
    };
    Model {
        vision: Vision::Frozen(Box::new(vision)),
        text,
        kind: Kind::Float,
        vectors: ClassVectors::Caption,
        size: 56,
        description: String::new(),
    }
}

/// Writes the image and the mask of a case in the layout of its dataset.
fn write(case: &Value, image: &RgbImage, root: &Path) {
    let (images, masks) = match case["dataset"].as_str().unwrap() {
        "cityscapes19" => ("leftImg8bit/val/ulm/0_leftImg8bit.png", "gtFine/val/ulm/0_gtFine_labelIds.png"),
        "ade150" => ("images/validation/0.jpg", "annotations/validation/0.png"),
        _ => ("JPEGImages/0.jpg", "SegmentationClass/0.png"),
    };
    let mask = case["mask"].as_str().unwrap();
    let mask = (0..mask.len()).step_by(2).map(|i| u8::from_str_radix(&mask[i..i + 2], 16).unwrap()).collect();
    let mask = GrayImage::from_raw(image.width(), image.height(), mask).unwrap();
    for (path, picture) in [(images, DynamicImage::from(image.clone())), (masks, DynamicImage::from(mask))] {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        picture.save_with_format(path, image::ImageFormat::Png).unwrap();
    }
    fs::create_dir_all(root.join("ImageSets/Segmentation")).unwrap();
    fs::write(root.join("ImageSets/Segmentation/val.txt"), "0\n").unwrap();
}

/// The largest difference of some scores from the reference, and the largest of these.
pub(crate) fn differences(name: &str, case: &Value, scores: &Tensor) -> (f64, f64) {
    let resized: Vec<f64> = scores.size()[1..].iter().map(|&side| side as f64).collect();
    assert_eq!(resized, numbers(&case["resized"]), "{name}");
    let shown = scores.slice(0, 0, None, 7).slice(1, 0, None, 97).slice(2, 0, None, 89).contiguous();
    let expected = Tensor::from_slice(&numbers(&case["scores"]));
    let largest = expected.abs().max().double_value(&[]);
    let apart = (shown.view([-1]).to_kind(Kind::Double) - expected).abs().max().double_value(&[]);
    eprintln!("{name}: the largest difference is {apart:.1e}, of scores up to {largest:.2}");
    (apart, largest)
}

/// An evaluation counts what the reference does.
pub(crate) fn agree(
    name: &str,
    case: &Value,
    set: &SegmentationDataset,
    segmenter: &Segmenter,
    decision: &DecisionSettings,
) {
    let (scores, _) = evaluate(set, segmenter, decision, &Silent, &mut |_, _, _| Ok(())).unwrap();
    assert_eq!(scores.pixels, case["pixels"].as_u64().unwrap(), "{name}");
    for (what, found) in [("miou", scores.miou), ("pixel_accuracy", scores.pixel_accuracy)] {
        let expected = case[what].as_f64().unwrap();
        assert!((found - expected).abs() < 1e-9, "{name}: {what} is {found} instead of {expected}");
    }
    for (class, expected) in scores.classes.iter().zip(numbers(&case["ious"])) {
        let found = class.iou.unwrap_or(f64::NAN);
        assert!((found - expected).abs() < 1e-9 || found.is_nan() && expected.is_nan(), "{name}: {class:?}");
    }
}

#[test]
fn protocols_give_the_scores_of_plain_implementations() {
    let all = fixture();
    let logit_scale = all["logit_scale"].as_f64().unwrap();
    let mut seen = Vec::new();
    for case in all["cases"].as_array().unwrap() {
        let name = format!("{} {}", case["protocol"].as_str().unwrap(), case["dataset"].as_str().unwrap());
        let protocol = PROTOCOLS.iter().find(|it| it.name == case["protocol"]).unwrap();
        seen.push(protocol.name);
        let [width, height, seed] = ["width", "height", "seed"].map(|it| case[it].as_u64().unwrap() as u32);
        let image = photo(seed, width, height);
        let folder = tempfile::tempdir().unwrap();
        write(case, &image, folder.path());
        let set = SegmentationDataset::open(case["dataset"].as_str().unwrap(), folder.path(), None).unwrap();
        assert!(protocol.datasets.contains(&set.name.as_str()));
        let parts = protocol.parts(case["dataset"].as_str().unwrap());
        let model = model(logit_scale, 0).with_dense(parts.dense, &DenseFiles::default()).unwrap();
        let segmenter = parts.segmenter(model, &set).unwrap();

        let (apart, largest) = differences(&name, case, &segmenter.scores(&image));
        assert!(apart < 2e-5 * largest.max(0.05), "{name}: {apart:e}");

        let decision = DecisionSettings {
            threshold: parts.threshold,
            scale: parts.scale.unwrap_or(logit_scale),
            batch: 2,
            readers: 1,
            worst: 0,
        };
        agree(&name, case, &set, &segmenter, &decision);
    }
    seen.dedup();
    assert_eq!(
        seen,
        PROTOCOLS[..4].iter().map(|protocol| protocol.name).collect::<Vec<_>>(),
        "each has a reference; those of methods without training have theirs in baselines.rs"
    );
}

#[test]
fn resizing_is_pillows_to_the_last_bit() {
    for case in fixture()["pillow_resizing"].as_array().unwrap() {
        let size = |name: &str| numbers(&case[name]).into_iter().map(|side| side as u32).collect::<Vec<_>>();
        let (from, to) = (size("from"), size("to"));
        let found =
            pillow::resize(&photo(case["seed"].as_u64().unwrap() as u32, from[0], from[1]), to[0], to[1]);
        assert_eq!(found.dimensions(), (to[0], to[1]));
        let hash: String = Sha256::digest(found.as_raw()).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hash, case["sha256"].as_str().unwrap(), "{case}");
    }
}

#[test]
fn values_are_refused_where_tokens_were_trained_on() {
    assert!(model(10.0, 0).with_dense(Dense::Values, &DenseFiles::default()).is_ok());
    assert!(model(10.0, 1).with_dense(Dense::Tokens, &DenseFiles::default()).is_ok());
    let error = model(10.0, 1).with_dense(Dense::Values, &DenseFiles::default()).unwrap_err();
    assert!(
        error.is_wrong_use() && error.to_string().contains("the head behind its vision tower"),
        "{error}"
    );
    let error = model(10.0, 0).with_dense(Dense::Sclip, &DenseFiles::default()).unwrap_err();
    assert!(
        error.is_wrong_use() && error.to_string().contains("--dense sclip reads the vision tower of a CLIP"),
        "{error}"
    );
}
