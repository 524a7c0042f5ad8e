//! Towers of DINOv3 and EUPE, compared with timm and transformers (`tests/fixtures/towers/dinov3.py`) and, where a file of weights is
//! given, with the values that transformers publishes; and of TIPSv2.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tch::{Device, Kind, Tensor};
use trainer::data::{frozen_tower, read_image};
use trainer::device::to_vec;
use trainer::export;
use trainer::settings::VisionSettings;
use trainer::towers::convert::convert;
use trainer::towers::{
    Embedding, Normalization, PositionResize, RopePeriods, TextShape, TextTower, VisionHead, VisionTower,
};
use trainer::weights::{self, Family};

use crate::wave::{fill, tensors, wave};

/// Tensors by name.
type Tensors = Vec<(String, Tensor)>;

/// Both sides compute in float32.
const TOLERANCE: f64 = 2e-5;

fn cases() -> Vec<Value> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/towers/dinov3.json");
    let fixture: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    fixture["cases"].as_array().unwrap().clone()
}

/// The tensors of a file with the keys and shapes of a case: filled by the formula, LayerScale about 1, and the buffers of DINOv3's
/// own code.
fn named(case: &Value) -> Tensors {
    let mut named = tensors(case);
    fill(&named);
    for (name, tensor) in &named {
        if name.contains("gamma_") || name.ends_with("lambda1") {
            let _ = tensor.shallow_clone().g_add_scalar_(1.0);
        }
    }
    if let Some(periods) = case.get("periods") {
        let periods: Vec<f32> = serde_json::from_value(periods.clone()).unwrap();
        named.push(("rope_embed.periods".to_owned(), Tensor::from_slice(&periods)));
        for mask in case["masked"].as_array().unwrap() {
            let mask = mask.as_str().unwrap().to_owned();
            let bias = mask.strip_suffix("_mask").unwrap();
            let third = named.iter().find(|(name, _)| name == bias).unwrap().1.numel() as i64 / 3;
            let ones = Tensor::ones([3 * third], (Kind::Float, Device::Cpu));
            let _ = ones.narrow(0, third, third).zero_();
            named.push((mask, ones));
        }
    }
    named
}

/// The file of a case in `folder`.
fn written(case: &Value, folder: &Path) -> PathBuf {
    let path = folder.join("tower.safetensors");
    weights::write(&path, &named(case)).unwrap();
    path
}

fn case(name: &str) -> Value {
    cases().into_iter().find(|case| case["name"] == name).unwrap()
}

fn read(path: &Path) -> VisionTower {
    VisionTower::read(path, None, Kind::Float, Device::Cpu).unwrap()
}

/// The largest difference of the first numbers.
fn apart(found: &Tensor, expected: &Value) -> f64 {
    let expected: Vec<f32> = serde_json::from_value(expected.clone()).unwrap();
    let found = to_vec(&found.narrow(-1, 0, expected.len() as i64));
    found.iter().zip(&expected).map(|(a, b)| f64::from((a - b).abs())).fold(0.0, f64::max)
}

