//! `trainer pretrain`: a small vision tower of one's own, where no pretrained one is at hand.
//!
//! It sees images alone, never captions or masks. A vocabulary of visual words is fitted to simple statistics of
//! patches ([`words`]); the tower then learns to tell each patch's word, as a vector that stands close to the words it
//! occurs beside, under changed light and noise. What all patches share is folded away at the end. It is no DINOv2:
//! enough to tell textures and colours apart, which is what synthetic scenes need.

mod words;

use std::path::{Path, PathBuf};

use loader::program::{Progress, interrupted};
use loader::{Batches, Loader, Position};
use serde::Serialize;
use tch::{Device, Kind, Tensor};

use crate::data;
use crate::device;
use crate::error::{Error, Result};
use crate::optimizer::{Optimizer, OptimizerSettings, learning_rate};
use crate::settings::VisionSettings;
use crate::towers::{VisionShape, VisionTower, unit};
use crate::vision_source::{FrozenVision, pixels};
use crate::weights;
use words::Words;

/// Images a step.
const BATCH: usize = 8;
/// Images the words are fitted to.
const WORD_IMAGES: usize = 1024;
/// Images whose patch tokens are whitened.
const WHITENING_IMAGES: usize = 512;
/// Largest change of brightness, of one channel against the others, and of noise; shares of the full range.
const BRIGHTNESS: f64 = 0.2;
const TINT: f64 = 0.08;
const NOISE: f64 = 0.03;

/// What tower, from which images.
#[derive(Debug, Clone)]
pub struct PretrainSettings {
    /// Folders of shards, shards or brace lists.
    pub shards: Vec<PathBuf>,
    /// Optimiser steps; 0 leaves the weights random.
    pub steps: u64,
    /// Side of the images in pixels.
    pub size: u32,
    /// Side of a patch in pixels.
    pub patch: i64,
    /// Token width.
    pub width: i64,
    /// Number of blocks.
    pub depth: i64,
    /// Seed of weights, order and augmentation.
    pub seed: u64,
    /// `auto`, `cpu`, `cuda` or `cuda:N`.
    pub device: String,
    /// CPU threads; 0 for one a core.
    pub threads: usize,
}

/// What came out.
#[derive(Debug, Clone, Serialize)]
pub struct Summary {
    /// The tower's file.
    pub out: PathBuf,
    /// Steps taken.
    pub steps: u64,
    /// Mean cosine between the last steps' patch tokens and their targets; none without steps.
    pub agreement: Option<f64>,
}

/// Makes a tower and writes it to `out`.
pub fn pretrain(settings: &PretrainSettings, out: &Path) -> Result<Summary> {
    let device = device::open(&settings.device)?;
    device::limit_threads(settings.threads);
    let VisionShape { width, depth, patch, .. } = shape(settings);
    if width < 64 || width % 64 != 0 || depth < 1 || patch < 1 {
        return Err(Error::Setting {
            name: "width, depth, patch".to_owned(),
            problem: "the width must be a multiple of 64, depth and patch at least 1".to_owned(),
        });
    }
    tch::manual_seed(settings.seed as i64);
    let tower = VisionTower::random(shape(settings), device);
    tower.check_size("size", i64::from(settings.size))?;
    let shards = loader::shard::list(&settings.shards)?;
    let loader = data::pretraining_loader(shards, BATCH, settings.size, settings.seed, settings.threads)?;
    let vision = FrozenVision::new(tower, &VisionSettings::default(), Kind::Float, device);
    let mut images = Images::new(&loader, i64::from(settings.size));

    let agreement =
        if settings.steps > 0 { Some(learn(settings, &vision, &mut images, device)?) } else { None };
    let mut tokens = Vec::new();
    for _ in 0..WHITENING_IMAGES / BATCH {
        tokens.push(vision.features(&images.next()?).patches);
    }
    vision.tower.whiten(&Tensor::cat(&tokens, 0));
    weights::write(out, &vision.tower.named())?;
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
        let batch = self.batches.next().ok_or_else(|| Error::Setting {
            name: "shards".to_owned(),
            problem: "gave no batch".to_owned(),
        })??;
        Ok(pixels(&batch.images, self.size))
    }
}

/// Trains the tower to tell each patch's target; returns the mean cosine of the last steps.
fn learn(
    settings: &PretrainSettings,
    vision: &FrozenVision,
    images: &mut Images,
    device: Device,
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
    let schedule = OptimizerSettings { lr: 3e-3, weight_decay: 0.05, ..OptimizerSettings::default() };
    let mut optimizer = Optimizer::new(&schedule, parameters);
    let mut progress = Progress::new("pretraining", "steps", settings.steps);
    let mut agreement = 0.0;
    for step in 0..settings.steps {
        if interrupted() {
            let problem = "interrupted; no tower is written".to_owned();
            return Err(Error::Setting { name: "steps".to_owned(), problem });
        }
        let clean = images.next()?;
        let targets = words.targets(&clean);
        let tokens = vision.tower.forward(&vision.normalise(&relit(&clean))).patches;
        let cosine = (unit(&tokens) * targets).sum_dim_intlist([-1i64].as_slice(), false, Kind::Float);
        let cosine = cosine.mean(Kind::Float);
        (-&cosine).backward();
        optimizer.step(learning_rate(&schedule, step, settings.steps))?;
        let now = cosine.double_value(&[]);
        agreement = if step == 0 { now } else { 0.95 * agreement + 0.05 * now };
        progress.advance(1, || format!("agreement {agreement:.3}"));
    }
    for (_, parameter) in vision.tower.named() {
        let _ = parameter.set_requires_grad(false);
    }
    progress.finish(&format!("agreement {agreement:.3}"));
    Ok(agreement)
}

/// The same images under another light, with noise: [B, H, W, 3], 0..255.
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
