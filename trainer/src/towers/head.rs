//! What a run trains behind its frozen vision tower, and how an image is embedded: the vision head of dino.txt (Jose et al., 2024), one
//! or two transformer blocks over the tokens of the frozen tower, and the choice between the class token and that together with the
//! mean of the patches. Unlike dino.txt's, the head does not see the registers, which cached features do not contain.

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

use super::block::{Block, Init};
use super::block_keys::HEAD;
use super::full_precision;
use super::heads::HEAD_WIDTH;
use super::layers::Norm;
use super::vision::VisionFeatures;
use crate::error::Result;
use crate::weights::Weights;

const EPS: f64 = 1e-5;
/// Initial value of LayerScale: a new head hardly changes the tokens.
const LAYER_SCALE: f64 = 1e-5;
/// Standard deviation of the initial weights of linear layers.
const STD: f64 = 0.02;
/// The hidden width of the gated MLP is a multiple of this.
const ALIGNED: i64 = 64;
/// Maximum number of blocks.
pub const MOST_BLOCKS: i64 = 2;

/// The embedding of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
pub enum Embedding {
    /// The class token: as in LiT and SimZSS.
    #[default]
    #[serde(rename = "class")]
    Class,
    /// The class token and the mean of the patch tokens, one after the other: as in dino.txt. The second half of a text's embedding
    /// is then compared with patches.
    #[serde(rename = "class+mean")]
    ClassMean,
}

impl Embedding {
    /// Width of the embedding of images and texts for tokens of width `tokens`.
    pub fn width(self, tokens: i64) -> i64 {
        match self {
            Self::Class => tokens,
            Self::ClassMean => 2 * tokens,
        }
    }
}

/// The trained blocks behind the frozen vision tower.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct HeadSettings {
    /// Number of transformer blocks behind the frozen vision tower, which are trained with the text tower: 0 (none, as in LiT and
    /// SimZSS), 1 or 2 (as in dino.txt).
    pub blocks: i64,
    /// Fraction of the images of a batch for which each half of a block is skipped (stochastic depth, as in dino.txt).
    pub drop_path: f64,
}

impl Default for HeadSettings {
    fn default() -> Self {
        Self { blocks: 0, drop_path: 0.3 }
    }
}

/// The blocks of the head, of which there may be none.
#[derive(Debug)]
pub struct VisionHead {
    /// The embedding of an image.
    pub embedding: Embedding,
    blocks: Vec<Block>,
    /// After the blocks.
    norm: Option<Norm>,
}

impl VisionHead {
    /// Without blocks: the tokens of the frozen tower stay as they are.
    pub fn none(embedding: Embedding) -> Self {
        Self { embedding, blocks: Vec::new(), norm: None }
    }

    /// A new head of `blocks` blocks for tokens of this width, with gradients enabled. It uses libtorch's random generator.
    pub fn random(blocks: i64, embedding: Embedding, width: i64, device: Device) -> Self {
        if blocks == 0 {
            return Self::none(embedding);
        }
        let init = Init { qkv: STD, proj: STD, fc1: STD, fc2: STD, layer_scale: Some(LAYER_SCALE) };
        // Two thirds of four times the width: as many weights as an MLP without a gate has.
        let hidden = (8 * width / 3 + ALIGNED - 1) / ALIGNED * ALIGNED;
        let block = |_| Block::random_gated(width, width / HEAD_WIDTH, EPS, hidden, &init, device);
        let head = Self {
            embedding,
            blocks: (0..blocks).map(block).collect(),
            norm: Some(Norm::new(width, EPS, device)),
        };
        head.trainable()
    }

    /// Takes a head of `blocks` blocks for tokens of this width out of a file, with the keys of [`VisionHead::named`].
    pub fn take(weights: &mut Weights, blocks: i64, embedding: Embedding, width: i64) -> Result<Self> {
        if blocks == 0 {
            return Ok(Self::none(embedding));
        }
        let read = |i: i64, weights: &mut Weights| {
            Block::read(weights, &format!("{PREFIX}blocks.{i}."), &HEAD, width, width / HEAD_WIDTH, EPS)
        };
        let head = Self {
            embedding,
            blocks: (0..blocks).map(|i| read(i, weights)).collect::<Result<_>>()?,
            norm: Some(Norm::read(weights, &format!("{PREFIX}ln_final"), width, EPS)?),
        };
        Ok(head.trainable())
    }

    fn trainable(self) -> Self {
        for (_, tensor) in self.named() {
            let _ = tensor.set_requires_grad(true);
        }
        self
    }

    /// Whether there are blocks.
    pub fn is_trained(&self) -> bool {
        !self.blocks.is_empty()
    }

    /// Number of blocks.
    pub fn depth(&self) -> i64 {
        self.blocks.len() as i64
    }

