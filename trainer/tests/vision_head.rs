//! What is trained behind a frozen vision tower, and the sigmoid loss: values and gradients of an independent float64 implementation
//! (`tests/fixtures/training/frontier.py`), and micro-batches.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use serde_json::Value;
use tch::{Device, Kind, Tensor};
use trainer::distributed::Group;
use trainer::method::concept_loss::concept_loss;
use trainer::method::losses::{self, Concepts};
use trainer::method::objective::{Images, Objective, ObjectiveSettings, StepInput, gradients};
use trainer::method::pooling::{Mention, Mentions};
use trainer::method::sigmoid;
use trainer::method::unmentioned::{Beyond, Unmentioned};
use trainer::settings::{Settings, VisionSettings};
use trainer::towers::{CaptionTokens, Embedding, TextShape, TextTower, VisionFeatures, VisionHead, unit};

use crate::wave::{fill, wave};
use crate::{refused, settings_of};

fn fixture() -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/training/frontier.json");
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

pub(crate) fn head(blocks: i64, embedding: Embedding, width: i64) -> VisionHead {
    let head = VisionHead::random(blocks, embedding, width, Device::Cpu);
    fill(&head.named());
    head
}

/// The values that the fixture shows of a tensor, at even distances, and the largest difference from these, divided by the largest
/// of them if that is above 1.
fn off(found: &Tensor, expected: &Value, count: usize) -> f64 {
    let expected: Vec<f64> = serde_json::from_value(expected.clone()).unwrap();
    let values = Vec::<f64>::try_from(found.detach().reshape([-1]).to_kind(Kind::Double)).unwrap();
    let step = values.len().div_ceil(count);
    let shown: Vec<f64> = values.into_iter().step_by(step).collect();
    assert_eq!(shown.len(), expected.len());
    let largest = expected.iter().map(|value| value.abs()).fold(1.0, f64::max);
    shown.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max) / largest
}

#[test]
fn the_head_and_its_gradients_are_the_references() {
    let all = fixture();
    let case = &all["head in float64"];
    let size = |name: &str| case[name].as_i64().unwrap();
    let (batch, patches, width) = (size("batch"), size("patches"), size("width"));
    let head = head(size("blocks"), Embedding::ClassMean, width);
    let tokens = wave((batch * (1 + patches) * width) as usize, 3).view([batch, 1 + patches, width]);
    let tokens = tokens.to_kind(Kind::Float);
    let frozen = VisionFeatures { class: tokens.select(1, 0), patches: tokens.narrow(1, 1, patches) };
    let kept: Vec<f32> = serde_json::from_value(case["kept"].clone()).unwrap();
    let kept = Tensor::from_slice(&kept).view([4, batch]);
    for (name, kept) in [("inference", None), ("training", Some(&kept))] {
        let case = &case[name];
        let tokens = head.tokens(&frozen, kept);
        let embedded = head.embed(&tokens);
        assert_eq!(embedded.size(), [batch, 2 * width]);
        assert!(off(&embedded, &case["embedding"], 60) < 1e-5, "{name}");
        assert!(off(&tokens.patches, &case["patches"], 60) < 1e-5, "{name}");
        let weighed = |x: &Tensor, phase: usize| {
            let weights = wave(x.numel(), phase).view(x.size().as_slice()).to_kind(Kind::Float);
            (x * weights).sum(Kind::Float)
        };
        (weighed(&embedded, 8) + weighed(&tokens.patches, 9)).backward();
        let named = head.named();
        assert_eq!(named.len(), case["gradients"].as_object().unwrap().len());
        for (parameter, tensor) in named {
            let off = off(&tensor.grad(), &case["gradients"][&parameter], 12);
            // Both halves of a block are rounded to float32, with another attention kernel than the formula.
            assert!(off < 1e-4, "{name}: the gradient of {parameter} is off by {off:e}");
            let _ = tensor.grad().zero_();
        }
    }
}

