//! Dense inference on a CLIP without training, and CLIP-DINOiser: compared with the authors' own code
//! (`tests/fixtures/dense/released.py`), and what does not fit together.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::{Path, PathBuf};

use serde_json::Value;
use tch::{Device, Kind, Tensor};
use trainer::device::Precision;
use trainer::inference::model::{ClipSettings, DenseFiles, Model};
use trainer::towers::{
    Activation, ClipShape, ClipVisionTower, Dense, TextShape, TextTower, VisionShape, VisionTower, unit,
};
use trainer::weights;

use crate::eval_command::{text, trainer};
use crate::wave::{fill, wave};

const WIDTH: i64 = 128;
const OUTPUT: i64 = 64;
const CLASSES: i64 = 5;
/// Both compute in float32; the similarities are cosines.
const TOLERANCE: f64 = 2e-5;

const ALL: [Dense; 9] = [
    Dense::Tokens,
    Dense::Values,
    Dense::Maskclip,
    Dense::Sclip,
    Dense::Naclip,
    Dense::Clearclip,
    Dense::Proxyclip,
    Dense::Gem,
    Dense::ClipDinoiser,
];

fn numbers(value: &Value) -> Tensor {
    Tensor::from_slice(&value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect::<Vec<_>>())
}

/// The same image as `photo` in released.py, 0 to 255: [1, height, width, 3].
fn photo(height: i64, width: i64) -> Tensor {
    let noise = Vec::<f64>::try_from(wave((height * width * 3) as usize, 1)).unwrap();
    let value = |i: i64| {
        let (y, x, channel) = (i / (3 * width), i / 3 % width, i % 3);
        let block = ((x / 24) * 53 + (y / 20) * 91 + channel * 37) % 200;
        block as f64 + (27.5 * (1.0 + noise[i as usize])).floor()
    };
    let values: Vec<f64> = (0..height * width * 3).map(value).collect();
    Tensor::from_slice(&values).view([1, height, width, 3]).to_kind(Kind::Float)
}

/// A CLIP of this depth for images of 64 pixels, filled by the formula.
fn clip(folder: &Path, depth: i64) -> PathBuf {
    let shape = ClipShape { width: WIDTH, depth, patch: 16, output: OUTPUT };
    let own = ClipVisionTower::random(shape, 4, Kind::Float, Device::Cpu).named();
    // In the script, they have no prefix.
    fill(&own);
    let text = TextShape { width: 64, depth: 1, heads: 1, context: 77 };
    let path = folder.join("clip.safetensors");
    let text = TextTower::random(text, OUTPUT, Device::Cpu).named();
    weights::write(&path, &own.into_iter().chain(text).collect::<Vec<_>>()).unwrap();
    path
}

/// A tower of DINO v1's structure with patches of 8 pixels, filled by the formula.
pub(crate) fn proxy(folder: &Path) -> PathBuf {
    let shape = VisionShape { width: 64, depth: 2, patch: 8, grid: 8 };
    let mut named = VisionTower::random(shape, Device::Cpu).named();
    named.retain(|(name, _)| !name.contains("gamma"));
    fill(&named);
    let path = folder.join("dino.safetensors");
    weights::write(&path, &named).unwrap();
    path
}

/// CLIP-DINOiser's convolutions for a tower of this width, filled by the formula, with this bias if there is one.
pub(crate) fn dinoiser(folder: &Path, width: i64, bias: &Value) -> PathBuf {
    let zeros = |size: &[i64]| Tensor::zeros(size, (Kind::Float, Device::Cpu));
    let named: Vec<(String, Tensor)> = [
        ("obj_proj.weight", zeros(&[32, width, 3, 3])),
        ("obj_proj.bias", zeros(&[32])),
        ("bkg_decoder.weight", zeros(&[1, width, 1, 1])),
        ("bkg_decoder.bias", zeros(&[1])),
    ]
    .map(|(name, tensor)| (name.to_owned(), tensor))
    .into();
    fill(&named);
    if bias.is_array() {
        named[1].1.shallow_clone().copy_(&numbers(bias));
    }
    let path = folder.join("dinoiser.safetensors");
    weights::write(&path, &named).unwrap();
    path
}

fn open(path: &Path, quick_gelu: bool) -> Model {
    let activation = if quick_gelu { Activation::QuickGelu } else { Activation::Gelu };
    let settings = ClipSettings { activation, vision_heads: Some(2), text_heads: Some(1) };
    Model::open_clip(path, settings, Precision::Float32, Device::Cpu).unwrap()
}

