//! Towers whose attention heads are not 64 wide, compared with open_clip and timm (`tests/fixtures/heads/make.py`).

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::Path;
use std::process::Command;

use serde_json::Value;
use tch::{Device, Kind, Tensor};
use trainer::device::Precision;
use trainer::inference::model::{ClipSettings, Model, Vision};
use trainer::towers::{CaptionTokens, PositionResize, VisionTower};
use trainer::weights;

/// Both sides compute in float32; the largest values are about 7.
const TOLERANCE: f64 = 1e-4;

fn cases() -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/heads/cases.json");
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// The same numbers as `draws` in make.py.
fn draws(count: i64, seed: u64) -> Tensor {
    let number = |i: u64| {
        let low = |x: u64| x & 0xFFFF_FFFF;
        let x = low((i + seed * 1_000_003).wrapping_mul(0x9E37_79B1));
        let x = low((x ^ (x >> 15)) * 0x85EB_CA77);
        let x = low((x ^ (x >> 13)) * 0xC2B2_AE3D);
        (x ^ (x >> 16)) as f64 / 2_147_483_648.0 - 1.0
    };
    Tensor::from_slice(&(0..count as u64).map(number).collect::<Vec<f64>>())
}

/// The same rule as `fill` in make.py.
fn fill(named: &[(String, Tensor)]) {
    let mut sorted: Vec<_> = named.iter().collect();
    sorted.sort_by(|a, b| a.0.cmp(&b.0));
    for (index, (name, tensor)) in (0..).zip(sorted) {
        let size = tensor.size();
        let values = draws(tensor.numel() as i64, index).view(size.as_slice());
        let values = if size.len() > 1 {
            let fan_in: i64 = size[1..].iter().product();
            if size[0] > 1 { values * 2.0 / (fan_in as f64).sqrt() } else { values }
        } else if name.ends_with("gamma") || name.ends_with("weight") {
            values * 0.3 + 1.0
        } else {
            values * 0.1
        };
        tensor.shallow_clone().copy_(&values.to_kind(Kind::Float));
    }
}

/// A file with the keys and shapes of the case, filled by the formula.
fn write(case: &Value, path: &Path) {
    let named = crate::wave::tensors(case);
    fill(&named);
    weights::write(path, &named).unwrap();
}

/// The largest difference from the numbers of the fixture.
fn apart(found: &Tensor, expected: &Value) -> f64 {
    let expected: Vec<f64> = expected.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect();
    assert_eq!(found.numel(), expected.len());
    (found.reshape([-1]).to_kind(Kind::Double) - Tensor::from_slice(&expected)).abs().max().double_value(&[])
}

/// Embeddings of the images and captions of a case.
fn embedded(case: &Value, path: &Path, clip: ClipSettings) -> Result<(Tensor, Tensor), trainer::Error> {
    let model = Model::open_clip(path, clip, Precision::Float32, Device::Cpu)?;
    let size = case["size"].as_i64().unwrap();
    let pixels = draws(2 * 3 * size * size, 99).view([2, 3, size, size]).to_kind(Kind::Float);
    let Vision::Clip(vision) = &model.vision else { panic!("a CLIP") };
    let ids: Vec<Vec<i64>> = serde_json::from_value(case["ids"].clone()).unwrap();
    let tokens = CaptionTokens::new(&ids.concat(), 16, Device::Cpu);
    Ok(tch::no_grad(|| {
        let captions = model.text.captions(&model.text.tokens(&tokens, Kind::Float), &tokens.end);
        (vision.tower.forward(&pixels).class, captions)
    }))
}

