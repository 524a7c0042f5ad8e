//! The layers of a transformer block.

use tch::{Device, Kind, Tensor};

use super::float8;
use crate::error::Result;
use crate::torch;
use crate::weights::Weights;

/// N(0, std), generated on the CPU, so that a seed gives the same weights on every device.
pub(super) fn normal(size: &[i64], std: f64, device: Device) -> Tensor {
    (Tensor::randn(size, (Kind::Float, Device::Cpu)) * std).to_device(device)
}

/// y = x Wᵀ + b, in the precision of x or in float8.
#[derive(Debug)]
pub(super) struct Linear {
    pub(super) weight: Tensor,
    pub(super) bias: Option<Tensor>,
    /// Of a weight in float8; `None` for all others.
    pub(super) scale: Option<Tensor>,
}

impl Linear {
    pub(super) fn forward(&self, x: &Tensor) -> Tensor {
        if let Some(scale) = &self.scale {
            #[expect(
                clippy::expect_used,
                reason = "as the functions of tch; the device was tried when the tower was opened"
            )]
            return float8::linear(x, [&self.weight, scale], self.bias.as_ref())
                .expect("a product in float8");
        }
        let kind = x.kind();
        x.linear(&self.weight.to_kind(kind), self.bias.as_ref().map(|bias| bias.to_kind(kind)))
    }

    /// gelu(x Wᵀ + b). In bfloat16 on a GPU, GELU (in its tanh approximation) is fused into the matrix product, which saves two
    /// passes through memory. The error is at most 5e-4, one eighth of the rounding error of bfloat16 at that size. Only frozen
    /// layers are in bfloat16. (libtorch fuses nothing into products in float8.)
    pub(super) fn forward_gelu(&self, x: &Tensor) -> Tensor {
        let fused = self.weight.kind() == Kind::BFloat16 && self.weight.device().is_cuda();
        if fused
            && let Some(bias) = &self.bias
            && let Ok(rows) = torch::linear_gelu(&x.flatten(0, -2), &self.weight, bias)
        {
            let mut size = x.size();
            size.pop();
            size.push(bias.size()[0]);
            return rows.view(size.as_slice());
        }
        self.forward(x).gelu("none")
    }

    /// The same layer in another precision, with its output multiplied by `scale`.
    pub(super) fn frozen(&self, kind: Kind, scale: Option<&Tensor>) -> Self {
        let bias = self.bias.as_ref();
        let (weight, bias) = match scale {
            Some(scale) => (&self.weight * scale.unsqueeze(1), bias.map(|bias| bias * scale)),
            None => (self.weight.shallow_clone(), bias.map(Tensor::shallow_clone)),
        };
        Self { weight: weight.to_kind(kind), bias: bias.map(|bias| bias.to_kind(kind)), scale: None }
    }

    /// The same layer with its product in float8.
    ///
    /// # Errors
    /// If there are no such products of this size.
    pub(super) fn in_float8(&self) -> Result<Self> {
        float8::check_size(&self.weight.size())?;
        let (weight, scale) = float8::quantize(&self.weight)?;
        let bias = self.bias.as_ref().map(|bias| bias.to_kind(Kind::BFloat16));
        Ok(Self { weight, bias, scale: Some(scale) })
    }

    /// Weights N(0, std), bias 0.
    pub(super) fn random(rows: i64, columns: i64, std: f64, device: Device) -> Self {
        Self {
            weight: normal(&[rows, columns], std, device),
            bias: Some(Tensor::zeros([rows], (Kind::Float, device))),
            scale: None,
        }
    }
}

/// LayerNorm over the last dimension, in float32. With weights of lower precision, input and output have that precision (the
/// statistics are still computed in float32).
#[derive(Debug)]
pub(super) struct Norm {
    pub(super) weight: Tensor,
    pub(super) bias: Tensor,
    pub(super) eps: f64,
}

impl Norm {
    pub(super) fn new(width: i64, eps: f64, device: Device) -> Self {
        Self {
            weight: Tensor::ones([width], (Kind::Float, device)),
            bias: Tensor::zeros([width], (Kind::Float, device)),
            eps,
        }
    }

    pub(super) fn read(weights: &mut Weights, name: &str, width: i64, eps: f64) -> Result<Self> {
        Ok(Self {
            weight: weights.take(&format!("{name}.weight"), &[width])?,
            bias: weights.take(&format!("{name}.bias"), &[width])?,
            eps,
        })
    }

    /// The same norm in another precision.
    pub(super) fn frozen(&self, kind: Kind) -> Self {
        Self { weight: self.weight.to_kind(kind), bias: self.bias.to_kind(kind), eps: self.eps }
    }

    pub(super) fn forward(&self, x: &Tensor) -> Tensor {
        let width = self.weight.size();
        let kind = self.weight.kind();
        let normed = x.to_kind(kind).layer_norm(width, Some(&self.weight), Some(&self.bias), self.eps, true);
        normed.to_kind(x.kind())
    }
}
