//! CLIP's vision transformer with its projection, and the ways to get patch features from it.

use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

use super::block::{Activation, Block, Init};
use super::block_keys::OPEN_CLIP;
use super::dense::{Attention, Dense, Reading};
use super::dinoiser::Dinoiser;
use super::heads::HEAD_WIDTH;
use super::layers::{Norm, normal};
use super::position::fit_position;
use super::proxy::Proxy;
use super::reading::{last_block, self_self};
use super::vision::VisionFeatures;
use crate::error::Result;
use crate::weights::Weights;

const EPS: f64 = 1e-5;
/// CLIP-DINOiser compares the patches by what the MLP of the third block from the end is given.
const SEEN_FROM_END: usize = 3;

/// Size of a new CLIP vision tower. The defaults are those of CLIP's ViT-B/16.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClipShape {
    /// Embedding width of a token; must be a multiple of 64, the width of an attention head.
    pub width: i64,
    /// Number of transformer blocks.
    pub depth: i64,
    /// Side of a patch in pixels.
    pub patch: i64,
    /// Width d_v of the embedding space shared with the text tower.
    pub output: i64,
}

impl Default for ClipShape {
    fn default() -> Self {
        Self { width: 768, depth: 12, patch: 16, output: 512 }
    }
}

/// What some ways of reading patch features need beside the tower.
#[derive(Debug)]
pub enum Beside {
    /// [`Dense::Proxyclip`]: another tower.
    Proxy(Box<Proxy>),
    /// [`Dense::ClipDinoiser`]: convolutions.
    Dinoiser(Box<Dinoiser>),
}

/// CLIP's vision transformer.
#[derive(Debug)]
pub struct ClipVisionTower {
    /// Side of a patch in pixels.
    pub patch: i64,
    /// Patches per side of the training image.
    pub grid: i64,
    dense: Dense,
    beside: Option<Beside>,
    kind: Kind,
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
    /// Takes the tower out of tensors with open_clip's state-dict keys, without their prefix `visual.`. Width and
    /// depth follow from the tensors; the number of heads does not. Its patch features are [`Dense::Tokens`].
    pub fn take(weights: &mut Weights, heads: i64, activation: Activation, kind: Kind) -> Result<Self> {
        let patches = weights.size("conv1.weight")?;
        let [width, 3, patch @ 1..=i64::MAX, _] = patches[..] else {
            return Err(weights.problem(format!("visual.conv1.weight is {patches:?}, not [width, 3, p, p]")));
        };
        let tokens = weights.size("positional_embedding")?.first().copied().unwrap_or(1);
        let grid = ((tokens - 1) as f64).sqrt().round() as i64;
        if grid < 1 || width < 1 {
            return Err(weights.problem(format!(
                "tensor visual.positional_embedding has {tokens} rows for width {width}; it must have 1 + side * side"
            )));
        }
        let output = weights.size("proj")?.get(1).copied().unwrap_or(0);
        let mut blocks = Vec::new();
        while weights.has(&format!("transformer.resblocks.{}.ln_1.weight", blocks.len())) {
            let prefix = format!("transformer.resblocks.{}.", blocks.len());
            let block = Block::read(weights, &prefix, &OPEN_CLIP, width, heads, EPS)?;
            blocks.push(block.with_activation(activation));
        }
        Ok(Self {
            patch,
            grid,
            dense: Dense::Tokens,
            beside: None,
            kind,
            width,
            patch_weight: weights.take("conv1.weight", &[width, 3, patch, patch])?,
            class: weights.take("class_embedding", &[width])?,
            position: weights.take("positional_embedding", &[1 + grid * grid, width])?,
            before: Norm::read(weights, "ln_pre", width, EPS)?,
            blocks,
            after: Norm::read(weights, "ln_post", width, EPS)?,
            projection: weights.take("proj", &[width, output])?,
        })
    }

