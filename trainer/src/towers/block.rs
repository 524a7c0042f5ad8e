//! The pre-norm transformer block of all towers: as in DINOv2 and DINOv3 (with LayerScale, bidirectional attention) and as in CLIP's
//! text tower (causal attention).

use tch::{Device, Kind, Tensor};

use super::block_keys::{Gated, Names};
use super::captions::Packed;
use super::full_precision;
use super::layers::{Linear, Norm};
use super::rotary::Rotation;
use crate::error::Result;
use crate::weights::Weights;

/// Activation function of the MLP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Activation {
    /// Exact (erf) GELU.
    #[default]
    Gelu,
    /// GELU in its tanh approximation, with which SigLIP was trained.
    GeluTanh,
    /// x sigmoid(1.702 x), with which OpenAI's CLIPs were trained.
    QuickGelu,
    /// silu(a) b of the two halves of the first layer's output, as in DINOv2-g and DINOv3's S+, L+ and H+.
    SwiGlu,
}

impl Activation {
    /// The function of the output of a layer.
    pub(super) fn after(self, layer: &Linear, x: &Tensor) -> Tensor {
        match self {
            Self::Gelu => layer.forward_gelu(x),
            Self::GeluTanh => layer.forward(x).gelu("tanh"),
            Self::QuickGelu => {
                let hidden = layer.forward(x);
                &hidden * (&hidden * 1.702).sigmoid()
            }
            Self::SwiGlu => {
                let halves = layer.forward(x).chunk(2, -1);
                halves[0].silu() * &halves[1]
            }
        }
    }
}

/// Standard deviations of the initial weights of a block.
pub(super) struct Init {
    pub(super) qkv: f64,
    pub(super) proj: f64,
    pub(super) fc1: f64,
    pub(super) fc2: f64,
    /// Initial value of LayerScale; `None` for blocks without LayerScale.
    pub(super) layer_scale: Option<f64>,
}

/// One block. A new block's MLP is four times as wide as the tokens; when a block is read, the width follows from its weights.
#[derive(Debug)]
pub(super) struct Block {
    heads: i64,
    activation: Activation,
    norm1: Norm,
    qkv: Linear,
    proj: Linear,
    scale1: Option<Tensor>,
    norm2: Norm,
    fc1: Linear,
    fc2: Linear,
    scale2: Option<Tensor>,
}

impl Block {
    pub(super) fn random(width: i64, heads: i64, eps: f64, init: &Init, device: Device) -> Self {
        let scale = || init.layer_scale.map(|s| Tensor::full([width], s, (Kind::Float, device)));
        Self {
            heads,
            activation: Activation::default(),
            norm1: Norm::new(width, eps, device),
            qkv: Linear::random(3 * width, width, init.qkv, device),
            proj: Linear::random(width, width, init.proj, device),
            scale1: scale(),
            norm2: Norm::new(width, eps, device),
            fc1: Linear::random(4 * width, width, init.fc1, device),
            fc2: Linear::random(width, 4 * width, init.fc2, device),
            scale2: scale(),
        }
    }

    /// With a gated MLP whose hidden width is `hidden`, and without biases of queries, keys and values.
    pub(super) fn random_gated(
        width: i64,
        heads: i64,
        eps: f64,
        hidden: i64,
        init: &Init,
        device: Device,
    ) -> Self {
        let qkv = Linear { bias: None, ..Linear::random(3 * width, width, init.qkv, device) };
        Self {
            activation: Activation::SwiGlu,
            qkv,
            fc1: Linear::random(2 * hidden, width, init.fc1, device),
            fc2: Linear::random(width, hidden, init.fc2, device),
            ..Self::random(width, heads, eps, init, device)
        }
    }

    pub(super) fn read(
        weights: &mut Weights,
        prefix: &str,
        names: &Names,
        width: i64,
        heads: i64,
        eps: f64,
    ) -> Result<Self> {
        let qkv = read_qkv(weights, prefix, names, width)?;
        let mut linear = |name: &str, rows: i64, columns: i64| -> Result<Linear> {
            Ok(Linear {
                weight: weights.take(&format!("{prefix}{name}.weight"), &[rows, columns])?,
                bias: Some(weights.take(&format!("{prefix}{name}.bias"), &[rows])?),
                scale: None,
            })
        };
        let proj = linear(names.proj, width, width)?;
        let (activation, [fc1, fc2]) = read_mlp(weights, prefix, names, width)?;
        // timm's models without LayerScale have no such tensor.
        let mut scale = |name: Option<&str>| match name.map(|n| format!("{prefix}{n}")) {
            Some(name) if weights.has(&name) => weights.take(&name, &[width]).map(Some),
            _ => Ok(None),
        };
        let (scale1, scale2) = (scale(names.scale1)?, scale(names.scale2)?);
        let norm1 = Norm::read(weights, &format!("{prefix}{}", names.norm1), width, eps)?;
        let norm2 = Norm::read(weights, &format!("{prefix}{}", names.norm2), width, eps)?;
        Ok(Self { heads, activation, norm1, qkv, proj, scale1, norm2, fc1, fc2, scale2 })
    }