#[test]
fn towers_are_timms_and_transformers() {
    let folder = tempfile::tempdir().unwrap();
    let cases = cases();
    assert_eq!(cases.len(), 7);
    let mut worst = 0.0_f64;
    for case in &cases {
        let path = written(case, folder.path());
        let name = case["name"].as_str().unwrap();
        let family = weights::family(&path).unwrap();
        assert_eq!(format!("{family:?}").to_lowercase(), case["family"], "{name}");
        let tower = read(&path);
        assert_eq!((tower.patch, tower.extra_tokens()), (16, 5), "{name}");
        assert_eq!((tower.position_resize(), tower.heads), (None, tower.width / 64), "{name}");
        assert_eq!(case["outputs"].as_array().unwrap().len(), 4);
        for output in case["outputs"].as_array().unwrap() {
            let [height, width] = ["height", "width"].map(|side| output[side].as_i64().unwrap());
            let pixels = wave((3 * height * width) as usize, 5).view([1, 3, height, width]);
            let features = tch::no_grad(|| tower.forward(&pixels.to_kind(Kind::Float)));
            assert_eq!(features.patches.size(), [1, height * width / 256, tower.width], "{name}");
            let patches = features.patches.get(0);
            let mean = patches.mean_dim([0i64].as_slice(), false, Kind::Float);
            for (what, found) in
                [("class", features.class.get(0)), ("patch_5", patches.get(5)), ("patch_mean", mean)]
            {
                let off = apart(&found, &output[what]);
                assert!(off < TOLERANCE, "{name}, {height} x {width}, {what}: off by {off:e}");
                worst = worst.max(off);
            }
        }
    }
    eprintln!("towers with rotary positions differ by at most {worst:.1e}");
}

#[test]
fn periods_are_those_of_the_file_unless_exact_ones_are_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let pixels = wave(3 * 64 * 96, 5).view([1, 3, 64, 96]).to_kind(Kind::Float);
    for (name, stored) in [("DINOv3", true), ("timm", false)] {
        let path = written(&case(name), folder.path());
        let settings = |rope_periods| VisionSettings {
            weights: path.clone(),
            rope_periods,
            ..VisionSettings::default()
        };
        let [file, exact] = [RopePeriods::File, RopePeriods::Exact].map(|periods| {
            let vision = frozen_tower::open(&settings(periods), Kind::Float, Device::Cpu).unwrap();
            tch::no_grad(|| vision.tower.forward(&pixels).patches)
        });
        let changed = (file - exact).abs().max().double_value(&[]);
        assert_eq!(changed > 1e-4, stored, "{name}: {changed:e}");
        let mut settled = settings(RopePeriods::File);
        let line = frozen_tower::settle(&mut settled, "vision.").unwrap();
        let words = if stored { "with the periods of the file" } else { "because the file holds none" };
        assert!(line.contains(words), "{line}");
        assert_eq!((settled.position, settled.mean), (None, Some(Normalization::IMAGENET.mean)));
    }
}

/// As it does on a GPU; the numbers are up to about 3.
#[test]
fn a_tower_computes_in_bfloat16_too() {
    let folder = tempfile::tempdir().unwrap();
    let tower = read(&written(&case("DINOv3, gated"), folder.path()));
    let pixels = wave(3 * 64 * 96, 5).view([1, 3, 64, 96]).to_kind(Kind::Float);
    let full = tch::no_grad(|| tower.forward(&pixels).patches);
    let half = tch::no_grad(|| tower.computing_in(Kind::BFloat16).unwrap().forward(&pixels).patches);
    let off = (half.to_kind(Kind::Float) - &full).abs().max().double_value(&[]);
    assert!(off > 0.0 && off < 0.15, "{off:e}");
}

