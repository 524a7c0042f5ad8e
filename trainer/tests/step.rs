//! The phases of a step: gradients do not depend on the size of micro-batches, and a batch without mentions works.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use tch::{Device, Kind, Tensor};
use trainer::data::seen;
use trainer::distributed::Group;
use trainer::method::objective::{Images, Objective, ObjectiveSettings, StepInput, gradients};
use trainer::method::pooling::Mention;
use trainer::method::unmentioned::Beyond;
use trainer::towers::{
    CaptionTokens, ClipShape, ClipVisionTower, TextShape, TextTower, VisionFeatures, unit,
};

use crate::wave::{fill, wave};

const CAPTIONS: [&str; 5] =
    ["a red ball on the grass", "snow", "two small boats and a ball", "the ball near a boat", "grass"];

/// Weights by a formula: what other tests draw from libtorch's generator meanwhile does not matter.
fn tower() -> TextTower {
    let shape = TextShape { width: 32, depth: 2, heads: 2, context: 16 };
    let tower = TextTower::random(shape, 24, Device::Cpu);
    fill(&tower.named());
    tower
}

fn input(mentions: Vec<Mention>) -> StepInput<'static> {
    let tokenizer = concepts::Tokenizer::clip();
    let ids: Vec<i64> =
        CAPTIONS.iter().flat_map(|caption| tokenizer.encode(caption, 16).ids).map(i64::from).collect();
    let numbers =
        |size: &[i64]| wave(size.iter().product::<i64>() as usize, 4).view(size).to_kind(Kind::Float);
    StepInput {
        images: Images::Seen(seen(
            &VisionFeatures { class: numbers(&[5, 24]), patches: numbers(&[5, 9, 24]) },
            true,
            Kind::Float,
        )),
        captions: CaptionTokens::new(&ids, 16, Device::Cpu),
        mentions,
        beyond: Beyond::default(),
    }
}

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

/// The loss and all gradients, by name.
fn step(objective: Objective, mentions: Vec<Mention>, micro_batch: usize) -> (f64, Vec<(String, Tensor)>) {
    step_on(objective, || input(mentions), micro_batch)
}

fn step_on(
    objective: Objective,
    input: impl FnOnce() -> StepInput<'static>,
    micro_batch: usize,
) -> (f64, Vec<(String, Tensor)>) {
    let text = tower();
    let settings = ObjectiveSettings { name: objective, concept_weight: 0.5, ..Default::default() };
    let report = gradients(&text, &settings, &input(), &Group::alone(), micro_batch, Kind::Float).unwrap();
    let named = text.named().into_iter().map(|(name, p)| (name, p.grad())).collect();
    (report.loss.double_value(&[]), named)
}

/// For gradients: float32 sums of some thousand products, in an order that depends on the CPU and on the pieces.
const TOLERANCE: f64 = 2e-5;

/// The largest difference, divided by the largest value if that is above 1.
fn apart(a: &Tensor, b: &Tensor) -> f64 {
    (a - b).abs().max().double_value(&[]) / a.abs().max().double_value(&[]).max(1.0)
}

/// Cached features: the patches of images without mentions are not read.
#[test]
fn patches_of_images_without_mentions_are_not_needed() {
    let (expected_loss, expected) = step(Objective::Simzss, mentions(), 0);
    for micro_batch in [0, 2] {
        let some = || {
            let mut input = input(mentions());
            let Images::Seen(VisionFeatures { class, patches }) = input.images else { unreachable!() };
            let patches = patches.index_select(0, &Tensor::from_slice(&[0_i64, 2, 3]));
            input.images = Images::SeenInPart(VisionFeatures { class, patches }, vec![0, 2, 3]);
            input
        };
        let (loss, found) = step_on(Objective::Simzss, some, micro_batch);
        assert!((loss - expected_loss).abs() < 1e-5, "{loss} {expected_loss}");
        for ((name, found), (_, expected)) in found.iter().zip(&expected) {
            assert!(apart(found, expected) < TOLERANCE, "{name}, micro-batches of {micro_batch}");
        }
    }
}