    /// x: [B, T, d].
    pub(super) fn forward(&self, x: &Tensor, causal: bool) -> Tensor {
        self.forward_with(x, causal, None)
    }

    /// The same, causal, for the tokens of captions one after the other: x: [n, d].
    pub(super) fn forward_packed(&self, x: &Tensor, packed: &Packed) -> Tensor {
        let qkv = packed.spread(&self.qkv.forward(&self.norm1.forward(x)));
        let seen = packed.collect(&self.attend(&qkv, true, None));
        self.with_mlp(&(x + scaled(self.proj.forward(&seen), self.scale1.as_ref())))
    }

    /// The same, with queries and keys that are rotated by their positions.
    pub(super) fn forward_with(&self, x: &Tensor, causal: bool, rotation: Option<&Rotation>) -> Tensor {
        let attended = self.attention(&self.norm1.forward(x), causal, rotation);
        self.with_mlp(&(x + scaled(attended, self.scale1.as_ref())))
    }

    /// The same, for inputs of which each half of the block is multiplied with a factor, `[B]`: stochastic depth.
    pub(super) fn forward_kept(&self, x: &Tensor, kept: Option<&[Tensor; 2]>) -> Tensor {
        let Some(kept) = kept else { return self.forward(x, false) };
        let [attention, mlp] = kept.each_ref().map(|factors| factors.view([-1, 1, 1]).to_kind(x.kind()));
        let attended = self.attention(&self.norm1.forward(x), false, None);
        let x = x + scaled(attended, self.scale1.as_ref()) * attention;
        &x + self.mlp(&x) * mlp
    }

    /// The input of its attention.
    pub(super) fn normed(&self, x: &Tensor) -> Tensor {
        self.norm1.forward(x)
    }

    /// Queries, keys and values of the tokens that the block is given, [B, heads, T, d / heads] each, without rotation.
    pub(super) fn queries_keys_values(&self, x: &Tensor) -> [Tensor; 3] {
        let qkv = self.separate(&self.qkv.forward(&self.normed(x)));
        [0, 1, 2].map(|part| qkv.get(part))
    }

    /// The output of its attention from what each head has attended to, [B, heads, T, d / heads] -> [B, T, d].
    pub(super) fn joined(&self, attended: &Tensor) -> Tensor {
        let size = attended.size();
        let joined = attended.transpose(1, 2).reshape([size[0], size[2], size[1] * size[3]]);
        scaled(self.proj.forward(&joined), self.scale1.as_ref())
    }

    /// As [`Block::forward`]; also returns the input of the MLP.
    pub(super) fn forward_seen(&self, x: &Tensor) -> (Tensor, Tensor) {
        let x = x + scaled(self.attention(&self.normed(x), false, None), self.scale1.as_ref());
        (self.with_mlp(&x), self.norm2.forward(&x))
    }

    /// The attention of the class token, which is the first, to the tokens from number `first` on: a softmax over these alone, for each
    /// head, of queries and keys without rotation. Float32 [B, heads, tokens].
    pub(super) fn class_attention(&self, x: &Tensor, first: i64) -> Tensor {
        let size = x.size();
        let (batch, tokens, width) = (size[0], size[1], size[2]);
        let head = width / self.heads;
        let qkv = self.qkv.forward(&self.norm1.forward(x)).view([batch, tokens, 3, self.heads, head]);
        let part = |which: i64| full_precision(&qkv.select(2, which)).transpose(1, 2);
        let query = part(0).narrow(2, 0, 1);
        let keys = part(1).narrow(2, first, tokens - first);
        let similarity = query.matmul(&keys.transpose(2, 3)).squeeze_dim(2);
        (similarity / (head as f64).sqrt()).softmax(-1, None)
    }

    fn with_mlp(&self, x: &Tensor) -> Tensor {
        x + self.mlp(x)
    }

