//! The frozen vision tower: DINOv2's ViT, with or without register tokens.

use std::path::Path;

use tch::{Device, Kind, Tensor};

use super::block::{Block, DINOV2, Init, Norm, normal};
use super::denoiser::Denoiser;
use super::position::{PositionResize, fit_position, side_of};
use crate::error::{Error, Result};
use crate::weights::Weights;

/// LayerNorm's epsilon in DINOv2 (the ViT ports in other Rust examples use 1e-5 and differ).
pub(super) const EPS: f64 = 1e-6;
/// Every DINOv2 model has heads of this width.
pub(crate) const HEAD_WIDTH: i64 = 64;

/// The size of a new tower.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VisionShape {
    /// Token width d_v, a multiple of 64 (the width of a head).
    pub width: i64,
    /// Number of blocks.
    pub depth: i64,
    /// Side of a patch in pixels.
    pub patch: i64,
    /// Patches along a side of the training image.
    pub grid: i64,
}

/// What the tower makes of images.
#[derive(Debug)]
pub struct VisionFeatures {
    /// Class token after the final LayerNorm, [B, d_v].
    pub class: Tensor,
    /// Patch tokens after the final LayerNorm, row by row, [B, N, d_v].
    pub patches: Tensor,
}

/// DINOv2's vision transformer.
#[derive(Debug)]
pub struct VisionTower {
    /// Side of a patch in pixels.
    pub patch: i64,
    /// Token width d_v.
    pub width: i64,
    /// Patches along a side of the training image.
    pub grid: i64,
    resize: PositionResize,
    class: Tensor,
    position: Tensor,
    registers: Option<Tensor>,
    patch_weight: Tensor,
    patch_bias: Tensor,
    blocks: Vec<Block>,
    norm: Norm,
    /// Boxed as most towers have none.
    denoiser: Option<Box<Denoiser>>,
}

impl VisionTower {
    /// Reads a tower whose size follows from its tensors, in any family's names (see [`crate::weights::Family`]), with
    /// the denoiser that lies beside it; the patch embedding is kept in `kind`.
    pub fn read(path: &Path, resize: PositionResize, kind: Kind, device: Device) -> Result<Self> {
        Self::from_weights(Weights::read(path, device)?.into_vision()?, resize, kind)
    }

    /// The same from tensors in DINOv2's names that hold nothing else.
    pub fn from_weights(mut weights: Weights, resize: PositionResize, kind: Kind) -> Result<Self> {
        let patches = weights.size("patch_embed.proj.weight")?;
        let position = weights.size("pos_embed")?;
        let [width, 3, patch, _] = patches[..] else {
            return Err(
                weights.problem(format!("patch_embed.proj.weight is {patches:?}, not [width, 3, p, p]"))
            );
        };
        let grid = side_of(position.get(1).map_or(0, |n| n - 1));
        if width % HEAD_WIDTH != 0 || patch == 0 {
            return Err(
                weights.problem(format!("width {width} is no multiple of {HEAD_WIDTH}, a head's width"))
            );
        }
        let class = weights.take("cls_token", &[1, 1, width])?;
        let position = weights.take("pos_embed", &[1, 1 + grid * grid, width])?;
        let patch_weight = weights.take("patch_embed.proj.weight", &[width, 3, patch, patch])?;
        let patch_bias = weights.take("patch_embed.proj.bias", &[width])?;
        let registers = ["register_tokens", "reg_token"].into_iter().find(|name| weights.has(name));
        let registers = match registers {
            Some(name) => {
                let count = weights.size(name)?.get(1).copied().unwrap_or(0);
                Some(weights.take(name, &[1, count, width])?)
            }
            None => None,
        };
        let mut blocks = Vec::new();
        while weights.has(&format!("blocks.{}.norm1.weight", blocks.len())) {
            let prefix = format!("blocks.{}.", blocks.len());
            blocks.push(Block::read(&mut weights, &prefix, &DINOV2, width, width / HEAD_WIDTH, EPS)?);
        }
        let norm = Norm::read(&mut weights, "norm", width, EPS)?;
        let denoised = weights.has("denoiser.pos_embed");
        let denoiser = denoised.then(|| Denoiser::take(&mut weights, width)).transpose()?.map(Box::new);
        // Only DINOv2's own training masks patches.
        weights.finish(&["mask_token"])?;
        let tower = Self {
            patch,
            width,
            grid,
            resize,
            class,
            position,
            registers,
            patch_weight,
            patch_bias,
            blocks,
            norm,
            denoiser,
        };
        Ok(tower.computing_in(kind))
    }

