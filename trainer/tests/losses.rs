//! Compares concept pooling and both losses, values and gradients, with an independent float64 implementation in Python
//! (`tests/fixtures/losses/make.py`).

#![allow(clippy::unwrap_used, clippy::expect_used)]

use serde_json::Value;
use tch::{Device, Kind, Tensor};
use trainer::losses::{self, Concepts, Target};
use trainer::pooling::{Mention, Mentions};
use trainer::towers::unit;

/// Both sides compute in float64; the remaining difference comes from the order of summation.
const TOLERANCE: f64 = 1e-10;

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
}

fn close(name: &str, found: &Tensor, expected: &Value) {
    let expected = expected.as_f64().map_or_else(|| numbers(expected), |value| vec![value]);
    assert_eq!(found.numel(), expected.len(), "{name}: size");
    if expected.is_empty() {
        return;
    }
    let error = (found.reshape([-1]) - Tensor::from_slice(&expected)).abs().max().double_value(&[]);
    assert!(error < TOLERANCE, "{name}: off by {error:e}");
}

#[test]
fn values_and_gradients_are_the_references() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/losses/cases.json");
    let cases: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    assert_eq!(cases.as_object().unwrap().len(), 4);
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
        let contrastive = losses::contrastive(&z_cls, &captions, &log_scale.exp(), 0..batch);
        close(&format!("{name}: contrastive"), &contrastive, &case["contrastive"]);

        let loss = if mentions.is_empty() {
            contrastive
        } else {
            let mentions = Mentions::new(&mentions, tokens, Device::Cpu);
            let texts = unit(&mentions.mean_tokens(&z_t).matmul(&projection));
            let pooled = mentions.pool(&z_v, &texts, 0.1);
            let concepts = Concepts::new(mentions.labels(), Device::Cpu);
            let own = 0..concepts.mentions();
            let vectors = concepts.vectors(&texts);
            let concept = losses::concept(&pooled, &vectors, &concepts, &own, 1.0 / 0.07, Target::Label);
            close(&format!("{name}: texts"), &texts, &case["texts"]);
            close(&format!("{name}: pooled"), &pooled, &case["pooled"]);
            close(&format!("{name}: concept"), &concept.loss, &case["concept"]);
            contrastive + concept.loss * 0.05
        };
        loss.backward();
        let gradients = &case["gradients"];
        close(&format!("{name}: d z_t"), &z_t.grad(), &gradients["z_t"]);
        close(&format!("{name}: d projection"), &projection.grad(), &gradients["projection"]);
        close(&format!("{name}: d log_scale"), &log_scale.grad(), &gradients["log_scale"]);
    }
}
