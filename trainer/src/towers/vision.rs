//! The frozen vision tower: the ViT of DINOv2, with or without register tokens, or of a family that is built like it.

use std::path::Path;

use tch::{Device, Kind, Tensor};

use super::block::{Activation, Block, Init};
use super::denoiser::Denoiser;
use super::dense::{Dense, Reading};
use super::family::TowerFamily;
use super::float8::{self, FLOAT8};
use super::full_precision;
use super::heads;
use super::layers::{Norm, normal};
use super::pooling::AttentionPooling;
use super::position::{LearnedPositions, PositionResize};
use super::reading::last_block;
use super::rotary::{PERIODS, Rotation, exact_periods, read_periods};
use crate::error::{Error, Result};
use crate::weights::Weights;

/// Size of a new tower.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VisionShape {
    /// Token width d_v; must be a multiple of 64, the width of an attention head.
    pub width: i64,
    /// Number of transformer blocks.
    pub depth: i64,
    /// Side of a patch in pixels.
    pub patch: i64,
    /// Patches along a side of the training image.
    pub grid: i64,
}

/// The output of a vision tower.
#[derive(Debug)]
pub struct VisionFeatures {
    /// The embedding of the image, [B, d_v]: the class token after the final LayerNorm or, in towers without one, what a query has
    /// pooled from the patches.
    pub class: Tensor,
    /// Patch tokens after the final LayerNorm, row by row, [B, N, d_v].
    pub patches: Tensor,
}

impl VisionFeatures {
    /// The same in another number format.
    #[must_use]
    pub fn to_kind(&self, kind: Kind) -> Self {
        Self { class: self.class.to_kind(kind), patches: self.patches.to_kind(kind) }
    }
}

/// How a tower knows where its patches are.
#[derive(Debug)]
enum Positions {
    Learned(LearnedPositions),
    /// The periods of the rotations.
    Rotary(Tensor),
}

/// How a tower embeds a whole image.
#[derive(Debug)]
enum Class {
    /// By a token of its own, [1, 1, d_v].
    Token(Tensor),
    Pooled(Box<AttentionPooling>),
}

/// A vision transformer.
#[derive(Debug)]
pub struct VisionTower {
    /// The family of towers of which it is.
    pub family: &'static TowerFamily,
    /// Side of a patch in pixels.
    pub patch: i64,
    /// Token width d_v.
    pub width: i64,
    /// Number of attention heads.
    pub heads: i64,
    /// Which patch features [`VisionTower::forward`] returns: tokens or values.
    pub dense: Dense,
    /// How an image is embedded.
    class: Class,
    positions: Positions,
    registers: Option<Tensor>,
    patch_weight: Tensor,
    patch_bias: Tensor,
    blocks: Vec<Block>,
    norm: Norm,
    /// Boxed, because most towers have none.
    denoiser: Option<Box<Denoiser>>,
}

impl VisionTower {
    /// Reads a tower, and its denoiser if the file contains one, with the state-dict keys of any [`crate::weights::Family`]. The
    /// size follows from the tensors; the tower computes in `kind` ([`VisionTower::computing_in`]). Without `resize`, a learned position
    /// embedding is resized as in the library whose keys the file has. Rotary positions have the periods of the file.
    pub fn read(path: &Path, resize: Option<PositionResize>, kind: Kind, device: Device) -> Result<Self> {
        let (family, weights) = Weights::read(path, device)?.into_vision()?;
        Self::from_weights(weights, resize.unwrap_or_else(|| family.into()), kind)
    }

