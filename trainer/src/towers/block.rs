//! The pre-norm transformer block of both towers: as in DINOv2 (with LayerScale, bidirectional attention) and as in CLIP's text
//! tower (causal attention).

use tch::{Device, Kind, Tensor};

use crate::error::Result;
use crate::torch;
use crate::weights::Weights;

/// State-dict keys of the parts of a block in a family of checkpoints.
pub(super) struct Names {
    norm1: &'static str,
    qkv: [&'static str; 2],
    proj: &'static str,
    scale1: Option<&'static str>,
    norm2: &'static str,
    fc1: &'static str,
    fc2: &'static str,
    /// The two layers of a gated MLP.
    gated: Option<[&'static str; 2]>,
    scale2: Option<&'static str>,
}

/// The keys of DINOv2; those of timm are the same, except for a gated MLP.
pub(super) const DINOV2: Names = Names {
    norm1: "norm1",
    qkv: ["attn.qkv.weight", "attn.qkv.bias"],
    proj: "attn.proj",
    scale1: Some("ls1.gamma"),
    norm2: "norm2",
    fc1: "mlp.fc1",
    fc2: "mlp.fc2",
    gated: Some(["mlp.w12", "mlp.w3"]),
    scale2: Some("ls2.gamma"),
};

/// Epsilon of LayerNorm in DINOv2 (the ViT ports in other Rust examples use 1e-5, and their features differ).
pub(super) const DINOV2_EPS: f64 = 1e-6;

/// The keys of open_clip.
pub(super) const OPEN_CLIP: Names = Names {
    norm1: "ln_1",
    qkv: ["attn.in_proj_weight", "attn.in_proj_bias"],
    proj: "attn.out_proj",
    scale1: None,
    norm2: "ln_2",
    fc1: "mlp.c_fc",
    fc2: "mlp.c_proj",
    gated: None,
    scale2: None,
};

/// Activation function of the MLP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Activation {
    /// Exact (erf) GELU.
    #[default]
    Gelu,
    /// x sigmoid(1.702 x), with which OpenAI's CLIPs were trained.
    QuickGelu,
    /// silu(a) b of the two halves of the first layer's output, as in DINOv2-g.
    SwiGlu,
}

impl Names {
    /// Keys of the two layers of the MLP.
    fn mlp(&self, activation: Activation) -> [&'static str; 2] {
        match (activation, self.gated) {
            (Activation::SwiGlu, Some(names)) => names,
            _ => [self.fc1, self.fc2],
        }
    }
}

/// N(0, std), generated on the CPU, so that a seed gives the same weights on every device.
pub(super) fn normal(size: &[i64], std: f64, device: Device) -> Tensor {
    (Tensor::randn(size, (Kind::Float, Device::Cpu)) * std).to_device(device)
}

/// y = x Wᵀ + b, in the precision of x.
#[derive(Debug)]
pub(super) struct Linear {
    pub(super) weight: Tensor,
    pub(super) bias: Tensor,
}

impl Linear {
    pub(super) fn forward(&self, x: &Tensor) -> Tensor {
        let kind = x.kind();
        x.linear(&self.weight.to_kind(kind), Some(&self.bias.to_kind(kind)))
    }

    /// gelu(x Wᵀ + b). In bfloat16 on a GPU, GELU (in its tanh approximation) is fused into the matrix product, which saves two
    /// passes through memory. The error is at most 5e-4, one eighth of the rounding error of bfloat16 at that size. Only frozen
    /// layers are in bfloat16.
    fn forward_gelu(&self, x: &Tensor) -> Tensor {
        let fused = self.weight.kind() == Kind::BFloat16 && self.weight.device().is_cuda();
        if fused && let Ok(rows) = torch::linear_gelu(&x.flatten(0, -2), &self.weight, &self.bias) {
            let mut size = x.size();
            size.pop();
            size.push(self.bias.size()[0]);
            return rows.view(size.as_slice());
        }
        self.forward(x).gelu("none")
    }

    /// The same layer in another precision, with its output multiplied by `scale`.
    fn frozen(&self, kind: Kind, scale: Option<&Tensor>) -> Self {
        let (weight, bias) = match scale {
            Some(scale) => (&self.weight * scale.unsqueeze(1), &self.bias * scale),
            None => (self.weight.shallow_clone(), self.bias.shallow_clone()),
        };
        Self { weight: weight.to_kind(kind), bias: bias.to_kind(kind) }
    }