    /// The same tower, computing in `kind`. In less than float32 it can only be used: its weights are rounded, and are no
    /// longer those of its file.
    #[must_use]
    pub fn computing_in(mut self, kind: Kind) -> Self {
        if kind == self.patch_weight.kind() {
            return self;
        }
        self.patch_weight = self.patch_weight.to_kind(kind);
        self.patch_bias = self.patch_bias.to_kind(kind);
        self.blocks = self.blocks.iter().map(|block| block.frozen(kind)).collect();
        self.norm = self.norm.frozen(kind);
        self.denoiser = self.denoiser.map(|denoiser| Box::new(denoiser.frozen(kind)));
        self
    }

    /// Puts a denoiser behind the tower, from a file of DVT or SimZSS.
    pub fn with_denoiser(mut self, path: &Path, device: Device) -> Result<Self> {
        let mut weights = Weights::read(path, device)?.into_vision()?;
        let mut denoiser = weights.take_below("denoiser.").under("denoiser.");
        self.denoiser = Some(Box::new(Denoiser::take(&mut denoiser, self.width)?));
        denoiser.finish(&[])?;
        Ok(self)
    }

    /// Whether its patch tokens pass through a denoiser.
    pub fn is_denoised(&self) -> bool {
        self.denoiser.is_some()
    }

    /// A tower with random weights, as ViTs start: linear layers N(0, 1/fan-in), LayerScale 1.
    pub fn random(shape: VisionShape, device: Device) -> Self {
        let VisionShape { width, depth, patch, grid } = shape;
        let normal = |size: &[i64], std: f64| normal(size, std, device);
        let fan_in = |n: i64| (n as f64).powf(-0.5);
        let init = Init {
            qkv: fan_in(width),
            proj: fan_in(width),
            fc1: fan_in(width),
            fc2: fan_in(4 * width),
            layer_scale: Some(1.0),
        };
        Self {
            patch,
            width,
            grid,
            resize: PositionResize::default(),
            class: normal(&[1, 1, width], 0.02),
            position: normal(&[1, 1 + grid * grid, width], 0.02),
            registers: None,
            patch_weight: normal(&[width, 3, patch, patch], fan_in(3 * patch * patch)),
            patch_bias: Tensor::zeros([width], (Kind::Float, device)),
            blocks: (0..depth)
                .map(|_| Block::random(width, width / HEAD_WIDTH, EPS, &init, device))
                .collect(),
            norm: Norm::new(width, EPS, device),
            denoiser: None,
        }
    }

    /// `pixels`: [B, 3, H, W], normalised, H and W multiples of the patch.
    pub fn forward(&self, pixels: &Tensor) -> VisionFeatures {
        let kind = self.patch_weight.kind();
        let (side, size) = (self.patch, pixels.size());
        let (batch, height, width) = (size[0], size[2] / side, size[3] / side);
        let patches = self.embed(&pixels.to_kind(kind), [batch, height, width]);
        let position = self.position_for(height, width).to_kind(kind);
        let patches = patches + position.narrow(1, 1, height * width);
        let class = (self.class.to_kind(kind) + position.narrow(1, 0, 1)).expand([batch, 1, -1], false);
        let mut extra = 1;
        let mut sequence = vec![class];
        if let Some(registers) = &self.registers {
            extra += registers.size()[1];
            sequence.push(registers.to_kind(kind).expand([batch, -1, -1], false));
        }
        sequence.push(patches);
        let mut x = Tensor::cat(&sequence, 1);
        for block in &self.blocks {
            x = block.forward(&x, false);
        }
        let x = self.norm.forward(&x);
        let patches = x.narrow(1, extra, height * width);
        let patches = match &self.denoiser {
            Some(denoiser) => denoiser.forward(&patches, height, width),
            None => patches,
        };
        VisionFeatures { class: x.select(1, 0), patches }
    }

