//! Compares both towers with timm, transformers and open_clip, with narrow towers whose weights follow from a formula
//! (`tests/fixtures/towers/make.py`).

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;

use crate::wave::{fill, tensors, wave};
use loader::images::{Preprocessor, View};
use loader::{Crop, Decoding, ImageSettings, SampleId};
use serde_json::Value;
use tch::{Device, Kind, Tensor};
use trainer::data::frozen_tower;
use trainer::evaluation::image_datasets::ImageDataset;
use trainer::settings::VisionSettings;
use trainer::towers::{CaptionTokens, PositionResize, TextShape, TextTower, VisionShape, VisionTower};
use trainer::weights;

/// Both sides compute in float32.
const TOLERANCE: f64 = 2e-5;

fn cases() -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/towers/cases.json");
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
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
    fill(&tower.named());
    weights::write(&path, &tower.named()).unwrap();
    // Without a tensor that only DINOv2 has, the file is one of timm's.
    let tower = VisionTower::read(&path, None, Kind::Float, Device::Cpu).unwrap();
    assert_eq!(tower.position_resize(), Some(PositionResize::Timm));
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
    // The same tower with DINOv2's mask token is resized as in DINOv2 by default.
    let mut named = tower.named();
    named.push(("mask_token".to_owned(), Tensor::zeros([1, 64], (Kind::Float, Device::Cpu))));
    weights::write(&path, &named).unwrap();
    let read = |position| VisionTower::read(&path, position, Kind::Float, Device::Cpu).unwrap();
    let pixels = wave(3 * 48 * 48, 5).view([1, 3, 48, 48]).to_kind(Kind::Float);
    let apart = |other: &VisionTower| {
        let [found, timms] = [other, &tower].map(|tower| tch::no_grad(|| tower.forward(&pixels).patches));
        (found - timms).abs().max().double_value(&[])
    };
    assert_eq!(read(None).position_resize(), Some(PositionResize::Dinov2));
    assert!(apart(&read(None)) > 1e-3);
    assert_eq!(apart(&read(Some(PositionResize::Timm))), 0.0);
}

#[test]
fn the_text_tower_is_open_clips() {
    let shape = TextShape { width: 64, depth: 2, heads: 2, context: 32 };
    let tower = TextTower::random(shape, 48, Device::Cpu);
    fill(&tower.named().into_iter().filter(|(name, _)| name != "logit_scale").collect::<Vec<_>>());
    let case = &cases()["text"];
    let tokenizer = concepts::Tokenizer::clip();
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
    let embedded = tch::no_grad(|| tower.captions(&tower.tokens(&tokens, Kind::Float), &tokens.end));
    close("captions", &embedded, &case["embeddings"]);
}

/// The relative L2 error.
fn relative(found: &Tensor, expected: &Tensor) -> f64 {
    let (found, expected) = (found.to_kind(Kind::Double), expected.to_kind(Kind::Double));
    (found - &expected).norm().double_value(&[]) / expected.norm().double_value(&[])
}