    /// All parameters; the keys after the prefix are those of dino.txt, except that gate and value of the MLP are one layer, `w12`.
    pub fn named(&self) -> Vec<(String, Tensor)> {
        let mut out = Vec::new();
        for (i, block) in self.blocks.iter().enumerate() {
            out.extend(block.named(&format!("{PREFIX}blocks.{i}."), &HEAD));
        }
        if let Some(norm) = &self.norm {
            out.push((format!("{PREFIX}ln_final.weight"), norm.weight.shallow_clone()));
            out.push((format!("{PREFIX}ln_final.bias"), norm.bias.shallow_clone()));
        }
        out
    }

    /// The tokens of the frozen tower after the blocks and their LayerNorm. `kept`: what [`kept`] gives for these images, in training.
    pub fn tokens(&self, frozen: &VisionFeatures, kept: Option<&Tensor>) -> VisionFeatures {
        let Some(norm) = &self.norm else {
            return VisionFeatures {
                class: frozen.class.shallow_clone(),
                patches: frozen.patches.shallow_clone(),
            };
        };
        let mut x = Tensor::cat(&[&frozen.class.unsqueeze(1), &frozen.patches], 1);
        for (block, i) in self.blocks.iter().zip(0..) {
            let factors = kept.map(|kept| [kept.get(2 * i), kept.get(2 * i + 1)]);
            x = block.forward_kept(&x, factors.as_ref());
        }
        let x = norm.forward(&x);
        VisionFeatures { class: x.select(1, 0), patches: x.narrow(1, 1, x.size()[1] - 1) }
    }

    /// The embeddings of images, not normalized, from their tokens after the blocks.
    pub fn embed(&self, tokens: &VisionFeatures) -> Tensor {
        match self.embedding {
            Embedding::Class => tokens.class.shallow_clone(),
            Embedding::ClassMean => {
                let patches = full_precision(&tokens.patches);
                let mean = patches.mean_dim([1i64].as_slice(), false, patches.kind());
                Tensor::cat(&[full_precision(&tokens.class), mean], 1)
            }
        }
    }

    /// The embeddings of images, in `class`, and their patches, for inference.
    pub fn features(&self, frozen: &VisionFeatures) -> VisionFeatures {
        tch::no_grad(|| {
            let tokens = self.tokens(frozen, None);
            VisionFeatures { class: self.embed(&tokens), patches: tokens.patches }
        })
    }
}

/// Before the names of the head's parameters in a checkpoint.
pub(crate) const PREFIX: &str = "head.";

/// Stochastic depth of a step: the factors of the two halves of each block for the images `own` of a global batch of `batch` images,
/// [2 · blocks, images]. Each half is computed for a random choice of the images only, whose factor makes up for the others; that of
/// the others is 0. The choice depends on `seed` and `step`, not on the number of ranks. `None` if nothing is skipped.
pub fn kept(
    settings: &HeadSettings,
    batch: usize,
    own: std::ops::Range<usize>,
    seed: u64,
    step: u64,
    device: Device,
) -> Option<Tensor> {
    if settings.blocks == 0 || settings.drop_path <= 0.0 || batch == 0 {
        return None;
    }
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    random.set_stream(step);
    let count = ((batch as f64 * (1.0 - settings.drop_path)) as usize).max(1);
    let mut factors = Vec::new();
    for _ in 0..2 * settings.blocks {
        let mut images: Vec<usize> = (0..batch).collect();
        let (chosen, _) = images.partial_shuffle(&mut random, count);
        let mut of_all = vec![0.0_f32; batch];
        for &mut image in chosen {
            of_all[image] = batch as f32 / count as f32;
        }
        factors.extend_from_slice(&of_all[own.clone()]);
    }
    Some(Tensor::from_slice(&factors).view([2 * settings.blocks, -1]).to_kind(Kind::Float).to_device(device))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_choice_of_images_does_not_depend_on_the_ranks() {
        let settings = HeadSettings { blocks: 2, drop_path: 0.3 };
        let of = |own, step| kept(&settings, 20, own, 7, step, Device::Cpu).unwrap();
        let whole = of(0..20, 3);
        assert_eq!(whole.size(), [4, 20]);
        let parts: Vec<Tensor> = [0..5, 5..20].into_iter().map(|own| of(own, 3)).collect();
        assert_eq!(Tensor::cat(&parts, 1), whole);
        // 14 of 20 images, each half its own; factors that make up for the rest.
        for half in 0..4 {
            let values = Vec::<f64>::try_from(whole.get(half).to_kind(Kind::Double)).unwrap();
            assert_eq!(values.iter().filter(|&&value| value > 0.0).count(), 14);
            assert!((values.iter().sum::<f64>() - 20.0).abs() < 1e-4);
        }
        assert_ne!(whole.get(0), whole.get(1));
        assert_ne!(whole, of(0..20, 4));
        assert!(kept(&HeadSettings { blocks: 2, drop_path: 0.0 }, 20, 0..20, 7, 3, Device::Cpu).is_none());
        assert!(kept(&HeadSettings::default(), 20, 0..20, 7, 3, Device::Cpu).is_none());
    }
}
