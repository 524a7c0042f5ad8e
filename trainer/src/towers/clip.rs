//! CLIP's own vision transformer with its projection, and MaskCLIP's way of reading its patches.

use clap::ValueEnum;
use tch::{Kind, Tensor};

use super::block::{Activation, Block, Norm, OPEN_CLIP};
use super::vision::VisionFeatures;
use crate::error::Result;
use crate::weights::Weights;

const EPS: f64 = 1e-5;
/// Every ViT CLIP has heads of this width.
const HEAD_WIDTH: i64 = 64;

/// What a CLIP's patch features are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Dense {
    /// The last block's patch tokens, as if each were the class token: the row "CLIP" of the papers.
    Tokens,
    /// In the last block each patch keeps its own value instead of attending: MaskCLIP (Zhou et al., 2022).
    Values,
}

/// CLIP's vision transformer.
#[derive(Debug)]
pub struct ClipVisionTower {
    /// Side of a patch in pixels.
    pub patch: i64,
    /// Patches along a side of the training image.
    pub grid: i64,
    dense: Dense,
    width: i64,
    patch_weight: Tensor,
    class: Tensor,
    position: Tensor,
    before: Norm,
    blocks: Vec<Block>,
    after: Norm,
    projection: Tensor,
}

impl ClipVisionTower {
    /// Takes the tower out of tensors named as open_clip's, without their prefix `visual.`.
    pub fn take(weights: &mut Weights, dense: Dense, activation: Activation, kind: Kind) -> Result<Self> {
        let patches = weights.size("conv1.weight")?;
        let [width, 3, patch, _] = patches[..] else {
            return Err(weights.problem(format!("visual.conv1.weight is {patches:?}, not [width, 3, p, p]")));
        };
        if patch == 0 || width % HEAD_WIDTH != 0 {
            return Err(
                weights.problem(format!("width {width} is no multiple of {HEAD_WIDTH}, a head's width"))
            );
        }
        let tokens = weights.size("positional_embedding")?.first().copied().unwrap_or(1);
        let grid = ((tokens - 1) as f64).sqrt().round() as i64;
        let output = weights.size("proj")?.get(1).copied().unwrap_or(0);
        let mut blocks = Vec::new();
        while weights.has(&format!("transformer.resblocks.{}.ln_1.weight", blocks.len())) {
            let prefix = format!("transformer.resblocks.{}.", blocks.len());
            let block = Block::read(weights, &prefix, &OPEN_CLIP, width, width / HEAD_WIDTH, EPS)?;
            blocks.push(block.with_activation(activation));
        }
        Ok(Self {
            patch,
            grid,
            dense,
            width,
            patch_weight: weights.take("conv1.weight", &[width, 3, patch, patch])?.to_kind(kind),
            class: weights.take("class_embedding", &[width])?,
            position: weights.take("positional_embedding", &[1 + grid * grid, width])?,
            before: Norm::read(weights, "ln_pre", width, EPS)?,
            blocks,
            after: Norm::read(weights, "ln_post", width, EPS)?,
            projection: weights.take("proj", &[width, output])?,
        })
    }

    /// `pixels`: [B, 3, H, W], normalised, H and W multiples of the patch; features in the projection's space.
    pub fn forward(&self, pixels: &Tensor) -> VisionFeatures {
        let kind = self.patch_weight.kind();
        let patch = [self.patch, self.patch];
        let patches =
            pixels.to_kind(kind).conv2d(&self.patch_weight, None::<&Tensor>, patch, [0, 0], [1, 1], 1);
        let (batch, height, width) = (patches.size()[0], patches.size()[2], patches.size()[3]);
        let class = self.class.to_kind(kind).view([1, 1, self.width]).expand([batch, 1, -1], false);
        let tokens = Tensor::cat(&[class, patches.flatten(2, 3).transpose(1, 2)], 1);
        let mut x = self.before.forward(&(tokens + self.position_for(height, width).to_kind(kind)));
        let mut values = None;
        for (i, block) in self.blocks.iter().enumerate() {
            if self.dense == Dense::Values && i + 1 == self.blocks.len() {
                values = Some(block.forward_values(&x));
            }
            x = block.forward(&x, false);
        }
        let project = |x: &Tensor| self.after.forward(x).to_kind(Kind::Float).matmul(&self.projection);
        VisionFeatures {
            class: project(&x.select(1, 0)),
            patches: project(&values.as_ref().unwrap_or(&x).narrow(1, 1, height * width)),
        }
    }

    /// The position embedding for another grid, as open_clip resizes it: bicubic, antialiased.
    fn position_for(&self, height: i64, width: i64) -> Tensor {
        if (height, width) == (self.grid, self.grid) {
            return self.position.shallow_clone();
        }
        let grid = self.position.narrow(0, 1, self.grid * self.grid).to_kind(Kind::Float);
        let grid = grid.reshape([1, self.grid, self.grid, self.width]).permute([0, 3, 1, 2]);
        let fitted = grid.internal_upsample_bicubic2d_aa([height, width], false, None, None);
        let patches = fitted.permute([0, 2, 3, 1]).reshape([height * width, self.width]);
        Tensor::cat(&[self.position.narrow(0, 0, 1).to_kind(Kind::Float), patches], 0)
    }
}