    /// A new tower for images with `grid` patches per side. It uses libtorch's random generator: seed that first. The blocks are
    /// initialized like those of the text tower (CLIP's own code leaves these to PyTorch's defaults).
    pub fn random(shape: ClipShape, grid: i64, kind: Kind, device: Device) -> Self {
        let ClipShape { width, depth, patch, output } = shape;
        let normal = |size: &[i64], std: f64| normal(size, std, device);
        let scale = (width as f64).powf(-0.5);
        let residual = scale * (2.0 * depth as f64).powf(-0.5);
        let init = Init {
            qkv: scale,
            proj: residual,
            fc1: (2.0 * width as f64).powf(-0.5),
            fc2: residual,
            layer_scale: None,
        };
        let heads = width / HEAD_WIDTH;
        Self {
            patch,
            grid,
            dense: Dense::Tokens,
            beside: None,
            kind,
            width,
            patch_weight: normal(&[width, 3, patch, patch], ((3 * patch * patch) as f64).powf(-0.5)),
            class: normal(&[width], scale),
            position: normal(&[1 + grid * grid, width], scale),
            before: Norm::new(width, EPS, device),
            blocks: (0..depth).map(|_| Block::random(width, heads, EPS, &init, device)).collect(),
            after: Norm::new(width, EPS, device),
            projection: normal(&[width, output], scale),
        }
    }

    /// Chooses which patch features [`ClipVisionTower::forward`] returns. `beside`: what they need beside the tower.
    ///
    /// # Errors
    /// What they need and is not given, or what does not fit to the tower, as the rest of a sentence about the option.
    pub fn read_as(&mut self, dense: Dense, beside: Option<Beside>) -> std::result::Result<(), String> {
        let depth = self.blocks.len();
        let least = match (dense.reading(), &beside) {
            (Reading::Pooled(_), Some(Beside::Dinoiser(dinoiser))) => {
                let (trained, width) = (dinoiser.width(), self.width);
                if trained != width {
                    return Err(format!(
                        "has convolutions for a tower that is {trained} wide, but the CLIP is {width}"
                    ));
                }
                SEEN_FROM_END
            }
            (Reading::Pooled(_), _) => return Err("needs the convolutions of CLIP-DINOiser".to_owned()),
            (Reading::Last(way), None) if way.attention == Attention::Proxy => {
                return Err("needs another vision tower".to_owned());
            }
            (Reading::SecondStream(blocks), _) => blocks,
            _ => 1,
        };
        if depth < least {
            return Err(format!("reads the last {least} blocks, but the CLIP has {depth}"));
        }
        (self.dense, self.beside) = (dense, beside);
        Ok(())
    }

    /// Side in pixels of the parts of an image for which [`ClipVisionTower::forward`] returns a feature each: its patches, but for
    /// ProxyCLIP those of the other tower.
    pub fn dense_patch(&self) -> i64 {
        match &self.beside {
            Some(Beside::Proxy(proxy)) => proxy.patch(),
            _ => self.patch,
        }
    }

    /// The same tower with gradients enabled.
    #[must_use]
    pub fn trainable(self) -> Self {
        for (_, tensor) in self.named() {
            let _ = tensor.set_requires_grad(true);
        }
        self
    }

    /// All parameters with their state-dict keys in open_clip, including `visual.`.
    pub fn named(&self) -> Vec<(String, Tensor)> {
        let mut out: Vec<(String, Tensor)> = [
            ("visual.conv1.weight", &self.patch_weight),
            ("visual.class_embedding", &self.class),
            ("visual.positional_embedding", &self.position),
            ("visual.ln_pre.weight", &self.before.weight),
            ("visual.ln_pre.bias", &self.before.bias),
            ("visual.ln_post.weight", &self.after.weight),
            ("visual.ln_post.bias", &self.after.bias),
            ("visual.proj", &self.projection),
        ]
        .into_iter()
        .map(|(name, tensor)| (name.to_owned(), tensor.shallow_clone()))
        .collect();
        for (i, block) in self.blocks.iter().enumerate() {
            out.extend(block.named(&format!("visual.transformer.resblocks.{i}."), &OPEN_CLIP));
        }
        out
    }

    /// Number of transformer blocks.
    pub fn depth(&self) -> i64 {
        self.blocks.len() as i64
    }

    /// Token width.
    pub fn width(&self) -> i64 {
        self.width
    }

    /// Width d_v of the embedding space shared with the text tower.
    pub fn output(&self) -> i64 {
        self.projection.size()[1]
    }