    /// The second half of the block, before it is added.
    pub(super) fn mlp(&self, x: &Tensor) -> Tensor {
        let hidden = self.activation.after(&self.fc1, &self.norm2.forward(x));
        scaled(self.fc2.forward(&hidden), self.scale2.as_ref())
    }

    /// The same block for inference in lower precision: the weights are rounded once, and LayerScale is folded into the layers
    /// before it.
    pub(super) fn frozen(&self, kind: Kind) -> Self {
        Self {
            heads: self.heads,
            activation: self.activation,
            norm1: self.norm1.frozen(kind),
            qkv: self.qkv.frozen(kind, None),
            proj: self.proj.frozen(kind, self.scale1.as_ref()),
            scale1: None,
            norm2: self.norm2.frozen(kind),
            fc1: self.fc1.frozen(kind, None),
            fc2: self.fc2.frozen(kind, self.scale2.as_ref()),
            scale2: None,
        }
    }

    /// The same block for inference with its four products in float8, and everything else in bfloat16.
    ///
    /// # Errors
    /// If there are no such products of its sizes.
    pub(super) fn in_float8(&self) -> Result<Self> {
        let exact = self.frozen(Kind::Float);
        Ok(Self {
            qkv: exact.qkv.in_float8()?,
            proj: exact.proj.in_float8()?,
            fc1: exact.fc1.in_float8()?,
            fc2: exact.fc2.in_float8()?,
            ..self.frozen(Kind::BFloat16)
        })
    }

    /// The kind of the weights of its products.
    pub(super) fn product_kind(&self) -> Kind {
        self.qkv.weight.kind()
    }

    /// The same weights with another activation.
    pub(super) fn with_activation(mut self, activation: Activation) -> Self {
        self.activation = activation;
        self
    }

    /// The activation function of its MLP.
    pub(super) fn activation(&self) -> Activation {
        self.activation
    }

    fn attention(&self, x: &Tensor, causal: bool, rotation: Option<&Rotation>) -> Tensor {
        self.proj.forward(&self.attend(&self.qkv.forward(x), causal, rotation))
    }

    /// What each head attends to: [B, T, 3 d] -> [B, T, d].
    fn attend(&self, qkv: &Tensor, causal: bool, rotation: Option<&Rotation>) -> Tensor {
        let qkv = self.separate(qkv);
        let (q, k, v) = (qkv.get(0), qkv.get(1), qkv.get(2));
        let (q, k) = match rotation {
            Some(rotation) => (rotation.apply(&q), rotation.apply(&k)),
            None => (q, k),
        };
        let out = Tensor::scaled_dot_product_attention(&q, &k, &v, None::<&Tensor>, 0.0, causal, None, false);
        out.transpose(1, 2).flatten(2, 3)
    }

    /// Queries, keys and values by head: [B, T, 3 d] -> [3, B, heads, T, d / heads].
    fn separate(&self, qkv: &Tensor) -> Tensor {
        let size = qkv.size();
        let head = size[2] / 3 / self.heads;
        qkv.view([size[0], size[1], 3, self.heads, head]).permute([2, 0, 3, 1, 4])
    }

    /// All parameters with their state-dict keys in the family of checkpoints.
    pub(super) fn named(&self, prefix: &str, names: &Names) -> Vec<(String, Tensor)> {
        let mut out = Vec::new();
        let mut add = |name: String, tensor: Tensor| out.push((format!("{prefix}{name}"), tensor));
        let bias = |linear: &Linear| linear.bias.as_ref().map(Tensor::shallow_clone);
        add(names.qkv[0].to_owned(), self.qkv.weight.shallow_clone());
        if let Some(bias) = bias(&self.qkv) {
            add(names.qkv[1].to_owned(), bias);
        }
        let mut add_linear = |name: &str, weight: Tensor, bias: Option<Tensor>| {
            add(format!("{name}.weight"), weight);
            if let Some(bias) = bias {
                add(format!("{name}.bias"), bias);
            }
        };
        add_linear(names.proj, self.proj.weight.shallow_clone(), bias(&self.proj));
        let last = match (&names.gated, self.activation) {
            (Some(Gated::Split([gate, value, last])), Activation::SwiGlu) => {
                for (name, half) in [(gate, 0), (value, 1)] {
                    let part = |tensor: &Tensor| tensor.chunk(2, 0)[half].shallow_clone();
                    add_linear(name, part(&self.fc1.weight), self.fc1.bias.as_ref().map(part));
                }
                last
            }
            (Some(Gated::Packed([first, last])), Activation::SwiGlu) => {
                add_linear(first, self.fc1.weight.shallow_clone(), bias(&self.fc1));
                last
            }
            _ => {
                add_linear(names.fc1, self.fc1.weight.shallow_clone(), bias(&self.fc1));
                names.fc2
            }
        };
        add_linear(last, self.fc2.weight.shallow_clone(), bias(&self.fc2));
        for (name, norm) in [(names.norm1, &self.norm1), (names.norm2, &self.norm2)] {
            add(format!("{name}.weight"), norm.weight.shallow_clone());
            add(format!("{name}.bias"), norm.bias.shallow_clone());
        }
        for (name, scale) in [(names.scale1, &self.scale1), (names.scale2, &self.scale2)] {
            if let (Some(name), Some(scale)) = (name, scale) {
                add(name.to_owned(), scale.shallow_clone());
            }
        }
        out
    }
}