    /// The same from tensors with the state-dict keys of DINOv2, DINOv3 or SigLIP that contain nothing else.
    pub fn from_weights(mut weights: Weights, resize: PositionResize, kind: Kind) -> Result<Self> {
        let family = TowerFamily::of(&weights);
        let patches = weights.size("patch_embed.proj.weight")?;
        let [width, 3, patch @ 1..=i64::MAX, _] = patches[..] else {
            return Err(
                weights.problem(format!("patch_embed.proj.weight is {patches:?}, not [width, 3, p, p]"))
            );
        };
        let Some(heads) = family.heads(width) else {
            let head = heads::HEAD_WIDTH;
            return Err(
                weights.problem(format!("width {width} is not a multiple of {head}, the width of a head"))
            );
        };
        let class = if family.class_token {
            Class::Token(weights.take("cls_token", &[1, 1, width])?)
        } else {
            let pooling = AttentionPooling::take(&mut weights, width, heads, family.eps, family.activation)?;
            Class::Pooled(Box::new(pooling))
        };
        let patch_weight = weights.take("patch_embed.proj.weight", &[width, 3, patch, patch])?;
        let patch_bias = weights.take("patch_embed.proj.bias", &[width])?;
        let positions = if family.rotary {
            Positions::Rotary(read_periods(&mut weights, width / heads, patch_bias.device())?)
        } else {
            Positions::Learned(LearnedPositions::take(&mut weights, width, family.class_token, resize)?)
        };
        let registers = if weights.has(family.registers) {
            let count = weights.size(family.registers)?.get(1).copied().unwrap_or(0);
            Some(weights.take(family.registers, &[1, count, width])?)
        } else {
            None
        };
        let mut blocks = Vec::new();
        while weights.has(&format!("blocks.{}.norm1.weight", blocks.len())) {
            let prefix = format!("blocks.{}.", blocks.len());
            let block = Block::read(&mut weights, &prefix, family.block, width, heads, family.eps)?;
            let gated = block.activation() == Activation::SwiGlu;
            blocks.push(if gated { block } else { block.with_activation(family.activation) });
        }
        let norm = Norm::read(&mut weights, family.norm, width, family.eps)?;
        let denoised = family.denoisable() && weights.has("denoiser.pos_embed");
        let denoiser = denoised.then(|| Denoiser::take(&mut weights, width)).transpose()?.map(Box::new);
        // The mask token is used only in the tower's own training.
        weights.finish(&["mask_token"])?;
        let tower = Self {
            family,
            patch,
            width,
            heads,
            dense: Dense::Tokens,
            class,
            positions,
            registers,
            patch_weight,
            patch_bias,
            blocks,
            norm,
            denoiser,
        };
        tower.computing_in(kind)
    }

    /// The same tower with periods computed in float32 instead of those of its file; nothing changes for learned positions.
    #[must_use]
    pub fn with_exact_periods(mut self) -> Self {
        if let Positions::Rotary(periods) = &mut self.positions {
            *periods = exact_periods(self.width / self.heads, periods.device());
        }
        self
    }

    /// The same tower, computing in this kind. Below float32 it is for inference only: its weights are rounded and differ from those
    /// of its file. In float8 (`Float8e4m3fn`) are the four products of each block, which are most of the operations; everything else,
    /// a denoiser and attention pooling too, is then in bfloat16.
    ///
    /// # Errors
    /// For float8 if its device does not multiply in it, or a layer's width is not a multiple of 16.
    pub fn computing_in(mut self, products: Kind) -> Result<Self> {
        if products == self.product_kind() {
            return Ok(self);
        }
        let kind = if products == FLOAT8 { Kind::BFloat16 } else { products };
        if let Class::Pooled(pooling) = &mut self.class {
            **pooling = pooling.frozen(kind);
        }
        self.patch_weight = self.patch_weight.to_kind(kind);
        self.patch_bias = self.patch_bias.to_kind(kind);
        self.blocks = if products == FLOAT8 {
            float8::check_device(self.device())?;
            self.blocks.iter().map(Block::in_float8).collect::<Result<_>>()?
        } else {
            self.blocks.iter().map(|block| block.frozen(kind)).collect()
        };
        self.norm = self.norm.frozen(kind);
        self.denoiser = self.denoiser.map(|denoiser| Box::new(denoiser.frozen(kind)));
        Ok(self)
    }

    /// Adds a denoiser from a file of DVT or SimZSS; it is applied to the patch tokens.
    ///
    /// # Errors
    /// For a tower that is not of DINOv2's structure, too: there are no denoisers for these.
    pub fn with_denoiser(mut self, path: &Path, device: Device) -> Result<Self> {
        if !self.family.denoisable() {
            let problem = format!(
                "is a denoiser for towers such as DINOv2's, but the vision tower is of {}; leave it out",
                self.family.name
            );
            return Err(Error::Weights { path: path.to_owned(), problem });
        }
        let (_, mut weights) = Weights::read(path, device)?.into_vision()?;
        let mut denoiser = weights.take_below("denoiser.").under("denoiser.");
        self.denoiser = Some(Box::new(Denoiser::take(&mut denoiser, self.width)?));
        denoiser.finish(&[])?;
        Ok(self)
    }

    /// Whether a denoiser is applied to its patch tokens.
    pub fn is_denoised(&self) -> bool {
        self.denoiser.is_some()
    }

