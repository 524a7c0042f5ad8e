//! Compares concept pooling and both losses, values and gradients, with an independent float64 implementation in Python
//! (`tests/fixtures/losses/make.py`).

#![allow(clippy::unwrap_used, clippy::expect_used)]

use serde_json::Value;
use tch::{Device, Kind, Tensor};
use trainer::method::concept_loss::{concept_loss, embed_mentions};
use trainer::method::losses::{self, Concepts, Target};
use trainer::method::objective::{ObjectiveSettings, Query, Scope, Tokens};
use trainer::method::pooling::{Mention, Mentions};
use trainer::method::unmentioned::Unmentioned;
use trainer::towers::unit;

/// Both sides compute in float64; the remaining difference comes from the order of summation.
const TOLERANCE: f64 = 1e-10;

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
}

/// Returns the largest difference.
fn close(name: &str, found: &Tensor, expected: &Value) -> f64 {
    let expected = expected.as_f64().map_or_else(|| numbers(expected), |value| vec![value]);
    assert_eq!(found.numel(), expected.len(), "{name}: size");
    let error = (found.reshape([-1]) - Tensor::from_slice(&expected)).abs().max().double_value(&[]);
    assert!(error < TOLERANCE, "{name}: off by {error:e}");
    error
}

fn settings(case: &Value) -> ObjectiveSettings {
    let settings = &case["settings"];
    ObjectiveSettings {
        target: if settings["target"] == "argmax" { Target::Argmax } else { Target::Label },
        query: if settings["query"] == "concept" { Query::Concept } else { Query::Mention },
        tokens: if settings["tokens"] == "unit" { Tokens::Unit } else { Tokens::Mean },
        concepts: if settings["concepts"] == "rank" { Scope::Rank } else { Scope::Global },
        ..ObjectiveSettings::default()
    }
}

/// The concepts of each rank, the embeddings of its mentions, and their sums by concept; `texts`: of all mentions, in the order of the ranks.
pub(crate) fn of_ranks(labels: &[Vec<i64>], texts: &Tensor) -> Vec<(Concepts, Tensor, Tensor)> {
    let mut first = 0;
    let of_rank = |(rank, own): (usize, &Vec<i64>)| {
        let concepts = Concepts::new(labels, rank, Device::Cpu);
        let texts = texts.narrow(0, first, own.len() as i64);
        first += own.len() as i64;
        let sums = concepts.sum(&texts);
        (concepts, texts, sums)
    };
    labels.iter().enumerate().map(of_rank).collect()
}

/// The sums by concept over all ranks.
pub(crate) fn total(of_ranks: &[(Concepts, Tensor, Tensor)]) -> Tensor {
    let sums: Vec<&Tensor> = of_ranks.iter().map(|(_, _, sums)| sums).collect();
    Tensor::stack(&sums, 0).sum_dim_intlist([0i64].as_slice(), false, None)
}

#[test]
fn values_and_gradients_are_the_references() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/losses/cases.json");
    let cases: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    assert_eq!(cases.as_object().unwrap().len(), 13);
    let mut worst = 0.0_f64;
    for (name, case) in cases.as_object().unwrap() {
        let size = |part: &str| case["shape"][part].as_i64().unwrap();
        let (batch, tokens) = (size("batch"), size("tokens"));
        let tensor = |part: &str, shape: &[i64]| Tensor::from_slice(&numbers(&case[part])).view(shape);
        let z_t = tensor("z_t", &[batch, tokens, size("text_width")]).set_requires_grad(true);
        let projection =
            tensor("projection", &[size("text_width"), size("vision_width")]).set_requires_grad(true);
        let log_scale = Tensor::from(case["log_scale"].as_f64().unwrap()).set_requires_grad(true);
        let z_v = unit(&tensor("z_v", &[batch, size("patches"), size("vision_width")]));
        let z_cls = unit(&tensor("z_cls", &[batch, size("vision_width")]));
        let mentions: Vec<Mention> = case["mentions"]
            .as_array()
            .unwrap()
            .iter()
            .map(|m| {
                let [row, first, end, label] = numbers(m)[..] else { panic!("{m}") };
                Mention { row: row as u32, label: label as u32, positions: first as u32..end as u32 }
            })
            .collect();

        let rows = Tensor::arange(batch, (Kind::Int64, Device::Cpu));
        let ends = Tensor::from_slice(&numbers(&case["ends"])).to_kind(Kind::Int64);
        let captions = unit(&z_t.index(&[Some(rows), Some(ends)]).matmul(&projection));
        let contrastive = losses::contrastive(&z_cls, &captions, &log_scale.exp(), 0..batch, None);
        worst = worst.max(close(&format!("{name}: contrastive"), &contrastive, &case["contrastive"]));

        let settings = settings(case);
        let mut loss = contrastive;
        if !mentions.is_empty() {
            let all = Mentions::new(&mentions, tokens, Device::Cpu);
            let texts = embed_mentions(settings.tokens, &all, &z_t, |rows| rows.matmul(&projection));
            // Each rank has as many rows of the batch as the others.
            let ranks = case["ranks"].as_u64().unwrap() as usize;
            let rows = batch / ranks as i64;
            let parts: Vec<Vec<Mention>> = (0..ranks as u32)
                .map(|rank| {
                    let first = rank * rows as u32;
                    let own = mentions.iter().filter(|m| (first..first + rows as u32).contains(&m.row));
                    own.map(|m| Mention { row: m.row - first, ..m.clone() }).collect()
                })
                .collect();
            let labels: Vec<Vec<i64>> =
                parts.iter().map(|own| own.iter().map(|m| i64::from(m.label)).collect()).collect();
            let zero = || Tensor::zeros([] as [i64; 0], (Kind::Double, Device::Cpu));
            let of_ranks = of_ranks(&labels, &texts);
            let all_sums = total(&of_ranks);
            let (mut concept, mut accuracy) = (zero(), zero());
            for (rank, own) in parts.iter().enumerate() {
                let patches = z_v.narrow(0, rank as i64 * rows, rows);
                let own = Mentions::new(own, tokens, Device::Cpu);
                let (concepts, texts, own_sums) = &of_ranks[rank];
                let sums = if settings.concepts == Scope::Rank { own_sums } else { &all_sums };
                let none = Unmentioned::default();
                let part = concept_loss(&settings, &patches, &own, texts, concepts, sums, &none);
                concept += part.loss;
                accuracy += part.accuracy;
            }
            worst = worst.max(close(&format!("{name}: concept"), &concept, &case["concept"]));
            let accuracy = accuracy.double_value(&[]) - case["accuracy"].as_f64().unwrap();
            assert!(accuracy.abs() < 1e-6, "{name}: the concept accuracy is off by {accuracy}");
            loss += concept * settings.concept_weight;
        }
        loss.backward();
        let gradients = &case["gradients"];
        worst = worst.max(close(&format!("{name}: d z_t"), &z_t.grad(), &gradients["z_t"]));
        worst =
            worst.max(close(&format!("{name}: d projection"), &projection.grad(), &gradients["projection"]));
        worst = worst.max(close(&format!("{name}: d log_scale"), &log_scale.grad(), &gradients["log_scale"]));
    }
    eprintln!("losses and gradients differ by at most {worst:.1e}");
}
