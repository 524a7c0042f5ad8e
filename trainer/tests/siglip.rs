//! Towers of SigLIP's structure, compared with timm and transformers (`tests/fixtures/towers/siglip.py`).

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::Path;

use serde_json::Value;
use tch::{Device, Kind, Tensor};
use trainer::data::frozen_tower;
use trainer::device::to_vec;
use trainer::settings::VisionSettings;
use trainer::towers::convert::convert;
use trainer::towers::{PositionResize, VisionFeatures, VisionTower};
use trainer::weights::{self, Family, Weights};

use crate::wave::{fill, tensors, wave};

/// Both sides compute in float32.
const TOLERANCE: f64 = 2e-5;

/// The cases: timm's, and Hugging Face's.
fn cases() -> [Value; 2] {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/towers/siglip.json");
    let fixture: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    serde_json::from_value(fixture["cases"].clone()).unwrap()
}

fn named(case: &Value) -> Vec<(String, Tensor)> {
    let named = tensors(case);
    fill(&named);
    named
}

fn read(path: &Path) -> VisionTower {
    VisionTower::read(path, None, Kind::Float, Device::Cpu).unwrap()
}

fn features(tower: &VisionTower, height: i64, width: i64) -> VisionFeatures {
    let pixels = wave((3 * height * width) as usize, 5).view([1, 3, height, width]);
    tch::no_grad(|| tower.forward(&pixels.to_kind(Kind::Float)))
}

/// Compares the outputs of a tower with those of a case, and returns the largest difference.
fn compare(tower: &VisionTower, case: &Value) -> f64 {
    let mut worst = 0.0_f64;
    for output in case["outputs"].as_array().unwrap() {
        let [height, width] = ["height", "width"].map(|side| output[side].as_i64().unwrap());
        let found = features(tower, height, width);
        assert_eq!(found.patches.size(), [1, height * width / 64, 128]);
        let patches = found.patches.get(0);
        let mean = patches.mean_dim([0i64].as_slice(), false, Kind::Float);
        for (what, found) in
            [("class", found.class.get(0)), ("patch_5", patches.get(5)), ("patch_mean", mean)]
        {
            let expected: Vec<f32> = serde_json::from_value(output[what].clone()).unwrap();
            let found = to_vec(&found.narrow(-1, 0, expected.len() as i64));
            let off = found.iter().zip(&expected).map(|(a, b)| f64::from((a - b).abs())).fold(0.0, f64::max);
            assert!(off < TOLERANCE, "{}, {height} x {width}, {what}: off by {off:e}", case["name"]);
            worst = worst.max(off);
        }
    }
    worst
}

#[test]
fn towers_without_a_class_token_are_timms_and_transformers() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tower.safetensors");
    let mut worst = 0.0_f64;
    for (case, resize) in cases().iter().zip([PositionResize::Timm, PositionResize::Huggingface]) {
        weights::write(&path, &named(case)).unwrap();
        let family = format!("{:?}", weights::family(&path).unwrap());
        assert_eq!(family.to_lowercase(), case["family"]);
        let tower = read(&path);
        assert_eq!((tower.family.name, tower.heads, tower.patch, tower.grid()), ("SigLIP", 2, 8, Some(4)));
        assert_eq!((tower.extra_tokens(), tower.position_resize()), (0, Some(resize)));
        worst = worst.max(compare(&tower, case));
    }
    eprintln!("towers without a class token differ by at most {worst:.1e}");
}

/// Files of whole models have the tower under a prefix, beside a text tower of another kind than ours.
#[test]
fn the_tower_of_a_whole_model_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let text = || Tensor::ones([256, 64], (Kind::Float, Device::Cpu));
    for (case, prefix, beside) in [
        (&cases()[0], "visual.trunk.", "text.token_embedding.weight"),
        (&cases()[1], "vision_model.", "text_model.embeddings.token_embedding.weight"),
    ] {
        let mut all: Vec<_> =
            named(case).into_iter().map(|(name, tensor)| (format!("{prefix}{name}"), tensor)).collect();
        all.push((beside.to_owned(), text()));
        all.push(("logit_bias".to_owned(), Tensor::from(-10.0f32)));
        weights::write(&path, &all).unwrap();
        compare(&read(&path), case);
        let error = Weights::read(&path, Device::Cpu).unwrap().into_text().unwrap_err().to_string();
        assert!(error.contains("contains no text tower"), "{error}");
    }
}

#[test]
fn towers_are_converted_from_one_library_to_the_other() {
    let folder = tempfile::tempdir().unwrap();
    let [from, there, back] = ["from", "there", "back"].map(|name| folder.path().join(name));
    let [timm, huggingface] = cases();
    for (case, first, second) in
        [(&timm, Family::Huggingface, Family::Timm), (&huggingface, Family::Timm, Family::Huggingface)]
    {
        weights::write(&from, &named(case)).unwrap();
        assert!(convert(&[from.clone()], first, &there).unwrap().left_out.is_empty());
        assert!(convert(&[there.clone()], second, &back).unwrap().left_out.is_empty());
        assert_eq!(std::fs::read(&from).unwrap(), std::fs::read(&back).unwrap());
        let error = convert(&[from.clone()], Family::Dinov2, &there).unwrap_err().to_string();
        assert!(error.contains("has no class token, as SigLIP"), "{error}");
    }
}

#[test]
fn settings_are_those_of_its_family() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tower.safetensors");
    weights::write(&path, &named(&cases()[0])).unwrap();
    let mut settings = VisionSettings { weights: path.clone(), ..VisionSettings::default() };
    let line = frozen_tower::settle(&mut settings, "vision.").unwrap();
    assert!(line.contains("position embedding resized as in timm"), "{line}");
    assert_eq!((settings.mean, settings.std), (Some([0.5; 3]), Some([0.5; 3])));
    let error = read(&path).with_denoiser(&path, Device::Cpu).unwrap_err().to_string();
    assert!(error.contains("the vision tower is of SigLIP"), "{error}");
    // As it computes on a GPU.
    let [full, half] = [Kind::Float, Kind::BFloat16].map(|kind| {
        let tower = VisionTower::read(&path, None, kind, Device::Cpu).unwrap();
        features(&tower, 48, 48).class.to_kind(Kind::Float)
    });
    let off = (half - full).abs().max().double_value(&[]);
    assert!(off > 0.0 && off < 0.1, "{off:e}");
}

#[test]
fn damaged_files_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tower.safetensors");
    let problem = |change: &dyn Fn(&mut Vec<(String, Tensor)>)| {
        let mut all = named(&cases()[0]);
        change(&mut all);
        weights::write(&path, &all).unwrap();
        VisionTower::read(&path, None, Kind::Float, Device::Cpu).unwrap_err().to_string()
    };
    let set = |name: &'static str, size: &'static [i64]| {
        move |all: &mut Vec<(String, Tensor)>| {
            all.retain(|(other, _)| other != name);
            all.push((name.to_owned(), Tensor::zeros(size, (Kind::Float, Device::Cpu))));
        }
    };
    for (change, expected) in [
        (set("pos_embed", &[1, 15, 128]), "pos_embed has the shape [1, 15, 128]; it must have [1, 16, 128]"),
        (set("pos_embed", &[1, 0, 128]), "it must have [1, side * side, 128]"),
        (set("attn_pool.kv.weight", &[128, 128]), "attn_pool.kv.weight has the shape [128, 128]"),
        (set("cls_token", &[1, 1, 128]), "unexpected tensor cls_token"),
    ] {
        let error = problem(&change);
        assert!(error.contains(expected), "{error}");
    }
}
