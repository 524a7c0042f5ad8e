//! Where the embeddings of the images of a batch come from: the frozen tower, its cached features, or a tower that is trained.

use std::sync::Arc;

use loader::Loader;
use tch::{Device, Tensor};

use super::feature_cache::{CacheHeader, FeatureCache, PatchesOf};
use super::frozen_tower;
use crate::error::Result;
use crate::method::objective::Objective;
use crate::observer::Observer;
use crate::settings::Settings;
use crate::towers::{ClipVisionTower, Embedding, ImageEncoder, Normalization, operations};

/// Where the embeddings of the images of a batch come from.
#[derive(Debug)]
pub enum VisionSource {
    /// The frozen tower, for images of this size.
    Frozen(ImageEncoder, i64),
    /// Its features, stored on disk.
    Cache {
        /// Where.
        cache: Arc<FeatureCache>,
        /// The samples whose patches are needed.
        patches: PatchesOf,
    },
    /// CLIP's vision tower, which is trained, for images of this size.
    Trained(Box<ImageEncoder<ClipVisionTower>>, i64),
}

impl VisionSource {
    /// The source that the settings of a run describe: the frozen tower, its cached features, or a new tower for `clip`. Also
    /// returns the width d_v. A new tower uses libtorch's random generator.
    pub fn open(
        settings: &Settings,
        loader: &Loader,
        device: Device,
        observer: &dyn Observer,
    ) -> Result<(Self, i64)> {
        match settings.objective.name {
            Objective::Clip => Ok((Self::to_train(settings, device), settings.clip.output)),
            Objective::Simzss | Objective::Lit | Objective::Talk2dino => {
                Self::frozen(settings, loader, device, observer)
            }
        }
    }

    /// A new tower for `clip`.
    pub fn to_train(settings: &Settings, device: Device) -> Self {
        let (kind, size) = (settings.precision.kind(device), i64::from(settings.data.loading.size));
        let tower = ClipVisionTower::random(settings.clip, size / settings.clip.patch, kind, device);
        let normalization = settings.vision.normalization(Normalization::IMAGENET);
        let vision = ImageEncoder::new(tower.trainable(), normalization, kind, device);
        Self::Trained(Box::new(vision), size)
    }

    fn frozen(
        settings: &Settings,
        loader: &Loader,
        device: Device,
        observer: &dyn Observer,
    ) -> Result<(Self, i64)> {
        let kind = settings.precision.frozen_kind(device);
        // Beside its features, the tower computes nothing: it only says what it is. So the device need not have its number format.
        let place = if settings.data.features.is_some() { Device::Cpu } else { device };
        let vision = frozen_tower::open(&settings.vision, kind, place)?;
        vision.tower.check_size("data.size", i64::from(settings.data.loading.size))?;
        let width = vision.tower.width;
        let head_means = settings.objective.name == Objective::Talk2dino;
        if head_means {
            frozen_tower::check_attention(&settings.vision, &vision.tower)?;
        }
        let source = match &settings.data.features {
            None => Self::Frozen(vision, i64::from(settings.data.loading.size)),
            Some(folder) => {
                let size = settings.data.loading.size;
                let expected = CacheHeader::new(&settings.vision, &vision.tower, size, loader, head_means)?;
                let cache = FeatureCache::open(folder, &expected)?;
                cache.expect_its_images(loader, observer)?;
                let embedded = settings.vision.embedding == Embedding::ClassMean;
                let patches = if embedded || settings.vision.head.blocks > 0 {
                    PatchesOf::All
                } else if settings.objective.name == Objective::Simzss {
                    PatchesOf::Mentions
                } else {
                    PatchesOf::None
                };
                Self::Cache { cache: Arc::new(cache), patches }
            }
        };
        Ok((source, width))
    }

    /// Floating-point operations per image in a step.
    pub fn operations(&self) -> f64 {
        match self {
            Self::Frozen(ImageEncoder { tower, .. }, size) => {
                operations::vision(*size, tower.patch, tower.width, tower.depth(), tower.extra_tokens())
            }
            Self::Trained(vision, size) => {
                let tower = &vision.tower;
                operations::TRAINING * operations::vision(*size, tower.patch, tower.width(), tower.depth(), 1)
            }
            Self::Cache { .. } => 0.0,
        }
    }

    /// All parameters that are trained, with their state-dict keys in open_clip.
    pub fn trained(&self) -> Vec<(String, Tensor)> {
        match self {
            Self::Trained(vision, _) => vision.tower.named(),
            Self::Frozen(..) | Self::Cache { .. } => Vec::new(),
        }
    }
}