#[test]
fn patches_are_those_of_the_released_code() {
    let _turn = crate::random(21);
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/dense/released.json");
    let all: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let vectors = unit(&wave((CLASSES * OUTPUT) as usize, 3).view([CLASSES, OUTPUT]).to_kind(Kind::Float));
    let mut seen = Vec::new();
    for case in all["cases"].as_array().unwrap() {
        let dense = ALL.into_iter().find(|dense| dense.name() == case["method"]).unwrap();
        let files = DenseFiles {
            proxy: (dense == Dense::Proxyclip).then(|| proxy(folder.path())),
            dinoiser: (dense == Dense::ClipDinoiser).then(|| dinoiser(folder.path(), WIDTH, &case["bias"])),
        };
        let path = clip(folder.path(), case["depth"].as_i64().unwrap());
        let model = open(&path, case["quick_gelu"] == true).with_dense(dense, &files).unwrap();
        let pixels = photo(case["height"].as_i64().unwrap(), case["width"].as_i64().unwrap());
        let (features, foreground) = model.vision.read(&pixels);
        let found = unit(&features.patches).matmul(&vectors.transpose(0, 1)).view([-1]);
        let name = format!("{} {}: {} x {}", dense.name(), case["code"], case["height"], case["width"]);
        let close = |what: &str, found: &Tensor, expected: &Value| {
            let expected = numbers(expected);
            assert_eq!(found.size(), expected.size(), "{name}: {what}");
            let apart = (found.to_kind(Kind::Double) - expected).abs().max().double_value(&[]);
            eprintln!("{name}: {what}: the largest difference is {apart:.1e}");
            assert!(apart < TOLERANCE, "{name}: {what}: {apart:e}");
        };
        close("similarities", &found, &case["values"]);
        if let Some(foreground) = foreground {
            close("foreground", &foreground.view([-1]), &case["foreground"]);
        }
        seen.push(dense);
    }
    for dense in ALL.into_iter().filter(|dense| dense.needs_clip()) {
        assert!(seen.contains(&dense), "{dense:?} is compared");
    }
}

#[test]
fn maskclips_values_differ_from_values_in_positions_only() {
    let _turn = crate::random(22);
    let folder = tempfile::tempdir().unwrap();
    let path = clip(folder.path(), 2);
    let patches = |dense: Dense, side: i64| {
        let model = open(&path, false).with_dense(dense, &DenseFiles::default()).unwrap();
        model.vision.features(&photo(side, side)).patches
    };
    // At the size of the training no position is resized.
    assert_eq!(patches(Dense::Values, 64), patches(Dense::Maskclip, 64));
    assert_ne!(patches(Dense::Values, 32), patches(Dense::Maskclip, 32));
    assert_ne!(patches(Dense::Values, 64), patches(Dense::Tokens, 64));
}

#[test]
fn what_does_not_fit_is_refused_by_name() {
    let _turn = crate::random(23);
    let folder = tempfile::tempdir().unwrap();
    let (file, beside) = (clip(folder.path(), 2), proxy(folder.path()));
    let narrow = dinoiser(folder.path(), 64, &Value::Null);
    let error = |dense: Dense, proxy: Option<&PathBuf>, dinoiser: Option<&PathBuf>| {
        let files = DenseFiles { proxy: proxy.cloned(), dinoiser: dinoiser.cloned() };
        open(&file, false).with_dense(dense, &files).unwrap_err().to_string()
    };
    for (dense, proxy, dinoiser, words) in [
        (Dense::Proxyclip, None, None, "--dense proxyclip needs --proxy-weights FILE"),
        (Dense::ClipDinoiser, None, None, "--dense clip-dinoiser needs --dinoiser-weights FILE"),
        (
            Dense::Sclip,
            Some(&beside),
            None,
            "option --proxy-weights has an effect only with --dense proxyclip",
        ),
        (Dense::Tokens, None, Some(&narrow), "option --dinoiser-weights has an effect only with"),
        (Dense::Gem, None, None, "is gem, which reads the last 6 blocks, but the CLIP has 2"),
        (Dense::ClipDinoiser, None, Some(&narrow), "is 64 wide, but the CLIP is 128"),
        (Dense::ClipDinoiser, None, Some(&beside), "tensor obj_proj.weight is missing"),
        (Dense::Proxyclip, Some(&narrow), None, "state-dict keys are not those of"),
    ] {
        let found = error(dense, proxy, dinoiser);
        assert!(found.contains(words), "{dense:?}: {found}");
    }
    // Before anything is opened.
    let (code, printed) =
        trainer(&["eval", "segmentation", "--data", "gone", "--clip", text(&file), "--dense", "proxyclip"]);
    assert!(code == Some(2) && printed.contains("needs --proxy-weights FILE"), "{printed}");
}
