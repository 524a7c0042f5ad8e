//! Both towers against timm and open_clip, with narrow towers whose weights follow from a formula
//! (`tests/fixtures/towers/make.py`).

#![allow(clippy::unwrap_used, clippy::expect_used)]

use serde_json::Value;
use tch::{Device, Kind, Tensor};
use trainer::towers::{CaptionTokens, PositionResize, TextShape, TextTower, VisionShape, VisionTower};
use trainer::weights;

/// Both sides compute in float32.
const TOLERANCE: f64 = 2e-5;

fn cases() -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/towers/cases.json");
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// The same numbers as `wave` in make.py.
fn wave(count: usize, phase: usize) -> Tensor {
    let values: Vec<f64> =
        (0..count).map(|i| (i as f64 * 1.7 + phase as f64 * 0.9 + (i % 7) as f64).sin()).collect();
    Tensor::from_slice(&values)
}

/// The same rule as `fill` in make.py.
fn fill(mut named: Vec<(String, Tensor)>) {
    named.sort_by(|a, b| a.0.cmp(&b.0));
    for (index, (name, tensor)) in named.iter().enumerate() {
        let size = tensor.size();
        let values = wave(tensor.numel(), index).view(size.as_slice());
        let values = if size.len() > 1 {
            let fan_in: i64 = size[1..].iter().product();
            if size[0] > 1 { values / (fan_in as f64).sqrt() } else { values }
        } else if name.ends_with("gamma") || name.ends_with("weight") {
            values * 0.3 + 1.0
        } else {
            values * 0.1
        };
        tch::no_grad(|| tensor.shallow_clone().copy_(&values.to_kind(Kind::Float)));
    }
}

fn close(name: &str, found: &Tensor, expected: &Value) {
    let expected: Vec<f64> = expected.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect();
    assert_eq!(found.numel(), expected.len(), "{name}: size");
    let error = (found.reshape([-1]).to_kind(Kind::Double) - Tensor::from_slice(&expected)).abs().max();
    assert!(error.double_value(&[]) < TOLERANCE, "{name}: off by {:e}", error.double_value(&[]));
}

#[test]
fn the_vision_tower_is_timms() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tower.safetensors");
    let shape = VisionShape { width: 64, depth: 2, patch: 8, grid: 4 };
    let tower = VisionTower::random(shape, Device::Cpu);
    fill(tower.named());
    weights::write(&path, &tower.named()).unwrap();
    let tower = VisionTower::read(&path, PositionResize::Timm, Kind::Float, Device::Cpu).unwrap();
    for case in cases()["vision"].as_array().unwrap() {
        let size = case["size"].as_i64().unwrap();
        let pixels = wave((2 * 3 * size * size) as usize, 5).view([2, 3, size, size]);
        let features = tch::no_grad(|| tower.forward(&pixels.to_kind(Kind::Float)));
        assert_eq!(features.patches.size(), [2, case["patches"].as_i64().unwrap(), 64]);
        close(&format!("{size} px, class"), &features.class, &case["class"]);
        close(&format!("{size} px, patch 5"), &features.patches.select(1, 5), &case["patch_5"]);
        let mean = features.patches.mean_dim([1i64].as_slice(), false, Kind::Float);
        close(&format!("{size} px, mean"), &mean, &case["patch_mean"]);
    }
}

#[test]
fn the_text_tower_is_open_clips() {
    let shape = TextShape { width: 64, depth: 2, heads: 2, context: 32 };
    let tower = TextTower::random(shape, 48, Device::Cpu);
    fill(tower.named().into_iter().filter(|(name, _)| name != "logit_scale").collect());
    let case = &cases()["text"];
    let tokenizer = concepts::bpe::Tokenizer::clip();
    let mut ids = Vec::new();
    for (caption, expected) in
        case["captions"].as_array().unwrap().iter().zip(case["ids"].as_array().unwrap())
    {
        let canonical = concepts::canonical(caption.as_str().unwrap());
        let found: Vec<i64> = tokenizer.encode(&canonical, 32).ids.into_iter().map(i64::from).collect();
        let expected: Vec<i64> = expected.as_array().unwrap().iter().map(|v| v.as_i64().unwrap()).collect();
        assert_eq!(found, expected, "{caption}");
        ids.extend(found);
    }
    let tokens = CaptionTokens::new(&ids, 32, Device::Cpu);
    assert!(tokens.ids.size()[1] < 32, "cut to the longest caption");
    let embedded = tch::no_grad(|| tower.captions(&tower.tokens(&tokens.ids, Kind::Float), &tokens.end));
    close("captions", &embedded, &case["embeddings"]);
}

#[test]
fn weights_that_do_not_fit_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tower.safetensors");
    let tower = VisionTower::random(VisionShape { width: 64, depth: 1, patch: 8, grid: 2 }, Device::Cpu);
    let refused = |named: Vec<(String, Tensor)>| {
        weights::write(&path, &named).unwrap();
        let read = VisionTower::read(&path, PositionResize::Dinov2, Kind::Float, Device::Cpu);
        read.unwrap_err().to_string()
    };
    let without = |name: &str| tower.named().into_iter().filter(|(n, _)| n != name).collect::<Vec<_>>();
    assert!(refused(without("blocks.0.mlp.fc1.bias")).contains("blocks.0.mlp.fc1.bias is missing"));
    let mut misshapen = without("norm.bias");
    misshapen.push(("norm.bias".to_owned(), Tensor::zeros([63], (Kind::Float, Device::Cpu))));
    assert!(refused(misshapen).contains("norm.bias is [63] and must be [64]"));
    let mut extra = tower.named();
    extra.push(("head.weight".to_owned(), Tensor::zeros([3], (Kind::Float, Device::Cpu))));
    assert!(refused(extra).contains("head.weight belongs to no part"));
    std::fs::write(&path, b"not safetensors").unwrap();
    let read = VisionTower::read(&path, PositionResize::Dinov2, Kind::Float, Device::Cpu);
    assert!(read.unwrap_err().to_string().contains("tower.safetensors"));
}