#[test]
fn state_dict_keys_are_converted_there_and_back() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    for (name, own, other) in [
        ("timm", Family::Timm, Family::Huggingface),
        ("timm", Family::Timm, Family::Dinov3),
        ("timm, gated, without bias", Family::Timm, Family::Dinov3),
        ("DINOv3ViTModel", Family::Huggingface, Family::Dinov3),
        ("DINOv3ViTModel, gated", Family::Huggingface, Family::Dinov3),
        ("DINOv3", Family::Dinov3, Family::Huggingface),
        ("EUPE-T", Family::Dinov3, Family::Timm),
    ] {
        let source = written(&case(name), folder.path());
        let there = convert(std::slice::from_ref(&source), other, &at("there")).unwrap();
        let back = convert(&[at("there")], own, &at("back")).unwrap();
        assert!(back.left_out.is_empty(), "{name}: {:?}", back.left_out);
        let [from, to] = [&source, &at("back")].map(|path| weights::tensors(path).unwrap());
        for (key, tensor) in &to {
            let expected = &from[key];
            let third = expected.size()[0] / 3;
            let same =
                |at: i64| tensor.narrow(0, at * third, third).equal(&expected.narrow(0, at * third, third));
            if key.ends_with("attn.qkv.bias") {
                // The mask makes the bias of the keys zero.
                assert!(same(0) && same(2), "{name}: {key}");
            } else {
                assert!(tensor.equal(expected), "{name}: {key}");
            }
        }
        // What the other format does not have is reported, and does not come back.
        let lost: Vec<&String> = from.keys().filter(|key| !to.contains_key(*key)).collect();
        assert_eq!(lost.len(), there.left_out.len(), "{name}: {lost:?}, {:?}", there.left_out);
        let own_alone = |key: &String| {
            ["periods", "bias_mask", "mask_token"].iter().any(|end| key.ends_with(end))
                || key.starts_with("local_cls_norm.")
                || key.starts_with("projectors.")
        };
        assert!(lost.into_iter().all(own_alone), "{name}");
    }
    for (name, to, message) in [
        ("timm", Family::Dinov2, "has rotary positions, as DINOv3; the format of DINOv2 has none"),
        ("timm", Family::Simzss, "has rotary positions"),
    ] {
        let source = written(&case(name), folder.path());
        let error = convert(&[source], to, &at("refused")).unwrap_err().to_string();
        assert!(error.contains(message) && !at("refused").exists(), "{error}");
    }
}

#[test]
fn files_that_do_not_fit_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tower.safetensors");
    let refused = |change: &dyn Fn(&mut Tensors)| {
        let mut named = named(&case("DINOv3"));
        change(&mut named);
        weights::write(&path, &named).unwrap();
        VisionTower::read(&path, None, Kind::Float, Device::Cpu).unwrap_err().to_string()
    };
    let set = |named: &mut Tensors, name: &str, tensor: Tensor| {
        named.retain(|(other, _)| other != name);
        named.push((name.to_owned(), tensor));
    };
    let error = refused(&|named| set(named, "rope_embed.periods", Tensor::from_slice(&[1.0_f32; 8])));
    assert!(error.contains("rope_embed.periods has the shape [8]; heads of width 64 have [16]"), "{error}");
    let zero = Tensor::zeros([16], (Kind::Float, Device::Cpu));
    let error = refused(&|named| set(named, "rope_embed.periods", zero.copy()));
    assert!(error.contains("rope_embed.periods has values that are not positive"), "{error}");
    let mask = "blocks.1.attn.qkv.bias_mask";
    let error = refused(&|named| set(named, mask, Tensor::full([384], 0.5, (Kind::Float, Device::Cpu))));
    assert!(error.contains(mask) && error.contains("other than 0 and 1"), "{error}");
    let error = refused(&|named| set(named, "cls_norm.weight", Tensor::from_slice(&[1.0_f32])));
    assert!(error.contains("unexpected tensor cls_norm.weight"), "{error}");
    let error = refused(&|named| named.retain(|(name, _)| name != "norm.bias"));
    assert!(error.contains("norm.bias is missing"), "{error}");

    // Settings of learned positions.
    weights::write(&path, &named(&case("DINOv3"))).unwrap();
    let settings = VisionSettings { weights: path.clone(), ..VisionSettings::default() };
    let mut positioned = VisionSettings { position: Some(PositionResize::Timm), ..settings.clone() };
    let error = frozen_tower::settle(&mut positioned, "vision.").unwrap_err();
    assert!(error.is_wrong_use() && error.to_string().contains("`vision.position` is timm, but"), "{error}");
    let denoised = VisionSettings { denoiser: Some("denoiser.pth".into()), ..settings };
    let error = frozen_tower::open(&denoised, Kind::Float, Device::Cpu).unwrap_err().to_string();
    assert!(error.contains("denoiser.pth") && error.contains("towers such as DINOv2's"), "{error}");
}