/// The layer that makes queries, keys and values. Where keys have no bias, their part of it is zero.
fn read_qkv(weights: &mut Weights, prefix: &str, names: &Names, width: i64) -> Result<Linear> {
    let weight = weights.take(&format!("{prefix}{}", names.qkv[0]), &[3 * width, width])?;
    let name = format!("{prefix}{}", names.qkv[1]);
    let Some(mask) = names.bias_mask.map(|mask| format!("{prefix}{mask}")) else {
        return Ok(Linear { weight, bias: Some(weights.take(&name, &[3 * width])?), scale: None });
    };
    let mask = if weights.has(&mask) {
        let values = weights.take(&mask, &[3 * width])?;
        if i64::try_from((values.eq(0.0).logical_or(&values.eq(1.0))).all())? == 0 {
            return Err(weights.problem(format!("tensor {mask} has values other than 0 and 1")));
        }
        Some(values)
    } else {
        None
    };
    let bias = if weights.has(&name) {
        let bias = weights.take(&name, &[3 * width])?;
        let masked = mask.map_or_else(|| bias.shallow_clone(), |mask| &bias * mask);
        let _ = masked.narrow(0, width, width).zero_();
        Some(masked)
    } else {
        None
    };
    Ok(Linear { weight, bias, scale: None })
}

/// The two layers of the MLP, of which the first gives gate and value one after the other if it is gated.
fn read_mlp(
    weights: &mut Weights,
    prefix: &str,
    names: &Names,
    width: i64,
) -> Result<(Activation, [Linear; 2])> {
    let key = |name: &str, end: &str| format!("{prefix}{name}.{end}");
    // Four times the width in most towers, but not in ViT-g and larger ones, nor in gated MLPs.
    let hidden = |weights: &Weights, last: &str| -> Result<i64> {
        Ok(weights.size(&key(last, "weight"))?.get(1).copied().unwrap_or(0))
    };
    let take = |weights: &mut Weights, name: &str, rows: i64, columns: i64| -> Result<Linear> {
        Ok(Linear {
            weight: weights.take(&key(name, "weight"), &[rows, columns])?,
            bias: Some(weights.take(&key(name, "bias"), &[rows])?),
            scale: None,
        })
    };
    match &names.gated {
        Some(Gated::Packed([first, last])) if weights.has(&key(first, "weight")) => {
            let hidden = hidden(weights, last)?;
            let layers = [take(weights, first, 2 * hidden, width)?, take(weights, last, width, hidden)?];
            Ok((Activation::SwiGlu, layers))
        }
        Some(Gated::Split([gate, value, last])) if weights.has(&key(gate, "weight")) => {
            let hidden = hidden(weights, last)?;
            let [gate, value] = [take(weights, gate, hidden, width)?, take(weights, value, hidden, width)?];
            let packed = Linear {
                weight: Tensor::cat(&[gate.weight, value.weight], 0),
                bias: gate.bias.zip(value.bias).map(|(gate, value)| Tensor::cat(&[gate, value], 0)),
                scale: None,
            };
            Ok((Activation::SwiGlu, [packed, take(weights, last, width, hidden)?]))
        }
        _ => {
            let hidden = weights.size(&key(names.fc1, "weight"))?.first().copied().unwrap_or(0);
            let layers = [take(weights, names.fc1, hidden, width)?, take(weights, names.fc2, width, hidden)?];
            Ok((Activation::default(), layers))
        }
    }
}

fn scaled(x: Tensor, scale: Option<&Tensor>) -> Tensor {
    match scale {
        Some(scale) => &x * scale.to_kind(x.kind()),
        None => x,
    }
}
