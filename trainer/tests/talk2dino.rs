//! The objective `talk2dino`: head means, choices, losses, gradients and ten steps of an independent implementation
//! (`tests/fixtures/training/talk2dino.py`), class vectors through the map, and what is refused.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use serde_json::Value;
use tch::{Kind, Tensor};
use trainer::data::frozen_tower;
use trainer::distributed::Group;
use trainer::inference::class_vectors::{ClassVectors, ComparedWith, class_vectors};
use trainer::method::losses;
use trainer::method::objective::{Images, Objective, ObjectiveSettings, StepInput, gradients};
use trainer::method::optimizer::{Optimizer, OptimizerSettings};
use trainer::method::talk2dino::most_similar;
use trainer::method::unmentioned::Beyond;
use trainer::settings::Settings;
use trainer::towers::{CaptionTokens, TextShape, TextTower, VisionShape, VisionTower, unit};

use crate::training::{cases, compare_weights, context, device, rows, total};
use crate::wave::{fill, tensors, wave};
use crate::{refused, settings_of};

/// Widths of the vision tower and of an attention head in it, and of the text tower's projection.
const TOWER: i64 = 128;
const HEAD: i64 = 64;
const PROJECTED: i64 = 48;

fn fixture() -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/training/talk2dino.json");
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn numbers(value: &Value) -> Vec<f64> {
    serde_json::from_value(value.clone()).unwrap()
}

/// The largest difference from the expected values, divided by the largest of these if that is above 1.
fn off(found: &[f64], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let largest = expected.iter().map(|value| value.abs()).fold(1.0, f64::max);
    found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max) / largest
}

fn values(x: &Tensor) -> Vec<f64> {
    Vec::try_from(x.detach().reshape([-1]).to_kind(Kind::Double)).unwrap()
}