/// Images of TIPSv2 are not normalized; the register is by what it is known.
#[test]
fn the_normalization_is_that_of_the_family() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tower.safetensors");
    let shape = trainer::towers::VisionShape { width: 64, depth: 1, patch: 14, grid: 4 };
    let opened = |registers: i64, mean: Option<[f64; 3]>| {
        let tower = VisionTower::random(shape, Device::Cpu);
        fill(&tower.named());
        let mut named = tower.named();
        if registers > 0 {
            let tokens = Tensor::zeros([1, registers, 64], (Kind::Float, Device::Cpu));
            named.push(("register_tokens".to_owned(), tokens));
        }
        weights::write(&path, &named).unwrap();
        let mut settings = VisionSettings { weights: path.clone(), mean, ..VisionSettings::default() };
        frozen_tower::settle(&mut settings, "vision.").unwrap();
        let vision = frozen_tower::open(&settings, Kind::Float, Device::Cpu).unwrap();
        let pixels = Tensor::full([1, 14, 14, 3], 51, (Kind::Uint8, Device::Cpu));
        (vision.tower.family.name, vision.normalise(&pixels).double_value(&[0, 0, 0, 0]), settings.std)
    };
    let close = |a: f64, b: f64| (a - b).abs() < 1e-6;
    for registers in [0, 4] {
        let (name, value, std) = opened(registers, None);
        assert_eq!((name, std), ("DINOv2", Some(Normalization::IMAGENET.std)));
        assert!(close(value, (0.2 - 0.485) / 0.229), "{value}");
    }
    let (name, value, std) = opened(1, None);
    assert!(name == "TIPSv2" && close(value, 0.2) && std == Some([1.0; 3]), "{name} {value}");
    let (_, value, _) = opened(1, Some([0.5; 3]));
    assert!(close(value, -0.3), "{value}");
}

/// As `trainer/tests/export.rs` for DINOv2.
#[test]
fn an_export_is_loaded_by_timm() {
    let Ok(python) = std::env::var("TRAINER_PYTHON") else {
        println!("skipped: TRAINER_PYTHON is not set to a Python with open_clip_torch, timm and safetensors");
        return;
    };
    let _turn = crate::random(6);
    let folder = tempfile::tempdir().unwrap();
    for case in cases() {
        let vision = read(&written(&case, folder.path()));
        let shape = TextShape { width: 64, depth: 1, heads: 1, context: 16 };
        let text = TextTower::random(shape, 2 * vision.width, Device::Cpu);
        // What is trained behind it is exported, too.
        let head = VisionHead::random(2, Embedding::ClassMean, vision.width, Device::Cpu);
        tch::no_grad(|| fill(&head.named()));
        let out = folder.path().join("export");
        export::towers(&vision, &head, &text, &VisionSettings::default(), &json!({}), &out).unwrap();
        let script = r"
import json, torch
exec(open('load.py').read().replace('Path(__file__).parent', 'Path(\'.\')'))
pixels = torch.sin(torch.arange(3 * 64 * 96, dtype=torch.float64)).float().view(1, 3, 64, 96)
with torch.no_grad():
    features = vision.forward_features(pixels)[0, vision.num_prefix_tokens:]
    embedding, patches = image_features(pixels)
print(json.dumps([x.flatten().tolist() for x in (features, embedding, patches)]))";
        let output =
            std::process::Command::new(&python).args(["-c", script]).current_dir(&out).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let theirs: Value = serde_json::from_slice(&output.stdout).unwrap();
        let pixels = Tensor::arange(3 * 64 * 96, (Kind::Double, Device::Cpu)).sin().to_kind(Kind::Float);
        let frozen = tch::no_grad(|| vision.forward(&pixels.view([1, 3, 64, 96])));
        let seen = head.features(&frozen);
        for (ours, theirs) in
            [&frozen.patches, &seen.class, &seen.patches].into_iter().zip(theirs.as_array().unwrap())
        {
            let off = apart(&ours.reshape([-1]), theirs);
            assert!(off < 1e-4, "{}: off by {off:e}", case["name"]);
        }
    }
}