/// In float8 the products have an error of 3.8e-2, those of bfloat16 one of 3e-3; LayerScale, which is folded into them, is not lost.
#[test]
fn a_tower_computes_in_float8_too() {
    let _turn = crate::random(8);
    let tower = VisionTower::random(VisionShape { width: 192, depth: 6, patch: 14, grid: 4 }, Device::Cpu);
    for (name, tensor) in tower.named() {
        if name.ends_with("gamma") {
            let _ = tensor.shallow_clone().uniform_(0.5, 1.5);
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tower.safetensors");
    weights::write(&path, &tower.named()).unwrap();
    let read = |kind| VisionTower::read(&path, None, kind, Device::Cpu).unwrap();
    let pixels = Tensor::randn([3, 3, 56, 70], (Kind::Float, Device::Cpu));
    let seen = |tower: &VisionTower, pixels: &Tensor| tch::no_grad(|| tower.forward(pixels));
    let exact = seen(&tower, &pixels);
    let errors = [Kind::BFloat16, Kind::Float8e4m3fn].map(|kind| {
        let features = seen(&read(kind), &pixels);
        assert_eq!((features.class.kind(), features.patches.kind()), (Kind::BFloat16, Kind::BFloat16));
        [relative(&features.class, &exact.class), relative(&features.patches, &exact.patches)]
    });
    eprintln!("relative L2 errors of class and patches, in bfloat16 and float8: {errors:.4?}");
    for (bfloat16, float8) in errors[0].iter().zip(errors[1]) {
        assert!((0.03..0.15).contains(&float8) && float8 > 4.0 * bfloat16, "{errors:?}");
    }
    let float8 = read(Kind::Float8e4m3fn);
    assert_eq!((float8.kind(), float8.product_kind()), (Kind::BFloat16, Kind::Float8e4m3fn));
    assert_eq!(read(Kind::BFloat16).product_kind(), Kind::BFloat16);

    // An image has almost the same features beside one that is much brighter: far below the error of the format.
    let beside = Tensor::cat(&[pixels.narrow(0, 0, 1), pixels.narrow(0, 1, 1) * 50.0], 0);
    let alone = seen(&float8, &pixels.narrow(0, 0, 1)).patches;
    let apart = relative(&seen(&float8, &beside).patches.narrow(0, 0, 1), &alone);
    eprintln!("beside a brighter image: {apart:.2e}");
    assert!(apart < 0.01, "{apart:e}");
    // Nothing is divided by the largest value of an image that is black.
    let black = seen(&float8, &Tensor::zeros([1, 3, 56, 56], (Kind::Float, Device::Cpu))).patches;
    assert_eq!(black.isfinite().all().int64_value(&[]), 1);
}

/// GPUs multiply matrices in float8 only if their sides are multiples of 16.
#[test]
fn a_tower_of_odd_width_is_refused_in_float8() {
    let tower = VisionTower::random(VisionShape { width: 64, depth: 2, patch: 8, grid: 2 }, Device::Cpu);
    let mut named = tower.named();
    for (name, size) in [("fc1.weight", vec![40, 64]), ("fc1.bias", vec![40]), ("fc2.weight", vec![64, 40])] {
        let name = format!("blocks.1.mlp.{name}");
        named.retain(|(other, _)| *other != name);
        named.push((name, Tensor::ones(&size, (Kind::Float, Device::Cpu))));
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tower.safetensors");
    weights::write(&path, &named).unwrap();
    VisionTower::read(&path, None, Kind::BFloat16, Device::Cpu).unwrap();
    let refused = VisionTower::read(&path, None, Kind::Float8e4m3fn, Device::Cpu).unwrap_err().to_string();
    assert!(refused.contains("[40, 64]") && refused.contains("choose bfloat16"), "{refused}");
}

/// A file with the keys and shapes that the library of the family saves, filled by the formula.
fn theirs(case: &Value, path: &std::path::Path) {
    let named = tensors(case);
    fill(&named);
    weights::write(path, &named).unwrap();
}

#[test]
fn every_familys_tower_is_read_by_its_own_names() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tower.safetensors");
    let cases = cases();
    assert!(cases["families"].as_array().unwrap().len() >= 9);
    for case in cases["families"].as_array().unwrap() {
        theirs(case, &path);
        let position: PositionResize = serde_json::from_value(case["position"].clone()).unwrap();
        let tower = VisionTower::read(&path, None, Kind::Float, Device::Cpu).unwrap();
        assert_eq!(tower.position_resize(), Some(position), "{}", case["name"]);
        let (height, width) = (case["height"].as_i64().unwrap(), case["width"].as_i64().unwrap());
        let pixels = wave((2 * 3 * height * width) as usize, 5).view([2, 3, height, width]);
        let features = tch::no_grad(|| tower.forward(&pixels.to_kind(Kind::Float)));
        let name = format!("{} {height}x{width}", case["name"].as_str().unwrap());
        assert_eq!(features.patches.size(), [2, height * width / 64, 64], "{name}");
        close(&format!("{name}, class"), &features.class, &case["class"]);
        close(&format!("{name}, patch 5"), &features.patches.select(1, 5), &case["patch_5"]);
        let mean = features.patches.mean_dim([1i64].as_slice(), false, Kind::Float);
        close(&format!("{name}, mean"), &mean, &case["patch_mean"]);
    }
}

#[test]
fn a_denoiser_may_lie_in_a_file_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let (whole, tower, denoiser) = (
        folder.path().join("whole.safetensors"),
        folder.path().join("tower.safetensors"),
        folder.path().join("denoiser.safetensors"),
    );
    let cases = cases();
    let released =
        cases["families"].as_array().unwrap().iter().find(|case| case["name"] == "SimZSS").unwrap();
    theirs(released, &whole);
    let named = weights::tensors(&whole).unwrap();
    let below = |prefix: &str, but: &str| -> Vec<(String, Tensor)> {
        let inside = named.iter().filter(|(name, _)| !name.starts_with(but));
        inside
            .filter_map(|(name, t)| Some((name.strip_prefix(prefix)?.to_owned(), t.shallow_clone())))
            .collect()
    };
    weights::write(&tower, &below("visual.vit.model.", "-")).unwrap();
    // The content of DVT's own files.
    weights::write(&denoiser, &below("visual.", "visual.vit.")).unwrap();
    let read = |path| VisionTower::read(path, Some(PositionResize::Timm), Kind::Float, Device::Cpu).unwrap();
    let (whole, plain) = (read(&whole), read(&tower));
    assert!(whole.is_denoised() && !plain.is_denoised());
    let pixels = wave(3 * 32 * 48, 5).view([1, 3, 32, 48]).to_kind(Kind::Float);
    let patches = |tower: &VisionTower| tch::no_grad(|| tower.forward(&pixels).patches);
    let (expected, bare) = (patches(&whole), patches(&plain));
    let joined = patches(&plain.with_denoiser(&denoiser, Device::Cpu).unwrap());
    assert_eq!((joined - &expected).abs().max().double_value(&[]), 0.0);
    assert!((bare - &expected).abs().max().double_value(&[]) > 0.1);

    // As separate files in the settings, and as the one file in a run folder after the denoiser's file is gone.
    let mut settings = VisionSettings {
        weights: tower,
        denoiser: Some(denoiser.clone()),
        position: Some(PositionResize::Timm),
        ..VisionSettings::default()
    };
    let kept = folder.path().join("kept.safetensors");
    frozen_tower::copy_to(&settings, &kept).unwrap();
    assert_ne!(frozen_tower::sha256(&settings).unwrap(), weights::sha256(&settings.weights).unwrap());
    for path in [settings.weights.clone(), kept] {
        settings.weights = path;
        let vision = frozen_tower::open(&settings, Kind::Float, Device::Cpu).unwrap();
        assert_eq!((patches(&vision.tower) - &expected).abs().max().double_value(&[]), 0.0);
        let _ = std::fs::remove_file(&denoiser);
    }
}

#[test]
fn hugging_faces_clip_is_read_as_open_clips() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("clip.safetensors");
    let cases = cases();
    theirs(&cases["clip_text"], &path);
    // The text tower reports the tensors of the vision tower as unexpected.
    let whole = weights::Weights::read(&path, Device::Cpu).unwrap().into_open_clip().unwrap();
    let mut text = whole;
    let vision = text.take_below("visual.");
    assert!(vision.has("proj") && vision.has("conv1.weight"));
    let tower = TextTower::from_weights(text, 2, 48, trainer::towers::Activation::Gelu).unwrap();
    let ids: Vec<Vec<i64>> = serde_json::from_value(cases["text"]["ids"].clone()).unwrap();
    let tokens = CaptionTokens::new(&ids.concat(), 32, Device::Cpu);
    let embedded = tch::no_grad(|| tower.captions(&tower.tokens(&tokens, Kind::Float), &tokens.end));
    close("captions", &embedded, &cases["clip_text"]["embeddings"]);
}