#[test]
fn gradients_do_not_depend_on_the_pieces() {
    for objective in [Objective::Simzss, Objective::Lit] {
        let (whole_loss, whole) = step(objective, mentions(), 0);
        for micro_batch in [1, 2, 3] {
            let (loss, pieces) = step(objective, mentions(), micro_batch);
            assert!((loss - whole_loss).abs() < 1e-5, "{objective}, pieces of {micro_batch}");
            for ((name, a), (_, b)) in whole.iter().zip(&pieces) {
                assert!(a.defined() && b.defined(), "{name} has a gradient");
                let error = apart(a, b);
                assert!(
                    error < TOLERANCE,
                    "{objective}, pieces of {micro_batch}: {name} differs by {error:e}"
                );
            }
        }
    }
}

#[test]
fn the_concept_loss_reaches_the_tower_and_a_batch_without_mentions_is_lits() {
    let (lit, lit_gradients) = step(Objective::Lit, mentions(), 0);
    let (simzss, simzss_gradients) = step(Objective::Simzss, mentions(), 0);
    assert!((simzss - lit).abs() > 1e-3);
    let differs = |(a, b): (&(String, Tensor), &(String, Tensor))| apart(&a.1, &b.1) > 1e-5;
    assert!(lit_gradients.iter().zip(&simzss_gradients).any(differs));

    let (empty, empty_gradients) = step(Objective::Simzss, Vec::new(), 2);
    assert!((empty - lit).abs() < 1e-6);
    assert!(!lit_gradients.iter().zip(&empty_gradients).any(differs));
}

/// The gradients of CLIP's vision tower from the same phases, with and without micro-batches, are those of a single graph.
#[test]
fn clip_trains_both_towers() {
    let draw = || {
        let shape = ClipShape { width: 64, depth: 2, patch: 8, output: 24 };
        let vision = ClipVisionTower::random(shape, 2, Kind::Float, Device::Cpu).trainable();
        fill(&vision.named());
        let pixels = wave(5 * 3 * 16 * 16, 7).view([5, 3, 16, 16]).to_kind(Kind::Float);
        (vision, tower(), pixels)
    };
    let gradients_of = |vision: &ClipVisionTower, text: &TextTower| -> Vec<(String, Tensor)> {
        text.named().into_iter().chain(vision.named()).map(|(name, p)| (name, p.grad())).collect()
    };

    let (vision, text, pixels) = draw();
    let captions = input(Vec::new()).captions;
    let images = unit(&vision.forward(&pixels).class);
    let embedded = unit(&text.captions(&text.tokens(&captions, Kind::Float), &captions.end));
    let logits = images.matmul(&embedded.transpose(0, 1)) * text.logit_scale();
    let target = Tensor::arange(5, (Kind::Int64, Device::Cpu));
    let textbook = (logits.cross_entropy_for_logits(&target)
        + logits.transpose(0, 1).cross_entropy_for_logits(&target))
        / 2.0;
    textbook.backward();
    let expected = gradients_of(&vision, &text);
    assert!(expected.iter().any(|(name, _)| name == "visual.proj"));

    for micro_batch in [0, 2] {
        let (vision, text, pixels) = draw();
        let captions = input(Vec::new()).captions;
        let input = StepInput {
            images: Images::ToTrain(&vision, pixels),
            captions,
            mentions: Vec::new(),
            beyond: Beyond::default(),
        };
        let settings = ObjectiveSettings { name: Objective::Clip, ..Default::default() };
        let report = gradients(&text, &settings, &input, &Group::alone(), micro_batch, Kind::Float).unwrap();
        assert!((report.loss.double_value(&[]) - textbook.double_value(&[])).abs() < 1e-5);
        for ((name, a), (_, b)) in expected.iter().zip(gradients_of(&vision, &text)) {
            let error = apart(a, &b);
            assert!(error < TOLERANCE, "pieces of {micro_batch}: {name} differs by {error:e}");
        }
    }
}
