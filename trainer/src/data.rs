//! From shards to what a step takes: the bank, the loader, the frozen tower's features.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use concepts::Bank;
use concepts::sidecar::Sidecar;
use loader::{Batch, Crop, ImageSettings, Loader};
use tch::Device;

use crate::error::{Error, Result, at};
use crate::objective::{Objective, StepInput};
use crate::pooling::Mention;
use crate::settings::{CropKind, DataSettings, Settings};
use crate::towers::{CaptionTokens, VisionFeatures};
use crate::vision_source::{CacheHeader, FeatureCache, FrozenVision, pixels};

/// The bank of a run: the names of its file, or every concept that the sidecars mention often enough.
pub fn bank(settings: &Settings, shards: &[PathBuf]) -> Result<Bank> {
    let bank = if let Some(path) = &settings.bank.names {
        Bank::from_file(path)?
    } else {
        let mut counts: BTreeMap<String, u64> = BTreeMap::new();
        for_each_mention(shards, |row| {
            match counts.get_mut(row.concept) {
                Some(count) => *count += 1,
                None => drop(counts.insert(row.concept.to_owned(), 1)),
            }
            true
        })?;
        let names =
            counts.into_iter().filter(|(_, n)| *n >= settings.bank.min_mentions).map(|(name, _)| name);
        Bank::from_names(names)?
    };
    let mut matched = false;
    for_each_mention(shards, |row| {
        matched = bank.find(settings.bank.matching, &row).is_some();
        !matched
    })?;
    if !matched && settings.objective.name == Objective::Simzss {
        return Err(Error::Setting {
            name: "bank".to_owned(),
            problem: format!(
                "none of its {} concepts is mentioned in the shards' sidecars, so the concept loss has nothing to align",
                bank.len()
            ),
        });
    }
    Ok(bank)
}

/// Calls `visit` with every mention of the shards' sidecars until it says to stop.
fn for_each_mention(
    shards: &[PathBuf],
    mut visit: impl FnMut(concepts::sidecar::MentionRow<'_>) -> bool,
) -> Result<()> {
    for shard in shards {
        let sidecar = Sidecar::open(&concepts::sidecar::path_for(shard))?;
        let bytes = fs::metadata(shard).map_err(at(shard))?.len();
        let samples = sidecar.metadata.samples;
        sidecar.refuse_unless_for(shard, bytes, samples)?;
        for sample in 0..samples {
            for row in sidecar.mentions(sample) {
                if !visit(row) {
                    return Ok(());
                }
            }
        }
    }
    Ok(())
}

/// Opens the loader that a run's settings describe.
pub fn loader(settings: &Settings, shards: Vec<PathBuf>, bank: Arc<Bank>) -> Result<Loader> {
    let data = &settings.data;
    let mut to_load = loader::Settings::new(shards, data.batch_size);
    to_load.seed = settings.seed;
    to_load.streams = data.streams;
    to_load.window = data.window;
    to_load.image = image_settings(data);
    to_load.images = data.features.is_none();
    to_load.context = settings.text.context as usize;
    to_load.bank = Some((bank, settings.bank.matching));
    to_load.max_mentions = data.max_mentions;
    to_load.max_mention_tokens = data.max_mention_tokens;
    if data.threads > 0 {
        to_load.threads = data.threads;
    }
    to_load.prefetch = data.prefetch;
    Ok(Loader::open(to_load)?)
}

/// A loader of images alone, one by one, in an order without gaps: what the feature cache is made from.
pub fn image_loader(shards: Vec<PathBuf>, size: u32, threads: usize) -> Result<Loader> {
    let mut to_load = loader::Settings::new(shards, 1);
    to_load.streams = 1;
    to_load.window = 1;
    to_load.image = ImageSettings { crop: Crop::Centre { size }, flip: 0.0 };
    to_load.captions = false;
    to_load.prefetch = 128;
    if threads > 0 {
        to_load.threads = threads;
    }
    Ok(Loader::open(to_load)?)
}

/// A loader of images alone, shuffled and now and then mirrored: what a tower is pretrained on.
pub fn pretraining_loader(
    shards: Vec<PathBuf>,
    batch_size: usize,
    size: u32,
    seed: u64,
    threads: usize,
) -> Result<Loader> {
    let mut to_load = loader::Settings::new(shards, batch_size);
    to_load.seed = seed;
    to_load.image = ImageSettings { crop: Crop::Centre { size }, flip: 0.5 };
    to_load.captions = false;
    to_load.prefetch = 8;
    if threads > 0 {
        to_load.threads = threads;
    }
    Ok(Loader::open(to_load)?)
}

fn image_settings(data: &DataSettings) -> ImageSettings {
    let crop = match data.crop {
        CropKind::Centre => Crop::Centre { size: data.size },
        CropKind::Random => Crop::RandomResized {
            size: data.size,
            scale: (data.scale[0], data.scale[1]),
            // torchvision's default.
            ratio: (3.0 / 4.0, 4.0 / 3.0),
        },
    };
    ImageSettings { crop, flip: data.flip }
}

/// Where the features of a batch's images come from.
#[derive(Debug)]
pub enum VisionSource {
    /// The frozen tower, on images of this size.
    Tower(FrozenVision, i64),
    /// Its features on disk.
    Cache(FeatureCache),
}

impl VisionSource {
    /// The tower of a run, or the cache that its settings name. Returns the tower's width d_v too.
    pub fn open(settings: &Settings, loader: &Loader, device: Device) -> Result<(Self, i64)> {
        let kind = settings.precision.kind(device);
        let vision = FrozenVision::open(&settings.vision, kind, device)?;
        vision.tower.check_size("data.size", i64::from(settings.data.size))?;
        let width = vision.tower.width;
        let source = match &settings.data.features {
            None => Self::Tower(vision, i64::from(settings.data.size)),
            Some(folder) => {
                let expected = CacheHeader::new(&settings.vision, &vision.tower, settings.data.size, loader)?;
                Self::Cache(FeatureCache::open(folder, &expected, device)?)
            }
        };
        Ok((source, width))
    }

    fn features(&self, batch: &Batch) -> VisionFeatures {
        match self {
            Self::Tower(vision, size) => vision.features(&pixels(&batch.images, *size)),
            Self::Cache(cache) => {
                let samples: Vec<i64> = batch.samples.iter().map(|&sample| sample as i64).collect();
                cache.features(&samples)
            }
        }
    }
}

/// A loaded batch on the device, its images seen by the frozen tower.
pub fn step_input(batch: &Batch, source: &VisionSource, context: usize, device: Device) -> StepInput {
    let mentions = batch
        .mentions
        .iter()
        .map(|m| Mention { row: m.sample, label: m.label, positions: m.positions.clone() })
        .collect();
    StepInput {
        images: source.features(batch),
        captions: CaptionTokens::new(&batch.tokens, context, device),
        mentions,
    }
}