#[test]
fn weights_that_do_not_fit_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tower.safetensors");
    let tower = VisionTower::random(VisionShape { width: 64, depth: 1, patch: 8, grid: 2 }, Device::Cpu);
    let refused = |named: Vec<(String, Tensor)>| {
        weights::write(&path, &named).unwrap();
        let read = VisionTower::read(&path, None, Kind::Float, Device::Cpu);
        read.unwrap_err().to_string()
    };
    let without = |name: &str| tower.named().into_iter().filter(|(n, _)| n != name).collect::<Vec<_>>();
    assert!(refused(without("blocks.0.mlp.fc1.bias")).contains("blocks.0.mlp.fc1.bias is missing"));
    let mut misshapen = without("norm.bias");
    misshapen.push(("norm.bias".to_owned(), Tensor::zeros([63], (Kind::Float, Device::Cpu))));
    assert!(refused(misshapen).contains("norm.bias has the shape [63]; it must have [64]"));
    let mut extra = tower.named();
    extra.push(("head.weight".to_owned(), Tensor::zeros([3], (Kind::Float, Device::Cpu))));
    assert!(refused(extra).contains("unexpected tensor head.weight"));
    std::fs::write(&path, b"not safetensors").unwrap();
    let read = VisionTower::read(&path, None, Kind::Float, Device::Cpu);
    assert!(read.unwrap_err().to_string().contains("tower.safetensors"));
}