    /// `pixels`: [B, 3, H, W], normalized. What H and W are more than a multiple of the patch size is left out. Returns projected
    /// features.
    pub fn forward(&self, pixels: &Tensor) -> VisionFeatures {
        self.read(pixels).0
    }

    /// The same, and the probability that each patch is foreground, [B, N], if CLIP-DINOiser says that.
    pub fn read(&self, pixels: &Tensor) -> (VisionFeatures, Option<Tensor>) {
        let size = pixels.size();
        let grid = [size[2] / self.patch, size[3] / self.patch];
        let reading = self.dense.reading();
        let depth = self.blocks.len();
        let mut x = self.embed(pixels);
        let (mut read, mut seen) = (None, None);
        for (i, block) in self.blocks.iter().enumerate() {
            match (reading, &self.beside) {
                (Reading::Last(way) | Reading::Pooled(way), beside) if i + 1 == depth => {
                    let proxy = match beside {
                        Some(Beside::Proxy(proxy)) => Some(proxy.tokens(pixels)),
                        _ => None,
                    };
                    let proxy = proxy.as_ref().map(|(tokens, grid)| (tokens, *grid));
                    read = Some(last_block(block, &x, way, grid, proxy));
                }
                (Reading::SecondStream(blocks), _) if i + blocks >= depth => {
                    let stream = read.unwrap_or_else(|| x.shallow_clone());
                    read = Some(stream + self_self(block, &x));
                }
                _ => {}
            }
            if matches!(reading, Reading::Pooled(_)) && i + SEEN_FROM_END == depth {
                let (output, normed) = block.forward_seen(&x);
                (x, seen) = (output, Some(normed.narrow(1, 1, normed.size()[1] - 1)));
            } else {
                x = block.forward(&x, false);
            }
        }
        let read = read.as_ref().unwrap_or(&x);
        // ProxyCLIP has left the class token out.
        let first = i64::from(!matches!(self.beside, Some(Beside::Proxy(_))));
        let patches = self.project(&read.narrow(1, first, read.size()[1] - first));
        let (patches, foreground) = match (&self.beside, seen) {
            (Some(Beside::Dinoiser(dinoiser)), Some(seen)) => {
                (dinoiser.pooled(&seen, &patches, grid), Some(dinoiser.foreground(&seen)))
            }
            _ => (patches, None),
        };
        (VisionFeatures { class: self.project(&x.select(1, 0)), patches }, foreground)
    }

    /// Only the embeddings of the images, [B, d_v], on which CLIP is trained.
    pub fn class(&self, pixels: &Tensor) -> Tensor {
        let x = self.blocks.iter().fold(self.embed(pixels), |x, block| block.forward(&x, false));
        self.project(&x.select(1, 0))
    }

    /// Class token and patches before the first block, [B, 1 + N, width].
    fn embed(&self, pixels: &Tensor) -> Tensor {
        let kind = self.kind;
        let patch = [self.patch, self.patch];
        let weight = self.patch_weight.to_kind(kind);
        let patches = pixels.to_kind(kind).conv2d(&weight, None::<&Tensor>, patch, [0, 0], [1, 1], 1);
        let (batch, height, width) = (patches.size()[0], patches.size()[2], patches.size()[3]);
        let class = self.class.to_kind(kind).view([1, 1, self.width]).expand([batch, 1, -1], false);
        let tokens = Tensor::cat(&[class, patches.flatten(2, 3).transpose(1, 2)], 1);
        self.before.forward(&(tokens + self.position_for(height, width).to_kind(kind)))
    }

    fn project(&self, x: &Tensor) -> Tensor {
        self.after.forward(x).to_kind(Kind::Float).matmul(&self.projection)
    }

    /// The position embedding for a grid of patches.
    fn position_for(&self, height: i64, width: i64) -> Tensor {
        let patches = self.position.narrow(0, 1, self.grid * self.grid).unsqueeze(0);
        let fit = self.dense.positions().fit(false);
        let fitted = fit_position(&patches, self.grid, height, width, fit).squeeze_dim(0);
        Tensor::cat(&[self.position.narrow(0, 0, 1).to_kind(fitted.kind()), fitted], 0)
    }
}