/// As `filled` in the script.
fn vision(all: &Value, name: &str) -> VisionTower {
    let named = tensors(&all["towers in float64"][name]);
    fill(&named);
    for (name, tensor) in &named {
        if name.contains("gamma_") {
            let _ = tensor.shallow_clone().g_add_scalar_(1.0);
        }
        if name == "blocks.1.attn.qkv.weight" {
            let _ = tensor.narrow(0, HEAD, TOWER - HEAD).neg_();
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tower.safetensors");
    trainer::weights::write(&path, &named).unwrap();
    VisionTower::read(&path, None, Kind::Float, device()).unwrap()
}

#[test]
fn head_means_are_the_references_before_rotary_positions() {
    let all = fixture();
    for name in ["learned", "rotary"] {
        let case = &all["towers in float64"][name];
        let tower = vision(&all, name);
        let size = case["size"].as_i64().unwrap();
        let image =
            |phase| wave((3 * size * size) as usize, phase).view([3, size, size]).to_kind(Kind::Float);
        let pixels = Tensor::stack(&[image(0), image(1)], 0).to_device(device());
        let means = tch::no_grad(|| tower.head_means(&pixels));
        assert_eq!(means.size(), [2, TOWER / HEAD, TOWER]);
        let found: Vec<f64> = values(&means).into_iter().step_by(5).collect();
        let apart = off(&found, &numbers(&case["means"]));
        eprintln!("head means of a tower with {name} positions differ by at most {apart:.1e}");
        assert!(apart < 2e-5, "{name}: {apart:e}");
    }
}

#[test]
fn the_loss_and_its_gradients_are_the_references() {
    let all = fixture();
    let case = &all["loss in float64"];
    let size = |name: &str| case[name].as_i64().unwrap();
    let (batch, heads, width) = (size("batch"), size("heads"), size("width"));
    let means = unit(&wave((batch * heads * width) as usize, 2).view([batch, heads, width]));
    let captions = wave((batch * width) as usize, 7).view([batch, width]).set_requires_grad(true);
    let scale = Tensor::from(case["log_scale"].as_f64().unwrap()).set_requires_grad(true);
    let embedded = unit(&captions);
    let images = most_similar(&means, &embedded);
    for (row, choice) in case["choices"].as_array().unwrap().iter().enumerate() {
        assert_eq!(images.get(row as i64), means.get(row as i64).get(choice.as_i64().unwrap()));
    }
    let part = |own| losses::contrastive(&images, &embedded, &scale.exp(), own, None);
    let loss = part(0..2) + part(2..batch);
    loss.backward();
    assert!((loss.double_value(&[]) - case["loss"].as_f64().unwrap()).abs() < 1e-13);
    let expected = &case["gradients"];
    assert!(off(&values(&captions.grad()), &numbers(&expected["captions"])) < 1e-13);
    let apart = scale.grad().double_value(&[]) - expected["log_scale"].as_f64().unwrap();
    assert!(apart.abs() < 1e-13, "{apart:e}");
}

/// The text tower with its map, of which only the map and the logit scale are trained.
fn text(context: usize) -> TextTower {
    let shape = TextShape { width: 32, depth: 2, heads: 2, context: context as i64 };
    let tower = TextTower::random(shape, PROJECTED, device()).with_map(TOWER);
    let (map, rest): (Vec<_>, Vec<_>) =
        tower.named().into_iter().partition(|(name, _)| name.starts_with("map."));
    fill(&map);
    fill(&rest.into_iter().filter(|(name, _)| name != "logit_scale").collect::<Vec<_>>());
    for (name, tensor) in tower.named() {
        let _ = tensor.set_requires_grad(Objective::Talk2dino.trains(&name));
    }
    tower
}

fn trained(text: &TextTower) -> Vec<(String, Tensor)> {
    text.named().into_iter().filter(|(_, tensor)| tensor.requires_grad()).collect()
}

/// Takes ten steps and compares losses, the first gradients and the weights with those of PyTorch.
pub(crate) fn ten_steps(group: &Group, micro_batch: usize) {
    let (data, all) = (cases(), fixture());
    let (vision, text) = (vision(&all, "learned"), text(context(&data)));
    assert_eq!(trained(&text).len(), 5);
    let settings = ObjectiveSettings { name: Objective::Talk2dino, ..ObjectiveSettings::default() };
    let optimizer_settings = OptimizerSettings { lr: data["lr"].as_f64(), ..OptimizerSettings::default() };
    let mut optimizer = Optimizer::new(&optimizer_settings, trained(&text));
    let mut worst = 0.0_f64;
    for (step, expected) in all["losses"].as_array().unwrap().iter().enumerate() {
        let (pixels, captions, _) = rows(&data, step, group);
        let means = tch::no_grad(|| unit(&vision.head_means(&pixels)));
        let input = StepInput {
            images: Images::HeadMeans(means),
            captions,
            mentions: Vec::new(),
            beyond: Beyond::default(),
        };
        let report = gradients(&text, &settings, &input, group, micro_batch, Kind::Float).unwrap();
        let (found, expected) = (total(&report, group), expected.as_f64().unwrap());
        worst = worst.max((found - expected).abs() / expected.max(1.0));
        assert!(worst < 1e-4, "step {step}: {found}, not {expected}");
        if step == 0 {
            for (name, tensor) in trained(&text) {
                let shown: Vec<f64> =
                    values(&tensor.grad()).into_iter().step_by((tensor.numel() / 12).max(1)).collect();
                let apart = off(&shown, &numbers(&all["first step in float64"]["gradients"][&name]));
                assert!(apart < 1e-5, "the gradient of {name} is off by {apart:e}");
            }
        }
        optimizer.step(optimizer_settings.lr_at(0, step as u64, 10)).unwrap();
        text.clamp_logit_scale();
    }
    let weights = compare_weights("talk2dino", &all, &trained(&text), 1e-4);
    eprintln!("talk2dino: losses differ by at most {worst:.1e}, weights by {weights:.1e}");
}

#[test]
fn ten_steps_of_talk2dino_are_pytorchs() {
    for micro_batch in [0, 1, 4] {
        ten_steps(&Group::alone(), micro_batch);
    }
}

/// As in the authors' code, projected prompts are averaged before the map, for `unscaled`; each is mapped for itself otherwise.
#[test]
fn class_vectors_go_through_the_map() {
    let text = text(16);
    let names = ["boat", "red ball"].map(str::to_owned);
    let templates = ["a photo of a {}.", "{}"].map(str::to_owned);
    let tokenizer = concepts::Tokenizer::clip();
    for by in [ClassVectors::Unscaled, ClassVectors::Caption] {
        let found = class_vectors(&text, &names, &templates, by, ComparedWith::Patches, Kind::Float).unwrap();
        assert_eq!(found.size(), [2, TOWER]);
        for (row, name) in names.iter().enumerate() {
            let prompts: Vec<Tensor> = templates
                .iter()
                .map(|template| {
                    let ids = tokenizer.encode(&template.replace("{}", name), 16).ids;
                    let ids: Vec<i64> = ids.into_iter().map(i64::from).collect();
                    let caption = CaptionTokens::new(&ids, 16, device());
                    let tokens = text.tokens(&caption, Kind::Float);
                    match by {
                        ClassVectors::Unscaled => text.unmapped_captions(&tokens, &caption.end),
                        _ => unit(&text.captions(&tokens, &caption.end)),
                    }
                })
                .collect();
            let mean = (&prompts[0] + &prompts[1]) / 2.0;
            let expected = unit(&if by == ClassVectors::Unscaled { text.mapped(&mean) } else { mean });
            let apart = off(&values(&found.get(row as i64)), &values(&expected));
            assert!(apart < 1e-6, "{by:?}, {name}: {apart:e}");
        }
    }
}

#[test]
fn settings_that_cannot_be_are_refused_by_name() {
    let base = ["objective.name=talk2dino", "text.weights=clip.pt"];
    for (change, message) in [
        (
            "vision.head.blocks=1",
            "`vision.head.blocks` is for a head that is trained behind the vision tower",
        ),
        ("vision.embedding=class+mean", "`vision.embedding` is for whole images"),
        ("objective.caption=sigmoid", "`objective.caption` must be infonce with objective talk2dino"),
        ("text.new_projection=true", "`text.new_projection` "),
        ("objective.gram_weight=1", "`objective.gram_weight` is 1, but without a head"),
    ] {
        refused(&[&base[..], &[change]].concat(), message);
    }
    let settings = settings_of(&base).unwrap();
    assert_eq!(settings.objective.name, Objective::Talk2dino);
    // A tower whose class token attends to nothing.
    let shape = |depth| VisionShape { width: 64, depth, patch: 8, grid: 4 };
    let check =
        |depth| frozen_tower::check_attention(&settings.vision, &VisionTower::random(shape(depth), device()));
    let error = check(0).unwrap_err().to_string();
    assert!(error.contains("tower.safetensors") && error.contains("has no blocks"), "{error}");
    check(1).unwrap();
}

/// What is known of the published training.
#[test]
fn the_preset_is_what_it_says() {
    let preset = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("presets/talk2dino.toml");
    let more = ["out=run", "data.shards=['shards']", "vision.weights=tower.safetensors"].map(str::to_owned);
    let settings = Settings::read(&[preset], &more).unwrap();
    assert_eq!(settings.objective.name, Objective::Talk2dino);
    assert_eq!((settings.data.loading.batch_size, settings.data.loading.size), (128, 448));
    assert_eq!(settings.optimizer.max_lr(128), 1e-4);
    assert_eq!(settings.objective.initial_logits(), (1.0 / 0.07, None));
    assert!(settings.text.quick_gelu);
}
