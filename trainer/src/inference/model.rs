//! The two towers of a trained model for evaluation and visualization: from a checkpoint, or a CLIP.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use tch::{Device, Kind, Tensor};

use super::class_vectors::ClassVectors;
use crate::checkpoint::Checkpoint;
use crate::device::Precision;
use crate::error::{Error, Result};
use crate::towers::{
    Activation, Beside, ClipVisionTower, Dense, Dinoiser, FrozenVision, ImageEncoder, Normalization,
    PositionResize, Proxy, TextTower, VisionFeatures, VisionTower, heads,
};
use crate::weights::Weights;

/// What the tensors of a CLIP do not say.
#[derive(Debug, Clone, Copy, Default)]
pub struct ClipSettings {
    /// The activation with which it was trained.
    pub activation: Activation,
    /// Attention heads of the vision tower; `None` = as published CLIPs of its width.
    pub vision_heads: Option<i64>,
    /// Attention heads of the text tower; `None` = as published CLIPs of its width.
    pub text_heads: Option<i64>,
}

/// Files that some ways of reading patch features need.
#[derive(Debug, Clone, Default)]
pub struct DenseFiles {
    /// [`Dense::Proxyclip`]: weights of a vision tower.
    pub proxy: Option<PathBuf>,
    /// [`Dense::ClipDinoiser`]: a checkpoint of its convolutions.
    pub dinoiser: Option<PathBuf>,
}

impl DenseFiles {
    /// The one that is given.
    pub fn given(&self) -> Option<&PathBuf> {
        self.proxy.as_ref().or(self.dinoiser.as_ref())
    }