    /// A tower with random weights: linear layers N(0, 1/fan-in), LayerScale 1.
    pub fn random(shape: VisionShape, device: Device) -> Self {
        let VisionShape { width, depth, patch, grid } = shape;
        let family = TowerFamily::dinov2();
        let heads = family.heads(width).unwrap_or(1);
        let normal = |size: &[i64], std: f64| normal(size, std, device);
        let fan_in = |n: i64| (n as f64).powf(-0.5);
        let init = Init {
            qkv: fan_in(width),
            proj: fan_in(width),
            fc1: fan_in(width),
            fc2: fan_in(4 * width),
            layer_scale: Some(1.0),
        };
        let positions = |embedding| LearnedPositions { embedding, grid, resize: PositionResize::Dinov2 };
        Self {
            family,
            patch,
            width,
            heads,
            dense: Dense::Tokens,
            class: Class::Token(normal(&[1, 1, width], 0.02)),
            positions: Positions::Learned(positions(normal(&[1, 1 + grid * grid, width], 0.02))),
            registers: None,
            patch_weight: normal(&[width, 3, patch, patch], fan_in(3 * patch * patch)),
            patch_bias: Tensor::zeros([width], (Kind::Float, device)),
            blocks: (0..depth).map(|_| Block::random(width, heads, family.eps, &init, device)).collect(),
            norm: Norm::new(width, family.eps, device),
            denoiser: None,
        }
    }

    /// `pixels`: [B, 3, H, W], normalized, H and W multiples of the patch size.
    pub fn forward(&self, pixels: &Tensor) -> VisionFeatures {
        self.forward_with(pixels, |_, _| ())
    }

    /// The head means of Talk2DINO: for each attention head of the last block, the mean of the patch tokens, weighted by the attention
    /// of the class token to them, float32 [B, heads, d_v]. As in the authors' code, the attention is that of queries and keys before
    /// rotary positions turn them. The tower must have a block.
    pub fn head_means(&self, pixels: &Tensor) -> Tensor {
        let mut attention = Tensor::new();
        let features = self.forward_with(pixels, |block, x| {
            attention = block.class_attention(x, self.extra_tokens());
        });
        attention.bmm(&full_precision(&features.patches))
    }

    /// Calls `at_last` with the last block and what it is given.
    fn forward_with(&self, pixels: &Tensor, mut at_last: impl FnMut(&Block, &Tensor)) -> VisionFeatures {
        let kind = self.patch_weight.kind();
        let (side, size) = (self.patch, pixels.size());
        let (batch, height, width) = (size[0], size[2] / side, size[3] / side);
        let patches = self.embed(&pixels.to_kind(kind), [batch, height, width]);
        let (patches, rotation) = match &self.positions {
            Positions::Learned(learned) => {
                let position = learned.of_patches(height, width, self.registers.is_some());
                (patches + position.to_kind(kind), None)
            }
            Positions::Rotary(periods) => {
                (patches, Some(Rotation::new(periods, height, width, self.extra_tokens())))
            }
        };
        let mut sequence = Vec::new();
        if let Class::Token(class) = &self.class {
            let class = match &self.positions {
                Positions::Learned(learned) => class.to_kind(kind) + learned.of_class().to_kind(kind),
                Positions::Rotary(_) => class.to_kind(kind),
            };
            sequence.push(class.expand([batch, 1, -1], false));
        }
        if let Some(registers) = &self.registers {
            sequence.push(registers.to_kind(kind).expand([batch, -1, -1], false));
        }
        sequence.push(patches);
        let extra = self.extra_tokens();
        let mut x = Tensor::cat(&sequence, 1);
        let mut values = None;
        for (i, block) in self.blocks.iter().enumerate() {
            if i + 1 == self.blocks.len() {
                at_last(block, &x);
                if let Reading::Last(way) = self.dense.reading() {
                    let read = last_block(block, &x, way, [height, width], None);
                    values = Some(self.norm.forward(&read));
                }
            }
            x = block.forward_with(&x, false, rotation.as_ref());
        }
        let x = self.norm.forward(&x);
        let class = match &self.class {
            Class::Token(_) => x.select(1, 0),
            Class::Pooled(pooling) => pooling.forward(&x.narrow(1, extra, height * width)),
        };
        let patches = values.as_ref().unwrap_or(&x).narrow(1, extra, height * width);
        let patches = match &self.denoiser {
            Some(denoiser) => denoiser.forward(&patches, height, width),
            None => patches,
        };
        VisionFeatures { class, patches }
    }

    /// The patch embedding, [B, N, d_v]: a convolution whose stride equals its kernel size. With cuDNN it takes several times as
    /// long as a matrix product over the pixels of each patch; with oneDNN (on a CPU) the convolution is faster.
    fn embed(&self, pixels: &Tensor, [batch, height, width]: [i64; 3]) -> Tensor {
        let (side, weight, bias) = (self.patch, &self.patch_weight, Some(&self.patch_bias));
        if !pixels.device().is_cuda() {
            let grid = pixels.conv2d(weight, bias, [side, side], [0, 0], [1, 1], 1);
            return grid.flatten(2, 3).transpose(1, 2);
        }
        let patches = pixels.view([batch, 3, height, side, width, side]).permute([0, 2, 4, 1, 3, 5]);
        patches.reshape([batch, height * width, -1]).linear(&weight.view([self.width, -1]), bias)
    }