/// Runs `trainer embed`; returns the tensors that it writes, or its error message.
fn embed(folder: &std::path::Path, arguments: &[&str]) -> Result<BTreeMap<String, Tensor>, String> {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_trainer"))
        .args([
            "embed",
            "--device",
            "cpu",
            "--threads",
            "1",
            "--precision",
            "float32",
            "--out",
            "features.safetensors",
        ])
        .args(arguments)
        .current_dir(folder)
        .output()
        .unwrap();
    if output.status.success() {
        return Ok(weights::tensors(&folder.join("features.safetensors")).unwrap());
    }
    Err(String::from_utf8(output.stderr).unwrap())
}

/// A photo of these sides whose colours change everywhere, as JPEG; with an EXIF orientation if `turned`.
fn jpeg(width: u32, height: u32, turned: bool) -> Vec<u8> {
    let wave = |x: u32, by: f64| (127.0 + 120.0 * (f64::from(x) / by).sin()) as u8;
    let picture = image::RgbImage::from_fn(width, height, |x, y| {
        image::Rgb([wave(x + y, 5.0), wave(2 * x + 3 * y, 11.0), wave(x * y, 97.0)])
    });
    let mut bytes = std::io::Cursor::new(Vec::new());
    picture.write_to(&mut bytes, image::ImageFormat::Jpeg).unwrap();
    let mut bytes = bytes.into_inner();
    if turned {
        // Little-endian TIFF with one entry: tag 0x0112 (orientation), SHORT, one value, 6 (a quarter turn).
        let exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0";
        let segment = [&[0xFF, 0xE1, 0, exif.len() as u8 + 2], &exif[..]].concat();
        bytes.splice(2..2, segment);
    }
    bytes
}

/// The loader's own crops are compared with torchvision's in its tests.
#[test]
fn the_loader_the_evaluation_and_embed_see_the_same_pixels() {
    const SIZE: u32 = 24;
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let tower = VisionTower::random(VisionShape { width: 64, depth: 1, patch: 8, grid: 4 }, Device::Cpu);
    fill(&tower.named());
    weights::write(&folder.join("tower"), &tower.named()).unwrap();
    // Long sides of 32.66, 33.49, 24.51, .. pixels at this size, which are truncated: rounding them would change the crop.
    let sides = [(83, 61), (61, 83), (60, 43), (97, 95), (24, 24), (200, 57), (20, 16), (90, 30)];
    let settings = ImageSettings::new(Crop::Centre { size: SIZE }, 0.0);
    let mut loaded = Vec::new();
    std::fs::create_dir_all(folder.join("set/val/all")).unwrap();
    for (number, (width, height)) in sides.into_iter().enumerate() {
        let bytes = jpeg(width, height, number == 2);
        let mut row = vec![0; (SIZE * SIZE * 3) as usize];
        let centre =
            |width, height| View::choose(&settings, (0, 0, SampleId { shard: 0, sample: 0 }), width, height);
        Preprocessor::default().preprocess(&bytes, Decoding::Exact, SIZE, centre, &mut row).unwrap();
        loaded.extend(row);
        std::fs::write(folder.join(format!("set/val/all/{number}.jpg")), bytes).unwrap();
    }
    let loaded = trainer::towers::pixels(&loaded, SIZE.into());

    let set = ImageDataset::classification(&folder.join("set"), "val").unwrap();
    let evaluated: Vec<Tensor> = set.batches(SIZE, 3, 2).map(|batch| batch.unwrap().pixels).collect();
    assert_eq!(Tensor::cat(&evaluated, 0), loaded);

    let settings = VisionSettings { weights: folder.join("tower"), ..VisionSettings::default() };
    let vision = frozen_tower::open(&settings, Kind::Float, Device::Cpu).unwrap();
    weights::write(&folder.join("pixels"), &[("pixels".to_owned(), vision.normalise(&loaded).contiguous())])
        .unwrap();
    let expected = embed(folder, &["--vision", "tower", "--pixels", "pixels"]).unwrap();
    let files: Vec<String> = (0..sides.len()).map(|number| format!("set/val/all/{number}.jpg")).collect();
    let files: Vec<&str> = files.iter().map(String::as_str).collect();
    let found =
        embed(folder, &[&["--vision", "tower", "--size", "24", "--image"], &files[..]].concat()).unwrap();
    for name in ["class", "patches"] {
        let apart = (&found[name] - &expected[name]).abs().max().double_value(&[]);
        assert!(apart < TOLERANCE, "{name}: {apart:e}");
    }
}

