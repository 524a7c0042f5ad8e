//! The other vision towers of LiT's experiments, in the files of their authors: DINO v1, MoCo-v3 and AugReg, compared with timm
//! (`tests/fixtures/towers/lit.py`).

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::{Path, PathBuf};

use serde_json::Value;
use tch::{Device, Kind, Tensor};
use trainer::towers::convert::convert;
use trainer::towers::{PositionResize, VisionTower};
use trainer::weights::{self, Family};

use crate::wave::wave;

/// Both compute in float32.
const TOLERANCE: f64 = 1e-5;

fn fixture() -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/towers/lit.json");
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn file(case: &Value) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../tests/fixtures/towers/lit")
        .join(case["file"].as_str().unwrap())
}

/// Compares what a tower computes with the outputs of the fixture.
fn compare(name: &str, tower: &VisionTower, outputs: &Value) {
    for case in outputs.as_array().unwrap() {
        let [height, width] = ["height", "width"].map(|side| case[side].as_i64().unwrap());
        let pixels = wave((3 * height * width) as usize, 5).view([1, 3, height, width]).to_kind(Kind::Float);
        let features = tch::no_grad(|| tower.forward(&pixels));
        let mean = features.patches.mean_dim([1i64].as_slice(), false, Kind::Float);
        let fifth = features.patches.select(1, 5);
        for (what, found) in [("class", &features.class), ("patch_5", &fifth), ("patch_mean", &mean)] {
            let expected: Vec<f64> =
                case[what].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect();
            let found = found.view([-1]).narrow(0, 0, expected.len() as i64).to_kind(Kind::Double);
            let apart = (found - Tensor::from_slice(&expected)).abs().max().double_value(&[]);
            eprintln!("{name}, {height} x {width}, {what}: the largest difference is {apart:.1e}");
            assert!(apart < TOLERANCE, "{name}, {height} x {width}, {what}: {apart:e}");
        }
    }
}

#[test]
fn lits_towers_are_timms() {
    for case in fixture()["cases"].as_array().unwrap() {
        let path = file(case);
        let position: PositionResize = serde_json::from_value(case["position"].clone()).unwrap();
        let tower = VisionTower::read(&path, Some(position), Kind::Float, Device::Cpu).unwrap();
        compare(&path.display().to_string(), &tower, &case["outputs"]);
        let family = weights::family(&path).unwrap();
        assert_eq!(family.to_string().to_lowercase(), case["family"].as_str().unwrap());
        assert!((tower.family.normalization.mean[0] - case["mean"][0].as_f64().unwrap()).abs() < 1e-9);
    }
}

/// timm computes AugReg's towers with the exact GELU, Google's code with the tanh approximation.
#[test]
fn augregs_tower_in_timms_format_is_timms() {
    let all = fixture();
    let case = &all["cases"][2];
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("timm.safetensors");
    let converted = convert(&[file(case)], Family::Timm, &out).unwrap();
    assert_eq!(converted.left_out, ["head/bias", "head/kernel"]);
    let tower = VisionTower::read(&out, None, Kind::Float, Device::Cpu).unwrap();
    compare("in timm's format", &tower, &case["in_timm"]);
    let refused = convert(&[file(case)], Family::Dinov2, &out).unwrap_err().to_string();
    assert!(
        refused.contains("is a tower of AugReg, whose format is timm's, not that of DINOv2"),
        "{refused}"
    );
    let refused = convert(std::slice::from_ref(&out), Family::Augreg, &out).unwrap_err().to_string();
    assert!(refused.contains("AugReg, which is read only"), "{refused}");

    // A classifier of timm's own files is left out; what only resembles one is not.
    let mut named: Vec<(String, Tensor)> = weights::tensors(&out).unwrap().into_iter().collect();
    let zeros = |size: &[i64]| Tensor::zeros(size, (Kind::Float, Device::Cpu));
    named.extend([("head.weight".to_owned(), zeros(&[3, 64])), ("head.bias".to_owned(), zeros(&[3]))]);
    weights::write(&out, &named).unwrap();
    let tower = VisionTower::read(&out, None, Kind::Float, Device::Cpu).unwrap();
    compare("with timm's classifier", &tower, &case["in_timm"]);
    named.push(("head.2.weight".to_owned(), zeros(&[3, 64])));
    weights::write(&out, &named).unwrap();
    let error = VisionTower::read(&out, None, Kind::Float, Device::Cpu).unwrap_err().to_string();
    assert!(error.contains("unexpected tensor head.2.weight"), "{error}");
}

#[test]
fn arrays_that_are_missing_or_damaged_are_named() {
    let path = file(&fixture()["cases"][2]);
    let folder = tempfile::tempdir().unwrap();
    let bytes = std::fs::read(&path).unwrap();
    let cut = folder.path().join("cut.npz");
    std::fs::write(&cut, &bytes[..bytes.len() / 2]).unwrap();
    let error = weights::tensors(&cut).unwrap_err().to_string();
    assert!(error.contains("cut.npz"), "{error}");
    // Another name of the same length for one of the arrays, in its header and in the directory.
    let name = b"Transformer/encoderblock_1/MlpBlock_3/Dense_0/bias.npy";
    let mut renamed = bytes;
    let places: Vec<usize> =
        (0..renamed.len() - name.len()).filter(|&at| renamed[at..].starts_with(name)).collect();
    assert_eq!(places.len(), 2);
    for at in places {
        renamed[at + name.len() - 5] = b'z';
    }
    let other = folder.path().join("renamed.npz");
    std::fs::write(&other, renamed).unwrap();
    let error = VisionTower::read(&other, None, Kind::Float, Device::Cpu).unwrap_err().to_string();
    assert!(error.contains("tensor blocks.1.mlp.fc1.bias is missing"), "{error}");
}
