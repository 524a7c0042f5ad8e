//! An exported model, loaded by timm and open_clip with the exported `load.py`, computes the same features as the trainer.
//!
//! `TRAINER_PYTHON` must be the path of a Python with open_clip_torch, timm and safetensors (3 GB with torch).

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use tch::{Device, Kind, Tensor};
use trainer::device::to_vec;
use trainer::inference::class_list::ClassList;
use trainer::inference::class_vectors::{ClassVectors, ComparedWith, class_vectors};
use trainer::inference::templates;
use trainer::settings::VisionSettings;
use trainer::towers::{
    CaptionTokens, Embedding, PositionResize, TextShape, TextTower, VisionHead, VisionShape, VisionTower,
};
use trainer::{export, weights};

fn python() -> Option<String> {
    let python = std::env::var("TRAINER_PYTHON").ok();
    if python.is_none() {
        println!("skipped: TRAINER_PYTHON is not set to a Python with open_clip_torch, timm and safetensors");
    }
    python
}

/// Runs a Python script in a folder and returns the JSON that it prints.
fn told(python: &str, folder: &Path, script: &str) -> Value {
    let output = Command::new(python).args(["-c", script]).current_dir(folder).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    serde_json::from_str(text.lines().last().unwrap()).unwrap()
}

fn close(what: &str, ours: &Tensor, theirs: &Value, tolerance: f32) {
    let theirs: Vec<f32> = serde_json::from_value(theirs.clone()).unwrap();
    let ours = to_vec(ours);
    assert_eq!(ours.len(), theirs.len(), "{what}");
    let apart = ours.iter().zip(&theirs).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(apart < tolerance, "{what}: off by {apart:e}");
}

/// A tower with random weights, with or without registers, as read from a file.
fn vision(folder: &Path, registers: i64, position: PositionResize) -> VisionTower {
    let random = VisionTower::random(VisionShape { width: 128, depth: 3, patch: 8, grid: 6 }, Device::Cpu);
    let mut named = random.named();
    if registers > 0 {
        let tokens = Tensor::randn([1, registers, 128], (Kind::Float, Device::Cpu));
        named.push(("register_tokens".to_owned(), tokens));
    }
    let path = folder.join("tower.safetensors");
    weights::write(&path, &named).unwrap();
    VisionTower::read(&path, Some(position), Kind::Float, Device::Cpu).unwrap()
}

const CAPTIONS: [&str; 3] = ["a photo of a cat.", "two rubber ducks and a soccer ball near snow", "sofa"];

#[test]
fn timm_and_open_clip_compute_the_same() {
    let Some(python) = python() else { return };
    let _turn = crate::random(3);
    let shape = TextShape { width: 64, depth: 3, heads: 4, context: 32 };
    let text = TextTower::random(shape, 128, Device::Cpu);
    let positions = [PositionResize::Timm, PositionResize::Dinov2, PositionResize::Huggingface];
    for (registers, position) in
        [0, 4].into_iter().flat_map(|count| positions.map(|position| (count, position)))
    {
        let folder = tempfile::tempdir().unwrap();
        let vision = vision(folder.path(), registers, position);
        export::towers(
            &vision,
            &VisionHead::none(Embedding::Class),
            &text,
            &VisionSettings::default(),
            &json!({}),
            folder.path(),
        )
        .unwrap();
        // At the image size of the tower, and at another shape.
        for (height, width) in [(48, 48), (64, 96)] {
            let script = format!(
                r"
import json, torch
exec(open('load.py').read().replace('Path(__file__).parent', 'Path(\'.\')'))
pixels = torch.sin(torch.arange(2 * 3 * {height} * {width}, dtype=torch.float64)).float().view(2, 3, {height}, {width})
with torch.no_grad():
    features = vision.forward_features(pixels)
    captions = text(tokenizer({captions}))
print(json.dumps({{
    'class': features[:, 0].flatten().tolist(),
    'patches': features[:, vision.num_prefix_tokens:].flatten().tolist(),
    'captions': captions.flatten().tolist(),
}}))",
                captions = json!(CAPTIONS)
            );
            let theirs = told(&python, folder.path(), &script);
            let pixels = Tensor::arange(2 * 3 * height * width, (Kind::Double, Device::Cpu))
                .sin()
                .to_kind(Kind::Float)
                .view([2, 3, height, width]);
            let (features, captions) = tch::no_grad(|| {
                let tokenizer = concepts::Tokenizer::clip();
                let ids: Vec<i64> = CAPTIONS
                    .iter()
                    .flat_map(|caption| tokenizer.encode(&concepts::canonical(caption), 32).ids)
                    .map(i64::from)
                    .collect();
                let tokens = CaptionTokens::new(&ids, 32, Device::Cpu);
                let captions = text.captions(&text.tokens(&tokens, Kind::Float), &tokens.end);
                (vision.forward(&pixels), captions)
            });
            let what = |part: &str| format!("{registers} registers, {position}, {height} x {width}: {part}");
            close(&what("class"), &features.class, &theirs["class"], 1e-4);
            close(&what("patches"), &features.patches, &theirs["patches"], 1e-4);
            close(&what("captions"), &captions, &theirs["captions"], 1e-5);
        }
    }
}

