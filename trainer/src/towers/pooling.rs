//! How a tower without a class token embeds an image: a learned query attends to the patches, as in SigLIP.

use tch::{Kind, Tensor};

use super::block::Activation;
use super::layers::{Linear, Norm};
use crate::error::Result;
use crate::weights::Weights;

/// Attention pooling: x = proj(attention(query, patches)), then x + mlp(norm(x)).
#[derive(Debug)]
pub(super) struct AttentionPooling {
    heads: i64,
    /// [1, 1, d].
    query: Tensor,
    q: Linear,
    kv: Linear,
    proj: Linear,
    norm: Norm,
    fc1: Linear,
    fc2: Linear,
    activation: Activation,
}

/// The state-dict key of the query, in timm, which no other tower has.
pub(super) const QUERY: &str = "attn_pool.latent";
/// Those of the layers, below `attn_pool.`.
const LAYERS: [&str; 5] = ["q", "kv", "proj", "mlp.fc1", "mlp.fc2"];
const NORM: &str = "attn_pool.norm";

impl AttentionPooling {
    pub(super) fn take(
        weights: &mut Weights,
        width: i64,
        heads: i64,
        eps: f64,
        activation: Activation,
    ) -> Result<Self> {
        let query = weights.take(QUERY, &[1, 1, width])?;
        let hidden = weights.size("attn_pool.mlp.fc1.weight")?.first().copied().unwrap_or(0);
        let mut linear = |name: &str, rows: i64, columns: i64| -> Result<Linear> {
            Ok(Linear {
                weight: weights.take(&format!("attn_pool.{name}.weight"), &[rows, columns])?,
                bias: Some(weights.take(&format!("attn_pool.{name}.bias"), &[rows])?),
                scale: None,
            })
        };
        let (q, kv) = (linear("q", width, width)?, linear("kv", 2 * width, width)?);
        let proj = linear("proj", width, width)?;
        let (fc1, fc2) = (linear("mlp.fc1", hidden, width)?, linear("mlp.fc2", width, hidden)?);
        let norm = Norm::read(weights, NORM, width, eps)?;
        Ok(Self { heads, query, q, kv, proj, norm, fc1, fc2, activation })
    }

    /// The same, for inference in lower precision.
    pub(super) fn frozen(&self, kind: Kind) -> Self {
        let frozen = |linear: &Linear| linear.frozen(kind, None);
        Self {
            heads: self.heads,
            query: self.query.to_kind(kind),
            q: frozen(&self.q),
            kv: frozen(&self.kv),
            proj: frozen(&self.proj),
            norm: self.norm.frozen(kind),
            fc1: frozen(&self.fc1),
            fc2: frozen(&self.fc2),
            activation: self.activation,
        }
    }

    /// Patches after the tower's final LayerNorm, [B, N, d] -> [B, d].
    pub(super) fn forward(&self, patches: &Tensor) -> Tensor {
        let size = patches.size();
        let (batch, count, width) = (size[0], size[1], size[2]);
        let head = width / self.heads;
        let query = self.q.forward(&self.query.to_kind(patches.kind())).view([1, 1, self.heads, head]);
        let query = query.transpose(1, 2).expand([batch, -1, -1, -1], false);
        let kv = self.kv.forward(patches).view([batch, count, 2, self.heads, head]).permute([2, 0, 3, 1, 4]);
        let attended = Tensor::scaled_dot_product_attention(
            &query,
            &kv.get(0),
            &kv.get(1),
            None::<&Tensor>,
            0.0,
            false,
            None,
            false,
        );
        let x = self.proj.forward(&attended.transpose(1, 2).reshape([batch, width]));
        let hidden = self.activation.after(&self.fc1, &self.norm.forward(&x));
        x + self.fc2.forward(&hidden)
    }

    /// All parameters with their state-dict keys.
    pub(super) fn named(&self) -> Vec<(String, Tensor)> {
        let layers = [&self.q, &self.kv, &self.proj, &self.fc1, &self.fc2];
        let mut out = vec![(QUERY.to_owned(), self.query.shallow_clone())];
        for (name, layer) in LAYERS.iter().zip(layers) {
            out.push((format!("attn_pool.{name}.weight"), layer.weight.shallow_clone()));
            out.extend(
                layer.bias.as_ref().map(|bias| (format!("attn_pool.{name}.bias"), bias.shallow_clone())),
            );
        }
        for (end, tensor) in [("weight", &self.norm.weight), ("bias", &self.norm.bias)] {
            out.push((format!("{NORM}.{end}"), tensor.shallow_clone()));
        }
        out
    }
}