#[test]
fn the_program_embeds_pixels_pictures_and_captions() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let cases = cases();
    let case =
        cases["families"].as_array().unwrap().iter().find(|case| case["name"] == "Dinov2Model").unwrap();
    theirs(case, &folder.join("tower"));
    let pixels = wave(2 * 3 * 32 * 48, 5).view([2, 3, 32, 48]).to_kind(Kind::Float);
    weights::write(&folder.join("pixels"), &[("pixels".to_owned(), pixels)]).unwrap();
    let tower = ["--vision", "tower", "--position", "huggingface"];
    let found = embed(folder, &[&tower[..], &["--pixels", "pixels"]].concat()).unwrap();
    close("class", &found["class"], &case["class"]);
    close("patch 5", &found["patches"].select(1, 5), &case["patch_5"]);

    // An image is normalized as for DINOv2, and not changed otherwise.
    let picture = image::RgbImage::from_fn(48, 32, |x, y| image::Rgb([(5 * x) as u8, (7 * y) as u8, 90]));
    picture.save(folder.join("picture.png")).unwrap();
    let channels = |values: [f64; 3]| Tensor::from_slice(&values).view([1, 3, 1, 1]);
    let values = Tensor::from_slice(picture.as_raw()).view([1, 32, 48, 3]).permute([0, 3, 1, 2]);
    let values = values.to_kind(Kind::Double) / 255.0 - channels([0.485, 0.456, 0.406]);
    let values = (values / channels([0.229, 0.224, 0.225])).to_kind(Kind::Float).contiguous();
    weights::write(&folder.join("pixels"), &[("pixels".to_owned(), values)]).unwrap();
    let by_hand = embed(folder, &[&tower[..], &["--pixels", "pixels"]].concat()).unwrap();
    let found = embed(folder, &[&tower[..], &["--image", "picture.png"]].concat()).unwrap();
    let apart = (&found["patches"] - &by_hand["patches"]).abs().max().double_value(&[]);
    assert!(apart < TOLERANCE, "{apart:e}");
    let cropped = embed(folder, &[&tower[..], &["--image", "picture.png", "--size", "24"]].concat()).unwrap();
    assert_eq!(cropped["patches"].size(), [1, 9, 64]);

    theirs(&cases["clip_text"], &folder.join("clip"));
    let mut clip =
        weights::Weights::read(&folder.join("clip"), Device::Cpu).unwrap().into_open_clip().unwrap();
    let _vision = clip.take_below("visual.");
    let text = TextTower::from_weights(clip, 2, 48, trainer::towers::Activation::Gelu).unwrap();
    weights::write(&folder.join("text"), &text.named()).unwrap();
    std::fs::write(
        folder.join("captions"),
        cases["text"]["captions"]
            .as_array()
            .unwrap()
            .iter()
            .map(|c| format!("{}\n", c.as_str().unwrap()))
            .collect::<String>(),
    )
    .unwrap();
    let found = embed(folder, &["--text-tower", "text", "--heads", "2", "--text-file", "captions"]).unwrap();
    close("captions", &found["captions"], &cases["clip_text"]["embeddings"]);

    for (arguments, reason) in [
        (vec!["--text", "a cat"], "--text-tower"),
        (vec!["--vision", "tower"], "--image"),
        (vec!["--vision", "tower", "--position", "nearest", "--pixels", "pixels"], "nearest"),
        (
            vec!["--vision", "tower", "--image", "picture.png", "--size", "30"],
            "option `--size` is 30 px; it must be a multiple of the patch size, 8 px",
        ),
        (vec!["--vision", "text", "--image", "picture.png"], "contains no vision tower"),
        (
            vec!["--vision", "tower", "--denoiser", "tower", "--pixels", "pixels"],
            "denoiser.pos_embed is missing",
        ),
    ] {
        let error = embed(folder, &arguments).unwrap_err();
        assert!(error.contains(reason), "{arguments:?}: {error}");
    }
}
