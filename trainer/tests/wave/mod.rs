//! Weights that follow from a formula, so that they need not be stored: the same here and in the scripts of the fixtures.

use serde_json::Value;
use tch::{Device, Kind, Tensor};

/// The same numbers as `wave` in make.py.
pub(crate) fn wave(count: usize, phase: usize) -> Tensor {
    let values: Vec<f64> =
        (0..count).map(|i| (i as f64 * 1.7 + phase as f64 * 0.9 + (i % 7) as f64).sin()).collect();
    Tensor::from_slice(&values)
}

/// The same rule as `fill` in make.py.
pub(crate) fn fill(named: &[(String, Tensor)]) {
    let mut sorted: Vec<_> = named.iter().collect();
    sorted.sort_by(|a, b| a.0.cmp(&b.0));
    for (index, (name, tensor)) in sorted.into_iter().enumerate() {
        let size = tensor.size();
        let values = wave(tensor.numel(), index).view(size.as_slice());
        let values = if size.len() > 1 {
            let fan_in: i64 = size[1..].iter().product();
            if size[0] > 1 { values / (fan_in as f64).sqrt() } else { values }
        } else if name.ends_with("gamma") || name.ends_with("weight") {
            values * 0.3 + 1.0
        } else {
            values * 0.1
        };
        tch::no_grad(|| tensor.shallow_clone().copy_(&values.to_kind(Kind::Float)));
    }
}

/// Tensors of zeros with the keys and shapes that a fixture lists under `tensors`.
pub(crate) fn tensors(case: &Value) -> Vec<(String, Tensor)> {
    let tensor = |entry: &Value| {
        let size: Vec<i64> = serde_json::from_value(entry[1].clone()).unwrap();
        (entry[0].as_str().unwrap().to_owned(), Tensor::zeros(size, (Kind::Float, Device::Cpu)))
    };
    case["tensors"].as_array().unwrap().iter().map(tensor).collect()
}
