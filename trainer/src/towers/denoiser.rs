//! The denoiser of DVT (Yang et al., ECCV 2024): one more transformer block over the patch tokens, which removes artifacts that
//! depend only on the position. The released SimZSS model trained on COCO has one.

use tch::{Kind, Tensor};

use super::block::Block;
use super::block_keys::DINOV2;
use super::family;
use super::heads::HEAD_WIDTH;
use super::position::{Fit, fit_position, side_of};
use crate::error::Result;
use crate::weights::Weights;

/// A pre-norm block without LayerScale, and its own position embedding.
#[derive(Debug)]
pub(super) struct Denoiser {
    /// [1, grid * grid, d_v].
    position: Tensor,
    grid: i64,
    block: Block,
}

impl Denoiser {
    /// Takes the denoiser out of tensors: `denoiser.pos_embed`, and the keys of a block after `denoiser.`.
    pub(super) fn take(weights: &mut Weights, width: i64) -> Result<Self> {
        let position = weights.size("denoiser.pos_embed")?;
        let grid = side_of(position.get(1).copied().unwrap_or(0));
        if grid < 1 {
            return Err(weights.problem(format!(
                "tensor denoiser.pos_embed has the shape {position:?}; it must have [1, side * side, {width}]"
            )));
        }
        let position = weights.take("denoiser.pos_embed", &[1, grid * grid, width])?;
        let block =
            Block::read(weights, "denoiser.", &DINOV2, width, width / HEAD_WIDTH, family::DINOV2.eps)?;
        Ok(Self { position, grid, block })
    }

    /// The same denoiser in another precision.
    pub(super) fn frozen(&self, kind: Kind) -> Self {
        Self { position: self.position.shallow_clone(), grid: self.grid, block: self.block.frozen(kind) }
    }

    /// `patches`: [B, height * width, d_v], after the tower's final LayerNorm.
    pub(super) fn forward(&self, patches: &Tensor, height: i64, width: i64) -> Tensor {
        // Always resized as in timm, also if the tower uses another method.
        let position = fit_position(&self.position, self.grid, height, width, Fit::Antialiased);
        self.block.forward(&(patches + position.to_kind(patches.kind())), false)
    }

    pub(super) fn named(&self) -> Vec<(String, Tensor)> {
        let mut out = self.block.named("denoiser.", &DINOV2);
        out.push(("denoiser.pos_embed".to_owned(), self.position.shallow_clone()));
        out
    }
}

/// Rejects tensors that are not those of a denoiser.
pub(super) fn check(mut weights: Weights) -> Result<()> {
    let width = weights.size("denoiser.norm1.weight")?.first().copied().unwrap_or(0);
    Denoiser::take(&mut weights, width)?;
    weights.finish(&[])
}
