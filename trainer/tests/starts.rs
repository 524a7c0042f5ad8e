//! Text towers of others that a run can start with, compared with implementations in PyTorch (`tests/fixtures/towers/starts.py`).

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::Path;

use serde_json::Value;
use tch::{Device, Kind, Tensor};
use trainer::towers::convert::convert;
use trainer::towers::{Activation, CaptionTokens, TextTower};
use trainer::weights::{self, Family, Weights};

use crate::wave::{fill, tensors};

fn case(name: &str) -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/towers/starts.json");
    let all: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    all[name].clone()
}

fn int(case: &Value, name: &str) -> i64 {
    case[name].as_i64().unwrap()
}

/// A file with the tensors of a case, and `more`.
fn written(case: &Value, folder: &Path, more: Vec<(String, Tensor)>) -> std::path::PathBuf {
    let mut named = tensors(case);
    fill(&named);
    named.extend(more);
    let path = folder.join("text.safetensors");
    weights::write(&path, &named).unwrap();
    path
}

/// The largest difference of the embeddings of the case's captions.
fn off(case: &Value, weights: Weights, activation: Activation) -> f64 {
    let (heads, output) = (int(case, "heads"), int(case, "output"));
    let tower = TextTower::from_weights(weights, heads, output, activation).unwrap();
    assert_eq!(tower.activation(), activation);
    assert_eq!((tower.shape.depth, tower.shape.context), (int(case, "depth"), int(case, "context")));
    let tokenizer = concepts::Tokenizer::clip();
    let context = int(case, "context") as usize;
    let captions: Vec<String> = serde_json::from_value(case["captions"].clone()).unwrap();
    let ids = captions.iter().flat_map(|text| tokenizer.encode(&concepts::canonical(text), context).ids);
    let tokens = CaptionTokens::new(&ids.map(i64::from).collect::<Vec<_>>(), context, Device::Cpu);
    let found = tch::no_grad(|| tower.captions(&tower.tokens(&tokens, Kind::Float), &tokens.end));
    let expected: Vec<f64> = serde_json::from_value(case["features"].clone()).unwrap();
    assert_eq!(found.numel(), expected.len());
    let apart = (found.reshape([-1]).to_kind(Kind::Double) - Tensor::from_slice(&expected)).abs().max();
    apart.double_value(&[])
}

#[test]
fn dino_txts_text_tower_is_read() {
    let case = case("dinotxt");
    let folder = tempfile::tempdir().unwrap();
    let path = written(&case, folder.path(), Vec::new());
    let (openais, weights) = Weights::read(&path, Device::Cpu).unwrap().into_text().unwrap();
    assert!(!openais);
    let apart = off(&case, weights, Activation::Gelu);
    eprintln!("dino.txt: the largest difference is {apart:.1e}");
    assert!(apart < 2e-5, "{apart:e}");

    // As a file of open_clip it is the same tower; what belongs to the images is reported.
    let out = folder.path().join("open_clip.safetensors");
    let made = convert(std::slice::from_ref(&path), Family::OpenClip, &out).unwrap();
    assert_eq!(made.left_out, ["visual_model.head.ln_final.weight"]);
    let weights = Weights::read(&out, Device::Cpu).unwrap().into_text().unwrap().1;
    assert!(off(&case, weights, Activation::Gelu) < 2e-5);
    let error = Weights::read(&path, Device::Cpu).unwrap().into_vision().unwrap_err().to_string();
    assert!(error.contains("contains no vision tower"), "{error}");
}

#[test]
fn openais_clips_are_known_and_have_their_own_activation() {
    let case = case("openai");
    let folder = tempfile::tempdir().unwrap();
    let number = |name: &str| (name.to_owned(), Tensor::from(7_i64));
    let mut more = Vec::from(["input_resolution", "context_length", "vocab_size"].map(number));
    more.push(("logit_scale".to_owned(), Tensor::from(4.6_f32)));
    let path = written(&case, folder.path(), more);
    let read = || Weights::read(&path, Device::Cpu).unwrap().into_text().unwrap();
    assert!(read().0);
    let apart = off(&case, read().1, Activation::QuickGelu);
    eprintln!("OpenAI's: the largest difference is {apart:.1e}");
    assert!(apart < 2e-5, "{apart:e}");
    assert!(off(&case, read().1, Activation::Gelu) > 1e-3, "the activation matters");
}