    /// How its learned position embedding is resized to another image size; `None` if positions are rotary.
    pub fn position_resize(&self) -> Option<PositionResize> {
        match &self.positions {
            Positions::Learned(learned) => Some(learned.resize),
            Positions::Rotary(_) => None,
        }
    }

    /// Patches along a side of the training image; `None` if positions are rotary, which suit any.
    pub fn grid(&self) -> Option<i64> {
        match &self.positions {
            Positions::Learned(learned) => Some(learned.grid),
            Positions::Rotary(_) => None,
        }
    }

    /// The periods of rotary positions, `[head width / 4]`.
    pub fn periods(&self) -> Option<&Tensor> {
        match &self.positions {
            Positions::Learned(_) => None,
            Positions::Rotary(periods) => Some(periods),
        }
    }

    /// The kind of its tensors, and of its features.
    pub fn kind(&self) -> Kind {
        self.patch_weight.kind()
    }

    /// The kind of the products of its blocks: the same, or float8.
    pub fn product_kind(&self) -> Kind {
        self.blocks.first().map_or(self.kind(), Block::product_kind)
    }

    /// The device of its tensors.
    pub(super) fn device(&self) -> Device {
        self.patch_weight.device()
    }

    /// Number of transformer blocks.
    pub fn depth(&self) -> i64 {
        self.blocks.len() as i64
    }

    /// Number of registers.
    pub fn registers(&self) -> i64 {
        self.registers.as_ref().map_or(0, |registers| registers.size()[1])
    }

    /// Number of tokens in addition to the patches: class token and registers.
    pub fn extra_tokens(&self) -> i64 {
        i64::from(self.family.class_token) + self.registers()
    }

    /// Folds the mean and standard deviation of each channel of `patches` ([B, N, d_v], the output of this tower) into the final
    /// LayerNorm, so that patch tokens have mean 0 and standard deviation 1 per channel. Otherwise the part that all patches have in
    /// common would dominate every similarity.
    pub fn whiten(&self, patches: &Tensor) {
        tch::no_grad(|| {
            let channels = patches.reshape([-1, self.width]);
            let mean = channels.mean_dim([0i64].as_slice(), false, Kind::Float);
            let deviation = channels.std_dim([0i64].as_slice(), false, false).clamp_min(1e-6);
            let _ = self.norm.weight.shallow_clone().g_div_(&deviation);
            let _ = self.norm.bias.shallow_clone().g_sub_(&mean).g_div_(&deviation);
        });
    }

    /// All parameters with the state-dict keys of the family, DINOv2's, DINOv3's or SigLIP's; those of the denoiser start with `denoiser.`.
    pub fn named(&self) -> Vec<(String, Tensor)> {
        let position = match &self.positions {
            Positions::Learned(learned) => ("pos_embed", &learned.embedding),
            Positions::Rotary(periods) => (PERIODS, periods),
        };
        let mut out: Vec<(String, Tensor)> = [
            position,
            ("patch_embed.proj.weight", &self.patch_weight),
            ("patch_embed.proj.bias", &self.patch_bias),
        ]
        .into_iter()
        .chain(self.registers.as_ref().map(|registers| (self.family.registers, registers)))
        .map(|(name, tensor)| (name.to_owned(), tensor.shallow_clone()))
        .collect();
        for (end, tensor) in [("weight", &self.norm.weight), ("bias", &self.norm.bias)] {
            out.push((format!("{}.{end}", self.family.norm), tensor.shallow_clone()));
        }
        match &self.class {
            Class::Token(class) => out.push(("cls_token".to_owned(), class.shallow_clone())),
            Class::Pooled(pooling) => out.extend(pooling.named()),
        }
        for (i, block) in self.blocks.iter().enumerate() {
            out.extend(block.named(&format!("blocks.{i}."), self.family.block));
        }
        out.extend(self.denoiser.iter().flat_map(|denoiser| denoiser.named()));
        out
    }

    /// Rejects image sizes that are not a multiple of the patch size. `setting` is the option that gave the size.
    pub fn check_size(&self, setting: &str, pixels: i64) -> Result<()> {
        if pixels > 0 && pixels % self.patch == 0 {
            return Ok(());
        }
        Err(Error::Setting {
            name: setting.to_owned(),
            problem: format!("is {pixels} px; it must be a multiple of the patch size, {} px", self.patch),
        })
    }
}