/// The first values of class and first patch token for an image of COCO, as transformers' conversion script checks them.
const PUBLISHED: [(i64, bool, [f64; 5], [f64; 5]); 5] = [
    (
        384,
        false,
        [0.463_561_8, -0.415_609_4, 0.408_236_9, -0.126_613_4, -0.286_636_9],
        [-0.038_754_2, -0.250_895_4, -0.016_392_9, -0.455_473_6, 0.571_582_2],
    ),
    (
        384,
        true,
        [-0.471_349_4, -1.365_778_9, -0.317_983_2, 0.377_219_4, -0.769_085_7],
        [0.144_551_9, -0.388_117_5, -0.393_434_0, -0.157_695_5, -0.600_380_1],
    ),
    (
        768,
        false,
        [1.034_643_2, -0.180_609_3, -0.341_018_3, -0.066_377_0, -0.011_384_0],
        [-0.082_523_7, -0.456_272_8, -0.728_030_0, -0.430_680_2, -0.152_880_2],
    ),
    (
        1024,
        false,
        [0.484_527_1, -0.582_214_7, 0.480_636_1, 0.592_040_4, 0.945_166_5],
        [-0.211_367_4, -0.490_863_6, -0.257_131_5, 0.101_763_9, 0.154_511_2],
    ),
    (
        1280,
        true,
        [-0.064_575_9, -0.148_866_8, -0.621_524_4, 0.634_878_8, 0.152_695_7],
        [-0.093_817_4, 0.287_407_2, -0.050_036_9, 0.428_043_2, 0.094_561_8],
    ),
];

/// `DINOV3_WEIGHTS`: a published file of S, S+, B, L or H+ for LVD-1689M; `COCO_IMAGE`: 000000039769.jpg of COCO val2017.
#[test]
fn published_weights_give_the_published_values() {
    let given = |name: &str| std::env::var(name).ok().map(PathBuf::from);
    let (Some(path), Some(image)) = (given("DINOV3_WEIGHTS"), given("COCO_IMAGE")) else {
        println!(
            "skipped: DINOV3_WEIGHTS is not set to a file of DINOv3's, or COCO_IMAGE not to 000000039769.jpg"
        );
        return;
    };
    let tower = read(&path);
    let gated = tower.named().iter().any(|(name, _)| name == "blocks.0.mlp.w1.weight");
    let (_, _, class, patch) = PUBLISHED
        .iter()
        .find(|(width, with_gate, ..)| (*width, *with_gate) == (tower.width, gated))
        .expect("a tower of which values are published");
    let picture = read_image(&image).unwrap();
    let (width, height) = (i64::from(picture.width()), i64::from(picture.height()));
    let pixels = Tensor::from_slice(picture.as_raw()).view([1, height, width, 3]).permute([0, 3, 1, 2]);
    let pixels = pixels.to_kind(Kind::Float) / 255.0;
    let pixels = pixels.internal_upsample_bilinear2d_aa([224, 224], false, None, None);
    let channels = |values: [f64; 3]| Tensor::from_slice(&values).to_kind(Kind::Float).view([1, 3, 1, 1]);
    let Normalization { mean, std } = Normalization::IMAGENET;
    let features = tch::no_grad(|| tower.forward(&((pixels - channels(mean)) / channels(std))));
    for (what, found, expected) in
        [("class", features.class.get(0), class), ("first patch", features.patches.get(0).get(0), patch)]
    {
        let off = apart(&found, &json!(expected));
        eprintln!("{what}: off by {off:.1e}");
        assert!(off < 1e-4, "{what}: off by {off:e}");
    }
}