#[test]
fn the_sigmoid_loss_and_its_gradients_are_the_references() {
    let all = fixture();
    let case = &all["sigmoid in float64"];
    let size = |name: &str| case[name].as_i64().unwrap();
    let (batch, width) = (size("batch"), size("width"));
    // By one call, and by the sum over the ranks' rows.
    for of_ranks in [false, true] {
        let rows = |phase| wave((batch * width) as usize, phase).view([batch, width]).set_requires_grad(true);
        let (images, captions) = (rows(1), rows(2));
        let number = |name: &str| Tensor::from(case[name].as_f64().unwrap()).set_requires_grad(true);
        let (log_scale, bias) = (number("log_scale"), number("bias"));
        let [x, y] = [&images, &captions].map(unit);
        let part = |own| sigmoid::sigmoid(&x, &y, &log_scale.exp(), &bias, own, None);
        let loss = if of_ranks { part(0..3) + part(3..5) + part(5..batch) } else { part(0..batch) };
        loss.backward();
        let apart = (loss.double_value(&[]) - case["loss"].as_f64().unwrap()).abs();
        assert!(apart < 1e-12, "{apart:e}");
        let gradients = &case["gradients"];
        for (name, tensor) in [("images", &images), ("captions", &captions)] {
            assert!(off(&tensor.grad(), &gradients[name], usize::MAX) < 1e-12, "{name}");
        }
        for (name, tensor) in [("log_scale", &log_scale), ("bias", &bias)] {
            let apart = (tensor.grad().double_value(&[]) - gradients[name].as_f64().unwrap()).abs();
            assert!(apart < 1e-12, "{name}: {apart:e}");
        }
    }
}

const CAPTIONS: [&str; 5] =
    ["a red ball on the grass", "snow", "two small boats and a ball", "the ball near a boat", "grass"];
pub(crate) const WIDTH: i64 = 64;
const PATCHES: i64 = 9;

fn mentions() -> Vec<Mention> {
    let mention = |row, label, positions| Mention { row, label, positions };
    vec![
        mention(0, 4, 2..4),
        mention(0, 1, 6..7),
        mention(2, 9, 2..4),
        mention(2, 4, 6..7),
        mention(3, 4, 2..3),
    ]
}

pub(crate) fn text(output: i64) -> TextTower {
    let shape = TextShape { width: 32, depth: 2, heads: 2, context: 16 };
    let tower = TextTower::random(shape, output, Device::Cpu).with_patches(WIDTH);
    fill(&tower.named());
    tower
}

pub(crate) fn captions() -> CaptionTokens {
    let tokenizer = concepts::Tokenizer::clip();
    let ids: Vec<i64> =
        CAPTIONS.iter().flat_map(|caption| tokenizer.encode(caption, 16).ids).map(i64::from).collect();
    CaptionTokens::new(&ids, 16, Device::Cpu)
}

pub(crate) fn frozen() -> VisionFeatures {
    let numbers =
        |size: &[i64]| wave(size.iter().product::<i64>() as usize, 4).view(size).to_kind(Kind::Float);
    VisionFeatures { class: numbers(&[5, WIDTH]), patches: numbers(&[5, PATCHES, WIDTH]) }
}

pub(crate) fn all_gradients(head: &VisionHead, text: &TextTower) -> Vec<(String, Tensor)> {
    text.named().into_iter().chain(head.named()).map(|(name, p)| (name, p.grad())).collect()
}

/// The largest difference, divided by the largest value if that is above 1.
pub(crate) fn apart(a: &Tensor, b: &Tensor) -> f64 {
    (a - b).abs().max().double_value(&[]) / a.abs().max().double_value(&[]).max(1.0)
}

/// The gradients of all parameters are those of a single graph, written out here, for every size of micro-batches.
#[test]
fn gradients_of_a_step_with_a_head_do_not_depend_on_the_pieces() {
    let kept = wave(4 * 5, 1).view([4, 5]).to_kind(Kind::Float) + 1.0;
    for (embedding, objective) in [
        (Embedding::ClassMean, Objective::Simzss),
        (Embedding::Class, Objective::Simzss),
        (Embedding::ClassMean, Objective::Lit),
    ] {
        let settings = ObjectiveSettings { name: objective, concept_weight: 0.5, ..Default::default() };
        let drawn = || (head(2, embedding, WIDTH), text(embedding.width(WIDTH)));
        let (head, text) = drawn();
        let seen = head.tokens(&frozen(), Some(&kept));
        let (images, captions_) = (unit(&head.embed(&seen)), captions());
        let tokens = text.tokens(&captions_, Kind::Float);
        let embedded = unit(&text.captions(&tokens, &captions_.end));
        let mut loss = losses::contrastive(&images, &embedded, &text.logit_scale(), 0..5, None);
        if objective == Objective::Simzss {
            let all = Mentions::new(&mentions(), tokens.size()[1], Device::Cpu);
            let projected = text.project(&all.mean_tokens(&tokens));
            let words = unit(&projected.narrow(1, projected.size()[1] - WIDTH, WIDTH));
            let labels = vec![mentions().iter().map(|m| i64::from(m.label)).collect::<Vec<_>>()];
            let concepts = Concepts::new(&labels, 0, Device::Cpu);
            let (patches, sums, none) = (unit(&seen.patches), concepts.sum(&words), Unmentioned::default());
            let part = concept_loss(&settings, &patches, &all, &words, &concepts, &sums, &none);
            loss += part.loss * settings.concept_weight;
        }
        loss.backward();
        let expected = all_gradients(&head, &text);
        for micro_batch in [0, 1, 2, 3] {
            let (head, text) = drawn();
            let images = Images::Headed(&head, frozen(), Some(kept.shallow_clone()));
            let input =
                StepInput { images, captions: captions(), mentions: mentions(), beyond: Beyond::default() };
            let report =
                gradients(&text, &settings, &input, &Group::alone(), micro_batch, Kind::Float).unwrap();
            assert!((report.loss.double_value(&[]) - loss.double_value(&[])).abs() < 1e-5);
            for ((name, a), (_, b)) in expected.iter().zip(all_gradients(&head, &text)) {
                assert!(a.defined() && b.defined(), "{name} has a gradient");
                let off = apart(a, &b);
                assert!(
                    off < 2e-5,
                    "{embedding:?}, {objective}, pieces of {micro_batch}: {name} off by {off:e}"
                );
            }
        }
    }
}