    /// A convolution with a kernel as large as its step, [B, N, d_v]. cuDNN takes several times as long for it as a product over
    /// the pixels of each patch does, oneDNN less.
    fn embed(&self, pixels: &Tensor, [batch, height, width]: [i64; 3]) -> Tensor {
        let (side, weight, bias) = (self.patch, &self.patch_weight, Some(&self.patch_bias));
        if !pixels.device().is_cuda() {
            let grid = pixels.conv2d(weight, bias, [side, side], [0, 0], [1, 1], 1);
            return grid.flatten(2, 3).transpose(1, 2);
        }
        let patches = pixels.view([batch, 3, height, side, width, side]).permute([0, 2, 4, 1, 3, 5]);
        patches.reshape([batch, height * width, -1]).linear(&weight.view([self.width, -1]), bias)
    }

    /// Position embedding for a grid of `height` x `width` patches, [1, 1 + height * width, d_v].
    fn position_for(&self, height: i64, width: i64) -> Tensor {
        let class = self.position.narrow(1, 0, 1);
        let patches = self.position.narrow(1, 1, self.grid * self.grid);
        let fit = self.resize.fit(self.registers.is_some());
        Tensor::cat(&[class, fit_position(&patches, self.grid, height, width, fit)], 1)
    }

    /// Number of blocks.
    pub fn depth(&self) -> i64 {
        self.blocks.len() as i64
    }

    /// Tokens beside the patches: class and registers.
    pub fn extra_tokens(&self) -> i64 {
        1 + self.registers.as_ref().map_or(0, |registers| registers.size()[1])
    }

    /// Folds the mean and deviation of each channel of `patches` ([B, N, d_v], this tower's own output) into the
    /// final LayerNorm, so that patch tokens come out with mean 0 and deviation 1: what all patches share would
    /// otherwise dominate every similarity.
    pub fn whiten(&self, patches: &Tensor) {
        tch::no_grad(|| {
            let channels = patches.reshape([-1, self.width]);
            let mean = channels.mean_dim([0i64].as_slice(), false, Kind::Float);
            let deviation = channels.std_dim([0i64].as_slice(), false, false).clamp_min(1e-6);
            let _ = self.norm.weight.shallow_clone().g_div_(&deviation);
            let _ = self.norm.bias.shallow_clone().g_sub_(&mean).g_div_(&deviation);
        });
    }

    /// Every parameter under DINOv2's name for it, the denoiser's under `denoiser.`.
    pub fn named(&self) -> Vec<(String, Tensor)> {
        let mut out: Vec<(String, Tensor)> = [
            ("cls_token", &self.class),
            ("pos_embed", &self.position),
            ("patch_embed.proj.weight", &self.patch_weight),
            ("patch_embed.proj.bias", &self.patch_bias),
            ("norm.weight", &self.norm.weight),
            ("norm.bias", &self.norm.bias),
        ]
        .into_iter()
        .chain(self.registers.as_ref().map(|r| ("register_tokens", r)))
        .map(|(name, tensor)| (name.to_owned(), tensor.shallow_clone()))
        .collect();
        for (i, block) in self.blocks.iter().enumerate() {
            out.extend(block.named(&format!("blocks.{i}."), &DINOV2));
        }
        out.extend(self.denoiser.iter().flat_map(|denoiser| denoiser.named()));
        out
    }

    /// Refuses image sizes that do not divide into patches.
    pub fn check_size(&self, setting: &str, pixels: i64) -> Result<()> {
        if pixels > 0 && pixels % self.patch == 0 {
            return Ok(());
        }
        Err(Error::Setting {
            name: setting.to_owned(),
            problem: format!("{pixels} px does not divide into patches of {} px", self.patch),
        })
    }
}
