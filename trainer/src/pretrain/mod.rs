//! `trainer pretrain`: pretrains a small vision tower from images alone, for tests and demos without DINOv2.
//!
//! It uses neither captions nor masks. Patches are clustered by k-means of simple colour and texture statistics (`words`); each
//! cluster (visual word) gets an embedding from its co-occurrence with neighbouring clusters. The tower learns to predict the
//! embedding of each patch (a pseudo-label) under random changes of light and noise. At the end, the output is whitened. This is far
//! from DINOv2, but enough to distinguish colours and textures, as synthetic scenes require.

mod words;

use std::path::{Path, PathBuf};

use loader::{Batches, Loader, Position};
use serde::Serialize;
use tch::{Device, Kind, Tensor};

use crate::data;
use crate::device;
use crate::error::{Error, Result};
use crate::method::optimizer::{Optimizer, OptimizerSettings};
use crate::observer::Observer;
use crate::towers::{ImageEncoder, Normalization, VisionShape, VisionTower, pixels, unit};
use crate::weights;
use words::Words;

/// Images per step.
const BATCH: usize = 8;
/// Images for the clustering.
const WORD_IMAGES: usize = 1024;
/// Images for the whitening statistics.
const WHITENING_IMAGES: usize = 512;
/// Maximum change of brightness, of one channel relative to the others, and of noise, as fractions of the full range.
const BRIGHTNESS: f64 = 0.2;
const TINT: f64 = 0.08;
const NOISE: f64 = 0.03;

/// Settings of `trainer pretrain`.
#[derive(Debug, Clone)]
pub struct PretrainSettings {
    /// Shards: folders, tar files or brace lists.
    pub shards: Vec<PathBuf>,
    /// Number of optimizer steps; 0 = keep the random initial weights.
    pub steps: u64,
    /// Side of the images in pixels.
    pub size: u32,
    /// Side of a patch in pixels.
    pub patch: i64,
    /// Embedding width of a token.
    pub width: i64,
    /// Number of transformer blocks.
    pub depth: i64,
    /// Random seed of weights, order of images and augmentation.
    pub seed: u64,
    /// `auto`, `cpu`, `cuda` or `cuda:N`.
    pub device: String,
    /// CPU threads; 0 = one per core.
    pub threads: usize,
}

/// Summary, as `--json` prints it.
#[derive(Debug, Clone, Serialize)]
pub struct Summary {
    /// The weights file.
    pub out: PathBuf,
    /// Steps taken.
    pub steps: u64,
    /// Mean cosine similarity between patch tokens and their targets in the last steps; `None` without steps.
    pub agreement: Option<f64>,
}

/// Pretrains a tower and writes it to `out`.
pub fn pretrain(settings: &PretrainSettings, out: &Path, observer: &dyn Observer) -> Result<Summary> {
    let device = device::open(&settings.device)?;
    device::limit_threads(settings.threads);
    let VisionShape { width, depth, patch, .. } = shape(settings);
    let refuse = |name: &str, problem: &str| {
        Err(Error::Setting { name: name.to_owned(), problem: problem.to_owned() })
    };
    if width < 64 || width % 64 != 0 {
        return refuse("--width", "must be a multiple of 64");
    }
    if depth < 1 || patch < 1 {
        return refuse(if depth < 1 { "--depth" } else { "--patch" }, "must be at least 1");
    }
    tch::manual_seed(settings.seed as i64);
    let tower = VisionTower::random(shape(settings), device);
    tower.check_size("--size", i64::from(settings.size))?;
    let shards = loader::shards::list(&settings.shards)?;
    let loader = data::pretraining_loader(shards, BATCH, settings.size, settings.seed, settings.threads)?;
    let vision = ImageEncoder::new(tower, Normalization::IMAGENET, Kind::Float, device);
    let mut images = Images::new(&loader, i64::from(settings.size));

    let agreement = if settings.steps > 0 {
        Some(learn(settings, &vision, &mut images, device, observer)?)
    } else {
        None
    };
    let mut tokens = Vec::new();
    for _ in 0..WHITENING_IMAGES / BATCH {
        tokens.push(vision.features(&images.next()?).patches);
    }
    vision.tower.whiten(&Tensor::cat(&tokens, 0));
    let mut named = vision.tower.named();
    // DINOv2's files have it, and by it the file is known as one of DINOv2's.
    named.push(("mask_token".to_owned(), Tensor::zeros([1, width], (Kind::Float, device))));
    weights::write(out, &named)?;
    Ok(Summary { out: out.to_owned(), steps: settings.steps, agreement })
}