    /// Weights N(0, std), bias 0.
    fn random(rows: i64, columns: i64, std: f64, device: Device) -> Self {
        Self {
            weight: normal(&[rows, columns], std, device),
            bias: Tensor::zeros([rows], (Kind::Float, device)),
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

    pub(super) fn read(
        weights: &mut Weights,
        prefix: &str,
        names: &Names,
        width: i64,
        heads: i64,
        eps: f64,
    ) -> Result<Self> {
        let gated =
            names.gated.map(|[first, second]| [first, second].map(|name| format!("{prefix}{name}.weight")));
        let (activation, hidden) = match &gated {
            Some([first, second]) if weights.has(first) => {
                (Activation::SwiGlu, weights.size(second)?.get(1).copied().unwrap_or(0))
            }
            // Four times the width in most towers, but not in ViT-g and larger ones.
            _ => {
                let hidden = weights.size(&format!("{prefix}{}.weight", names.fc1))?;
                (Activation::default(), hidden.first().copied().unwrap_or(0))
            }
        };
        let rows = if activation == Activation::SwiGlu { 2 * hidden } else { hidden };
        let [first, second] = names.mlp(activation);
        let mut take = |name: &str, size: &[i64]| weights.take(&format!("{prefix}{name}"), size);
        let qkv = Linear {
            weight: take(names.qkv[0], &[3 * width, width])?,
            bias: take(names.qkv[1], &[3 * width])?,
        };
        let mut linear = |name: &str, rows: i64, columns: i64| -> Result<Linear> {
            Ok(Linear {
                weight: take(&format!("{name}.weight"), &[rows, columns])?,
                bias: take(&format!("{name}.bias"), &[rows])?,
            })
        };
        let proj = linear(names.proj, width, width)?;
        let fc1 = linear(first, rows, width)?;
        let fc2 = linear(second, width, hidden)?;
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
        let attended = self.attention(&self.norm1.forward(x), causal);
        self.with_mlp(&(x + scaled(attended, self.scale1.as_ref())))
    }

    /// The block with every token attending only to itself: the attention is then just its projected values.
    pub(super) fn forward_values(&self, x: &Tensor) -> Tensor {
        let width = x.size()[2];
        let values = self.qkv.forward(&self.norm1.forward(x)).narrow(2, 2 * width, width);
        self.with_mlp(&(x + scaled(self.proj.forward(&values), self.scale1.as_ref())))
    }

    fn with_mlp(&self, x: &Tensor) -> Tensor {
        let x_normed = self.norm2.forward(x);
        let hidden = match self.activation {
            Activation::Gelu => self.fc1.forward_gelu(&x_normed),
            Activation::QuickGelu => {
                let hidden = self.fc1.forward(&x_normed);
                &hidden * (&hidden * 1.702).sigmoid()
            }
            Activation::SwiGlu => {
                let hidden = self.fc1.forward(&x_normed);
                let halves = hidden.chunk(2, -1);
                halves[0].silu() * &halves[1]
            }
        };
        x + scaled(self.fc2.forward(&hidden), self.scale2.as_ref())
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

    /// The same weights with another activation.
    pub(super) fn with_activation(mut self, activation: Activation) -> Self {
        self.activation = activation;
        self
    }

    fn attention(&self, x: &Tensor, causal: bool) -> Tensor {
        let size = x.size();
        let (batch, tokens, width) = (size[0], size[1], size[2]);
        let qkv = self
            .qkv
            .forward(x)
            .view([batch, tokens, 3, self.heads, width / self.heads])
            .permute([2, 0, 3, 1, 4]);
        let (q, k, v) = (qkv.get(0), qkv.get(1), qkv.get(2));
        let out = Tensor::scaled_dot_product_attention(&q, &k, &v, None::<&Tensor>, 0.0, causal, None, false);
        self.proj.forward(&out.transpose(1, 2).reshape([batch, tokens, width]))
    }

    /// All parameters with their state-dict keys in the family of checkpoints.
    pub(super) fn named(&self, prefix: &str, names: &Names) -> Vec<(String, Tensor)> {
        let mut out = Vec::new();
        let mut add =
            |name: String, tensor: &Tensor| out.push((format!("{prefix}{name}"), tensor.shallow_clone()));
        add(names.qkv[0].to_owned(), &self.qkv.weight);
        add(names.qkv[1].to_owned(), &self.qkv.bias);
        let [first, second] = names.mlp(self.activation);
        for (name, linear) in [(names.proj, &self.proj), (first, &self.fc1), (second, &self.fc2)] {
            add(format!("{name}.weight"), &linear.weight);
            add(format!("{name}.bias"), &linear.bias);
        }
        for (name, norm) in [(names.norm1, &self.norm1), (names.norm2, &self.norm2)] {
            add(format!("{name}.weight"), &norm.weight);
            add(format!("{name}.bias"), &norm.bias);
        }
        for (name, scale) in [(names.scale1, &self.scale1), (names.scale2, &self.scale2)] {
            if let (Some(name), Some(scale)) = (name, scale) {
                add(name.to_owned(), scale);
            }
        }
        out
    }
}

fn scaled(x: Tensor, scale: Option<&Tensor>) -> Tensor {
    match scale {
        Some(scale) => &x * scale.to_kind(x.kind()),
        None => x,
    }
}
