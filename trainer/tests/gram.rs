//! The Gram loss: values and gradients of an independent float64 implementation (`tests/fixtures/training/gram.py`), micro-batches, and
//! settings that cannot be. Ten steps with it are in `training`.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use serde_json::Value;
use tch::{Kind, Tensor};
use trainer::distributed::Group;
use trainer::method::gram::gram;
use trainer::method::losses;
use trainer::method::objective::{Images, Objective, ObjectiveSettings, StepInput, gradients};
use trainer::method::unmentioned::Beyond;
use trainer::towers::{Embedding, TextTower, VisionHead, unit};

use crate::vision_head::{WIDTH, all_gradients, apart, captions, frozen, head, text};
use crate::wave::wave;
use crate::{refused, settings_of};

#[test]
fn the_loss_and_its_gradient_are_the_references() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/training/gram.json");
    let all: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let case = &all["in float64"];
    let size = |name: &str| case[name].as_i64().unwrap();
    let shape = [size("batch"), size("patches"), size("width")];
    let tokens = |phase| wave(shape.iter().product::<i64>() as usize, phase).view(shape);
    let (headed, frozen) = (tokens(1).set_requires_grad(true), tokens(5));
    // In one piece, and as the sum over pieces of the batch.
    for pieces in [&[(0, 3)][..], &[(0, 1), (1, 2)]] {
        let parts: Vec<Tensor> = pieces
            .iter()
            .map(|&(first, count)| {
                let own = |all: &Tensor| all.narrow(0, first, count);
                gram(&own(&headed), &own(&frozen)) / shape[0] as f64
            })
            .collect();
        let loss = Tensor::stack(&parts, 0).sum(Kind::Double);
        assert!((loss.double_value(&[]) - case["loss"].as_f64().unwrap()).abs() < 1e-14);
        loss.backward();
        let expected: Vec<f64> = serde_json::from_value(case["gradient"].clone()).unwrap();
        let apart = (headed.grad().reshape([-1]) - Tensor::from_slice(&expected)).abs().max();
        assert!(apart.double_value(&[]) < 1e-14, "{apart:?}");
        let _ = headed.grad().zero_();
    }
}

fn towers() -> (VisionHead, TextTower) {
    (head(2, Embedding::Class, WIDTH), text(WIDTH))
}

/// The gradients are those of a single graph, written out here, for every size of micro-batches and with stochastic depth.
#[test]
fn gradients_of_a_step_do_not_depend_on_the_pieces() {
    let kept = wave(4 * 5, 1).view([4, 5]).to_kind(Kind::Float) + 1.0;
    let settings = ObjectiveSettings { name: Objective::Lit, gram_weight: 2.0, ..Default::default() };
    let (head, text) = towers();
    let seen = head.tokens(&frozen(), Some(&kept));
    let tokens = text.tokens(&captions(), Kind::Float);
    let embedded = unit(&text.captions(&tokens, &captions().end));
    let contrastive =
        losses::contrastive(&unit(&head.embed(&seen)), &embedded, &text.logit_scale(), 0..5, None);
    let loss = contrastive + gram(&seen.patches, &frozen().patches) * (2.0 / 5.0);
    loss.backward();
    let expected = all_gradients(&head, &text);
    for micro_batch in [0, 1, 2, 3] {
        let (head, text) = towers();
        let images = Images::Headed(&head, frozen(), Some(kept.shallow_clone()));
        let input =
            StepInput { images, captions: captions(), mentions: Vec::new(), beyond: Beyond::default() };
        let report = gradients(&text, &settings, &input, &Group::alone(), micro_batch, Kind::Float).unwrap();
        assert!((report.loss.double_value(&[]) - loss.double_value(&[])).abs() < 1e-5);
        for ((name, a), (_, b)) in expected.iter().zip(all_gradients(&head, &text)) {
            let off = apart(a, &b);
            assert!(off < 2e-5, "pieces of {micro_batch}: {name} off by {off:e}");
        }
    }
    // Without the weight there is no such loss.
    let (head, text) = towers();
    let images = Images::Headed(&head, frozen(), Some(kept));
    let input = StepInput { images, captions: captions(), mentions: Vec::new(), beyond: Beyond::default() };
    let settings = ObjectiveSettings { gram_weight: 0.0, ..settings };
    assert!(gradients(&text, &settings, &input, &Group::alone(), 0, Kind::Float).unwrap().gram.is_none());
}

#[test]
fn settings_that_cannot_be_are_refused_by_name() {
    for (changes, message) in [
        (&["objective.gram_weight=1"][..], "`objective.gram_weight` is 1, but without a head"),
        (&["objective.gram_weight=-1", "vision.head.blocks=2"], "`objective.gram_weight` must be 0 or more"),
        (&["objective.gram_weight=nan", "vision.head.blocks=2"], "`objective.gram_weight` must be 0 or more"),
        (
            &["objective.gram_weight=1", "objective.name=clip"],
            "`objective.gram_weight` is 1, but without a head",
        ),
    ] {
        refused(changes, message);
    }
    let settings = settings_of(&["objective.gram_weight=1", "vision.head.blocks=2"]).unwrap();
    assert_eq!(settings.objective.gram_weight, 1.0);
    // Runs without it are saved as before.
    assert!(!serde_json::to_string(&settings_of(&[]).unwrap()).unwrap().contains("gram"));
}