fn shape(settings: &PretrainSettings) -> VisionShape {
    let PretrainSettings { width, depth, patch, size, .. } = *settings;
    VisionShape { width, depth, patch, grid: i64::from(size) / patch.max(1) }
}

/// Batches of pixels 0..255, [BATCH, H, W, 3].
struct Images {
    batches: Batches,
    size: i64,
}

impl Images {
    fn new(loader: &Loader, size: i64) -> Self {
        Self { batches: loader.batches(Position { epoch: 0, step: 0 }), size }
    }

    fn next(&mut self) -> Result<Tensor> {
        let batch =
            self.batches.next().ok_or_else(|| Error::Failed("the shards gave no batch".to_owned()))??;
        Ok(pixels(&batch.images, self.size))
    }
}

/// Trains the tower to predict the target of each patch; returns the mean cosine similarity in the last steps.
fn learn(
    settings: &PretrainSettings,
    vision: &ImageEncoder,
    images: &mut Images,
    device: Device,
    observer: &dyn Observer,
) -> Result<f64> {
    let mut samples = Vec::new();
    for _ in 0..WORD_IMAGES / BATCH {
        samples.push(images.next()?);
    }
    let words = Words::fit(&Tensor::cat(&samples, 0), settings.patch, settings.width, device);
    drop(samples);

    let parameters = vision.tower.named();
    for (_, parameter) in &parameters {
        let _ = parameter.set_requires_grad(true);
    }
    let schedule = OptimizerSettings { lr: Some(3e-3), weight_decay: 0.05, ..OptimizerSettings::default() };
    let mut optimizer = Optimizer::new(&schedule, parameters);
    let mut progress = observer.progress("pretraining", "steps", settings.steps);
    let mut agreement = 0.0;
    for step in 0..settings.steps {
        if observer.interrupted() {
            return Err(Error::interrupted("no weights file is written"));
        }
        let clean = images.next()?;
        let targets = words.targets(&clean);
        let tokens = vision.tower.forward(&vision.normalise(&relit(&clean))).patches;
        let cosine = (unit(&tokens) * targets).sum_dim_intlist([-1i64].as_slice(), false, Kind::Float);
        let cosine = cosine.mean(Kind::Float);
        (-&cosine).backward();
        optimizer.step(schedule.lr_at(0, step, settings.steps))?;
        let now = cosine.double_value(&[]);
        agreement = if step == 0 { now } else { 0.95 * agreement + 0.05 * now };
        progress.advance(1, &|| format!("cosine similarity to the targets {agreement:.3}"));
    }
    for (_, parameter) in vision.tower.named() {
        let _ = parameter.set_requires_grad(false);
    }
    progress.finish(&format!("cosine similarity to the targets {agreement:.3}"));
    Ok(agreement)
}

/// The same images with changed light and noise: [B, H, W, 3], 0..255.
fn relit(images: &Tensor) -> Tensor {
    let images = images.to_kind(Kind::Float);
    let batch = images.size()[0];
    let around_one = |size: &[i64], most: f64| {
        Tensor::rand(size, (Kind::Float, Device::Cpu)) * (2.0 * most) + (1.0 - most)
    };
    let light = around_one(&[batch, 1, 1, 1], BRIGHTNESS) * around_one(&[batch, 1, 1, 3], TINT);
    let strength = Tensor::rand([batch, 1, 1, 1], (Kind::Float, Device::Cpu)) * (255.0 * NOISE);
    &images * light + images.randn_like() * strength
}
