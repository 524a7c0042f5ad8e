//! The map of Talk2DINO (Barsellotti et al., 2024), which is trained behind a frozen text tower: from the embeddings of captions to the
//! space of a vision tower's patches.

use tch::{Device, Kind, Tensor};

use super::layers::Linear;
use crate::error::Result;
use crate::weights::Weights;

/// Before the names of its parameters in a checkpoint; the names after it are those of the authors' code.
pub(crate) const PREFIX: &str = "map.";
const FIRST: &str = "map.linear_layer";
const LAST: &str = "map.hidden_layers.0";

/// A linear layer, tanh, and another linear layer.
#[derive(Debug)]
pub(super) struct TextMap {
    first: Linear,
    last: Linear,
}

impl TextMap {
    /// New, from `input` to `output` numbers, with PyTorch's initialization of linear layers. It uses libtorch's random generator.
    pub(super) fn random(input: i64, output: i64, device: Device) -> Self {
        let layer = |columns: i64| {
            let bound = (columns as f64).powf(-0.5);
            let uniform = |size: &[i64]| (Tensor::rand(size, (Kind::Float, Device::Cpu)) * 2.0 - 1.0) * bound;
            Linear {
                weight: uniform(&[output, columns]).to_device(device),
                bias: Some(uniform(&[output]).to_device(device)),
                scale: None,
            }
        };
        Self { first: layer(input), last: layer(output) }
    }

    /// Whether a file has such a map.
    pub(super) fn is_in(weights: &Weights) -> bool {
        weights.has(&format!("{FIRST}.weight"))
    }

    /// Takes it out of a file.
    pub(super) fn take(weights: &mut Weights, input: i64, output: i64) -> Result<Self> {
        let mut layer = |name: &str, columns: i64| -> Result<Linear> {
            Ok(Linear {
                weight: weights.take(&format!("{name}.weight"), &[output, columns])?,
                bias: Some(weights.take(&format!("{name}.bias"), &[output])?),
                scale: None,
            })
        };
        Ok(Self { first: layer(FIRST, input)?, last: layer(LAST, output)? })
    }

    /// [.., input] -> [.., output].
    pub(super) fn forward(&self, x: &Tensor) -> Tensor {
        self.last.forward(&self.first.forward(x).tanh())
    }

    /// Width of what it gives.
    pub(super) fn output(&self) -> i64 {
        self.last.weight.size()[0]
    }

    /// All parameters.
    pub(super) fn named(&self) -> Vec<(String, Tensor)> {
        let mut out = Vec::new();
        for (name, layer) in [(FIRST, &self.first), (LAST, &self.last)] {
            out.push((format!("{name}.weight"), layer.weight.shallow_clone()));
            out.extend(layer.bias.iter().map(|bias| (format!("{name}.bias"), bias.shallow_clone())));
        }
        out
    }
}