/// A batch without mentions trains the head by its captions alone.
#[test]
fn a_step_without_mentions_trains_the_head_too() {
    let settings = ObjectiveSettings::default();
    let (head, text) = (head(1, Embedding::ClassMean, WIDTH), text(2 * WIDTH));
    let images = Images::Headed(&head, frozen(), None);
    let input = StepInput { images, captions: captions(), mentions: Vec::new(), beyond: Beyond::default() };
    let report = gradients(&text, &settings, &input, &Group::alone(), 2, Kind::Float).unwrap();
    assert_eq!(report.concept.unwrap().double_value(&[]), 0.0);
    for (name, tensor) in head.named() {
        assert!(tensor.grad().abs().max().double_value(&[]) > 0.0, "{name}");
    }
}

#[test]
fn settings_that_cannot_be_are_refused_by_name() {
    for (changes, message) in [
        (&["vision.head.blocks=3"][..], "`vision.head.blocks` must be 0 to 2"),
        (&["vision.head.drop_path=1"], "`vision.head.drop_path` must be at least 0"),
        (
            &["vision.head.blocks=1", "objective.name=clip"],
            "`vision.head.blocks` is for a frozen vision tower",
        ),
        (&["vision.embedding=class+mean", "objective.name=clip"], "`vision.embedding` is for a frozen"),
        (
            &["vision.embedding=mean"],
            "`vision.embedding` cannot be mean: it must be one of `class`, `class+mean`",
        ),
        (&["objective.caption=siglip"], "it must be one of `infonce`, `sigmoid`"),
        (&["objective.logit_scale=0.5"], "`objective.logit_scale` must be 1 to 100"),
    ] {
        refused(changes, message);
    }
    let settings = settings_of(&["vision.head.blocks=2", "vision.embedding=class+mean"]).unwrap();
    assert_eq!((settings.vision.head.blocks, settings.vision.embedding), (2, Embedding::ClassMean));
    // Without them, as in the paper.
    let VisionSettings { head, embedding, .. } = settings_of(&[]).unwrap().vision;
    assert_eq!((head.blocks, embedding), (0, Embedding::Class));
}

#[test]
fn presets_beyond_the_paper_are_what_they_say() {
    let read = |name: &str| {
        let preset = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("presets/{name}.toml"));
        let more = ["out=run", "data.shards=['shards']", "vision.weights=tower.safetensors"];
        Settings::read(&[preset], &more.map(str::to_owned)).unwrap()
    };
    let [dinotxt, frontier, head, siglit, several] =
        ["dinotxt", "frontier", "head", "siglit", "several"].map(read);
    for (settings, objective, blocks) in [
        (&dinotxt, Objective::Lit, 2),
        (&head, Objective::Simzss, 2),
        (&frontier, Objective::Simzss, 0),
        (&several, Objective::Simzss, 0),
    ] {
        assert_eq!(settings.objective.name, objective);
        assert_eq!((settings.vision.head.blocks, settings.vision.embedding), (blocks, Embedding::ClassMean));
    }
    // 2,000 steps of warm-up.
    let warm_up = dinotxt.optimizer.warmup * dinotxt.steps as f64;
    assert!((warm_up - 2000.0).abs() < 1e-9);
    assert_eq!(siglit.objective.initial_logits(), (10.0, Some(-2.71)));
    assert_eq!(siglit.vision.head.blocks, 0);
    assert_eq!(several.objective.siblings, trainer::method::unmentioned::Siblings::Ignore);
    for settings in [&frontier, &several] {
        assert_eq!(settings.objective.patch_weight, 2.0 * settings.objective.concept_weight);
    }
}