#[test]
fn the_configuration_says_how_the_position_embedding_is_resized() {
    let _turn = crate::random(5);
    let text = TextTower::random(TextShape { width: 64, depth: 1, heads: 4, context: 32 }, 128, Device::Cpu);
    for position in [PositionResize::Timm, PositionResize::Dinov2, PositionResize::Huggingface] {
        let folder = tempfile::tempdir().unwrap();
        let vision = vision(folder.path(), 0, position);
        // The tower counts, whatever the settings leave open.
        export::towers(
            &vision,
            &VisionHead::none(Embedding::Class),
            &text,
            &VisionSettings::default(),
            &json!({}),
            folder.path(),
        )
        .unwrap();
        let config = std::fs::read(folder.path().join("config.json")).unwrap();
        let config: Value = serde_json::from_slice(&config).unwrap();
        assert_eq!(config["position"], position.to_string());
    }
}

#[test]
fn class_vectors_are_those_of_open_clips_zero_shot_classifier() {
    let Some(python) = python() else { return };
    let _turn = crate::random(4);
    let folder = tempfile::tempdir().unwrap();
    let shape = TextShape { width: 64, depth: 2, heads: 2, context: 77 };
    let text = TextTower::random(shape, 128, Device::Cpu);
    let vision = vision(folder.path(), 0, PositionResize::Timm);
    export::towers(
        &vision,
        &VisionHead::none(Embedding::Class),
        &text,
        &VisionSettings::default(),
        &json!({}),
        folder.path(),
    )
    .unwrap();
    let list = ClassList::parse("cat|kitten, traffic cone").unwrap();
    let templates = templates::read("imagenet").unwrap();
    let vectors = class_vectors(
        &text,
        &list.words,
        &templates,
        ClassVectors::Caption,
        ComparedWith::Images,
        Kind::Float,
    )
    .unwrap();
    let file = folder.path().join("classes.safetensors");
    export::classes(&list, &vectors, &json!({"templates": "imagenet"}), &file).unwrap();
    let script = format!(
        r"
import json, torch
exec(open('load.py').read().replace('Path(__file__).parent', 'Path(\'.\')'))
from safetensors import safe_open
class Model:
    def encode_text(self, tokens, normalize=False):
        captions = text(tokens)
        return torch.nn.functional.normalize(captions, dim=-1) if normalize else captions
with torch.no_grad():
    weights = open_clip.build_zero_shot_classifier(
        Model(), tokenizer, {words}, open_clip.OPENAI_IMAGENET_TEMPLATES, num_classes_per_batch=None)
with safe_open('classes.safetensors', 'pt') as file:
    stored = file.get_tensor('weight')
    print(json.dumps({{
        'weights': weights.T.flatten().tolist(),
        'stored': stored.flatten().tolist(),
        'class': file.get_tensor('class').tolist(),
        'names': json.loads(file.metadata()['classes']),
        'words': json.loads(file.metadata()['words']),
    }}))",
        words = json!(list.words)
    );
    let theirs = told(&python, folder.path(), &script);
    close("classifier", &vectors, &theirs["weights"], 1e-5);
    close("file", &vectors, &theirs["stored"], 1e-7);
    assert_eq!(theirs["class"], json!([0, 0, 1]));
    assert_eq!(theirs["names"], json!(["cat", "traffic cone"]));
    assert_eq!(theirs["words"], json!(list.words));
}