#[test]
fn clips_with_heads_of_any_width_are_open_clips() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("clip.safetensors");
    for case in cases()["clip"].as_array().unwrap() {
        let name = case["name"].as_str().unwrap();
        write(case, &path);
        let (vision_heads, text_heads) = (case["vision_heads"].as_i64(), case["text_heads"].as_i64());
        let given = ClipSettings { vision_heads, text_heads, ..ClipSettings::default() };
        let (images, captions) = embedded(case, &path, given).unwrap();
        assert!(apart(&images, &case["images"]) < TOLERANCE, "{name}: {}", apart(&images, &case["images"]));
        let off = apart(&captions, &case["captions"]);
        assert!(off < TOLERANCE, "{name}: {off:e}");
        // The numbers depend on the heads.
        let other = ClipSettings {
            vision_heads: vision_heads.map(|heads| 2 * heads),
            text_heads: text_heads.map(|heads| heads / 2),
            ..given
        };
        let (images, captions) = embedded(case, &path, other).unwrap();
        assert!(apart(&images, &case["images"]) > 50.0 * TOLERANCE, "{name}");
        assert!(apart(&captions, &case["captions"]) > 50.0 * TOLERANCE, "{name}");

        let open =
            |clip| embedded(case, &path, clip).map_err(|error| (error.is_wrong_use(), error.to_string()));
        let vision_given = ClipSettings { vision_heads, ..ClipSettings::default() };
        if name == "of ViT-H's width" {
            // Published CLIPs have these widths.
            let (images, captions) = open(ClipSettings::default()).unwrap();
            assert!(apart(&images, &case["images"]) < TOLERANCE);
            assert!(apart(&captions, &case["captions"]) < TOLERANCE);
            continue;
        }
        for (clip, part) in [
            (
                vision_given,
                "text tower does not follow from its tensors, and no published model is 128 wide; add --text-heads N",
            ),
            (
                ClipSettings { text_heads, ..ClipSettings::default() },
                "add --vision-heads N (vision_cfg.width / vision_cfg.head_width",
            ),
            (
                ClipSettings { text_heads: Some(3), ..vision_given },
                "option `--text-heads` is 3; it must divide the width",
            ),
            (
                ClipSettings { vision_heads: Some(0), text_heads, ..given },
                "option `--vision-heads` is 0; it must divide",
            ),
        ] {
            let (wrong_use, message) = open(clip).unwrap_err();
            assert!(wrong_use && message.contains(part), "{name}: {message}");
        }
    }
}

#[test]
fn a_frozen_tower_of_vit_hs_width_has_16_heads() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tower.safetensors");
    let case = &cases()["timm_tower"];
    write(case, &path);
    let tower = VisionTower::read(&path, None, Kind::Float, Device::Cpu).unwrap();
    assert_eq!((tower.heads, tower.position_resize()), (16, Some(PositionResize::Timm)));
    let (height, width) = (case["height"].as_i64().unwrap(), case["width"].as_i64().unwrap());
    let pixels = draws(2 * 3 * height * width, 99).view([2, 3, height, width]).to_kind(Kind::Float);
    let features = tch::no_grad(|| tower.forward(&pixels));
    assert!(apart(&features.class.narrow(-1, 0, 16), &case["class"]) < TOLERANCE);
    assert!(apart(&features.patches.narrow(-1, 0, 16), &case["patches"]) < TOLERANCE);
}

#[test]
fn embed_asks_for_the_heads_of_a_text_tower() {
    let folder = tempfile::tempdir().unwrap();
    let cases = cases();
    let case = &cases["clip"][0];
    write(case, &folder.path().join("clip"));
    let mut named = weights::tensors(&folder.path().join("clip")).unwrap();
    named.retain(|name, _| !name.starts_with("visual."));
    weights::write(&folder.path().join("text"), &named.into_iter().collect::<Vec<_>>()).unwrap();
    let embed = |more: &[&str]| {
        let arguments =
            ["embed", "--device", "cpu", "--text-tower", "text", "--text", "grass", "--out", "out"];
        let output = Command::new(env!("CARGO_BIN_EXE_trainer"))
            .args([&arguments[..], more].concat())
            .current_dir(folder.path())
            .output()
            .unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, message) = embed(&[]);
    assert!(code == Some(2) && message.contains("add --heads N (text_cfg.heads"), "{message}");
    let (code, message) = embed(&["--heads", "4"]);
    assert_eq!(code, Some(0), "{message}");
    let found = &weights::tensors(&folder.path().join("out")).unwrap()["captions"];
    let expected = Value::from(case["captions"].as_array().unwrap()[2 * 48..].to_vec());
    assert!(apart(found, &expected) < TOLERANCE);
}