    /// An error if a file is missing that these patch features need, or one is given that they do not need.
    pub fn check(&self, dense: Dense) -> Result<()> {
        for (option, file, of, what) in [
            (
                "--proxy-weights",
                &self.proxy,
                Dense::Proxyclip,
                "the weights of a vision tower, such as DINO v1's ViT-B/8",
            ),
            (
                "--dinoiser-weights",
                &self.dinoiser,
                Dense::ClipDinoiser,
                "the checkpoint of its two convolutions",
            ),
        ] {
            let name = of.name();
            match file {
                None if dense == of => {
                    return Err(Error::Usage(format!("--dense {name} needs {option} FILE: {what}")));
                }
                Some(_) if dense != of => {
                    let problem =
                        format!("option {option} has an effect only with --dense {name}; leave it out");
                    return Err(Error::Usage(problem));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// A vision tower with the normalization of its images.
#[derive(Debug)]
pub enum Vision {
    /// The frozen tower of LiT and SimZSS, and what was trained behind it.
    Frozen(Box<FrozenVision>),
    /// The tower of a CLIP.
    Clip(Box<ImageEncoder<ClipVisionTower>>),
}

impl Vision {
    /// Features of pixels 0..255, [B, H, W, 3], in the embedding space shared with the text tower.
    pub fn features(&self, pixels: &Tensor) -> VisionFeatures {
        self.read(pixels).0
    }

    /// The same, and the probability that each patch is foreground, [B, N], if the features say that.
    pub fn read(&self, pixels: &Tensor) -> (VisionFeatures, Option<Tensor>) {
        match self {
            Self::Frozen(vision) => (vision.features(pixels), None),
            Self::Clip(vision) => tch::no_grad(|| vision.tower.read(&vision.normalise(pixels))),
        }
    }

    /// Side in pixels of the parts of an image that have a feature each: the patches, or those of another tower that says which belong
    /// together.
    pub fn dense_patch(&self) -> i64 {
        match self {
            Self::Frozen(vision) => vision.patch(),
            Self::Clip(vision) => vision.tower.dense_patch(),
        }
    }

    /// Side of a patch in pixels.
    pub fn patch(&self) -> i64 {
        match self {
            Self::Frozen(vision) => vision.patch(),
            Self::Clip(vision) => vision.tower.patch,
        }
    }

    /// The pixel value, 0..255, that normalization maps to 0, `[3]`.
    pub fn mean_pixel(&self) -> Tensor {
        match self {
            Self::Frozen(vision) => vision.encoder.mean_pixel(),
            Self::Clip(vision) => vision.mean_pixel(),
        }
    }
}

/// A vision tower and a text tower with a shared embedding space.
#[derive(Debug)]
pub struct Model {
    /// The vision tower.
    pub vision: Vision,
    /// The text tower.
    pub text: TextTower,
    /// Number format in which all but a frozen vision tower compute.
    pub kind: Kind,
    /// The class embedding that suits the objective of the training.
    pub vectors: ClassVectors,
    /// Side of the training images in pixels.
    pub size: i64,
    /// Description for results, such as `simzss step 2500` or `clip`.
    pub description: String,
}

impl Model {
    /// The towers of a checkpoint.
    pub fn open(checkpoint: &Checkpoint, precision: Precision, device: Device) -> Result<Self> {
        let kind = precision.kind(device);
        let trained = &checkpoint.state.settings;
        let (vision, width) = if checkpoint.trains_vision() {
            let tower = checkpoint.trained_vision(kind, device)?;
            let width = tower.output();
            let normalization = trained.vision.normalization(Normalization::IMAGENET);
            (Vision::Clip(Box::new(ImageEncoder::new(tower, normalization, kind, device))), width)
        } else {
            let vision = checkpoint.frozen_vision(precision.frozen_kind(device), device)?;
            let width = vision.width();
            (Vision::Frozen(Box::new(vision)), width)
        };
        Ok(Self {
            text: checkpoint.text(width, device)?,
            vision,
            kind,
            vectors: ClassVectors::of(trained.objective.name),
            size: i64::from(trained.data.loading.size),
            description: format!("{} step {}", trained.objective.name, checkpoint.state.step),
        })
    }

    /// A CLIP with the state-dict keys of open_clip, OpenAI or Hugging Face.
    ///
    /// # Errors
    /// Wrong use if a number of heads is not given and no published CLIP has this width.
    pub fn open_clip(path: &Path, clip: ClipSettings, precision: Precision, device: Device) -> Result<Self> {
        let kind = precision.kind(device);
        let mut weights = Weights::read(path, device)?.into_open_clip()?;
        let mut images = weights.take_below("visual.");
        let output = weights.size("text_projection")?.get(1).copied().unwrap_or(0);
        let width = weights.size("positional_embedding")?.get(1).copied().unwrap_or(0);
        let text_heads = heads::of_text(width, clip.text_heads, "--text-heads", path)?;
        let width = images.size("conv1.weight")?.first().copied().unwrap_or(0);
        let vision_heads = heads::of_clip_vision(width, clip.vision_heads, "--vision-heads", path)?;
        let text = TextTower::from_weights(weights, text_heads, output, clip.activation)?;
        let tower = ClipVisionTower::take(&mut images, vision_heads, clip.activation, kind)?;
        images.finish(&[])?;
        Ok(Self {
            text,
            size: tower.grid * tower.patch,
            vision: Vision::Clip(Box::new(ImageEncoder::new(tower, Normalization::CLIP, kind, device))),
            kind,
            vectors: ClassVectors::Caption,
            description: "clip".to_owned(),
        })
    }

    /// The same model with another kind of patch features, which may need `files`.
    ///
    /// # Errors
    /// Wrong use for values of a tower behind which something was trained on its tokens, for features that only a CLIP has, and for files
    /// that are missing or needless; a file that does not fit to the tower.
    pub fn with_dense(mut self, dense: Dense, files: &DenseFiles) -> Result<Self> {
        files.check(dense)?;
        let name = dense.name();
        let beside = self.beside(files)?;
        match &mut self.vision {
            Vision::Clip(vision) => {
                let read = vision.tower.read_as(dense, beside);
                read.map_err(|problem| match files.given() {
                    Some(path) => Error::Weights { path: path.clone(), problem },
                    None => Error::Setting {
                        name: "--dense".to_owned(),
                        problem: format!("is {name}, which {problem}"),
                    },
                })?;
            }
            Vision::Frozen(_) if dense.needs_clip() => {
                return Err(Error::Usage(format!(
                    "--dense {name} reads the vision tower of a CLIP, but this model has a frozen one; give --clip FILE, or a checkpoint \
                     that trains a CLIP"
                )));
            }
            Vision::Frozen(vision) => {
                let behind = if vision.head.is_trained() { "head" } else { "denoiser" };
                if dense == Dense::Values && (vision.head.is_trained() || vision.encoder.tower.is_denoised())
                {
                    return Err(Error::Usage(format!(
                        "values of the last block (--dense values) cannot be used with this model: the {behind} behind its vision \
                         tower was trained on the tokens"
                    )));
                }
                vision.encoder.tower.dense = dense;
            }
        }
        match dense {
            Dense::Tokens => {}
            Dense::Values => self.description.push_str(", values of the last block (MaskCLIP)"),
            _ => {
                let _ = write!(self.description, ", {name}");
            }
        }
        Ok(self)
    }

    /// What is read from these files.
    fn beside(&self, files: &DenseFiles) -> Result<Option<Beside>> {
        let device = self.device();
        if let Some(path) = &files.dinoiser {
            return Ok(Some(Beside::Dinoiser(Box::new(Dinoiser::read(path, device)?))));
        }
        let (Some(path), Vision::Clip(clip)) = (&files.proxy, &self.vision) else { return Ok(None) };
        // As DINO and DINOv2 resize their positions, whose towers the authors use.
        let tower = VisionTower::read(path, Some(PositionResize::Dinov2), self.kind, device)?;
        Ok(Some(Beside::Proxy(Box::new(Proxy::new(tower, clip.normalization())))))
    }

    /// Refuses a model that cannot compare whole images with texts.
    ///
    /// # Errors
    /// Wrong use for a model of `talk2dino`, which was trained on parts of images.
    pub fn for_whole_images(&self) -> Result<()> {
        if self.text.is_mapped() {
            return Err(Error::Usage(
                "--checkpoint: a model of objective talk2dino compares texts with patches, not with whole images, which this command \
                 does; use it for segmentation"
                    .to_owned(),
            ));
        }
        Ok(())
    }

    /// The device of its tensors.
    pub fn device(&self) -> Device {
        self.text.logit_scale().device()
    }
}
