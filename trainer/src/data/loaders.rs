//! The loaders of the trainer: of a run, of the feature cache, and of pretraining.

use std::path::Path;
use std::sync::Arc;

use concepts::Bank;
use image::RgbImage;
use loader::{Crop, ImageSettings, Loader, Share};
use storage::Location;

use crate::distributed::Group;
use crate::error::{Error, Result};
use crate::settings::{CropKind, DataSettings, Settings};

/// Opens the loader that the settings of a run describe, for one of its ranks.
pub fn loader(
    settings: &Settings,
    shards: Vec<Location>,
    bank: Option<Arc<Bank>>,
    group: &Group,
) -> Result<Loader> {
    let data = &settings.data;
    let mut to_load = loader::Settings::new(shards, data.batch_size);
    if !data.weights.is_empty() {
        for (entry, &weight) in data.shards.iter().zip(&data.weights) {
            let shards = loader::shards::list(std::slice::from_ref(entry))?.len();
            to_load.sets.push(Share { shards, weight });
        }
    }
    to_load.decoding = data.decoding;
    to_load.caption_source = data.captions.clone();
    to_load.cache.clone_from(&data.cache);
    to_load.seed = settings.seed;
    to_load.streams = data.streams;
    to_load.window = data.window;
    to_load.image = image_settings(data);
    to_load.images = data.features.is_none();
    to_load.context = settings.text.context as usize;
    to_load.bank = bank.map(|bank| (bank, settings.bank.matching));
    (to_load.rank, to_load.world_size) = (group.rank(), group.world());
    to_load.max_mentions = data.max_mentions;
    to_load.max_mention_tokens = data.max_mention_tokens;
    if data.threads > 0 {
        to_load.threads = data.threads;
    }
    to_load.prefetch = data.prefetch;
    Ok(Loader::open(to_load)?)
}

/// What a user should know of the data of a loader.
pub fn warnings(loader: &Loader) -> Vec<String> {
    let sidecars = loader.sidecars();
    let unchecked = sidecars.iter().filter(|it| it.captions.is_none()).count();
    let unchecked = loader::shards::sidecar::unchecked_warning(unchecked, sidecars.len());
    loader.warning().into_iter().chain(unchecked).collect()
}

/// A loader that gives only images, one by one, each exactly once: for the feature cache.
pub fn image_loader(shards: Vec<Location>, size: u32, threads: usize) -> Result<Loader> {
    let mut to_load = loader::Settings::new(shards, 1);
    to_load.streams = 1;
    to_load.window = 1;
    to_load.image = ImageSettings::new(Crop::Centre { size }, 0.0);
    to_load.captions = false;
    to_load.prefetch = 128;
    if threads > 0 {
        to_load.threads = threads;
    }
    Ok(Loader::open(to_load)?)
}

/// A loader that gives only images, shuffled and randomly flipped: for pretraining a tower.
pub fn pretraining_loader(
    shards: Vec<Location>,
    batch_size: usize,
    size: u32,
    seed: u64,
    threads: usize,
) -> Result<Loader> {
    let mut to_load = loader::Settings::new(shards, batch_size);
    to_load.seed = seed;
    to_load.image = ImageSettings::new(Crop::Centre { size }, 0.5);
    to_load.captions = false;
    to_load.prefetch = 8;
    if threads > 0 {
        to_load.threads = threads;
    }
    Ok(Loader::open(to_load)?)
}

/// Decodes one image, with the size limits of the loader. As in training, its EXIF orientation is not applied.
pub fn read_image(path: &Path) -> Result<RgbImage> {
    let bytes = storage::read(path)?;
    loader::images::decode(&bytes)
        .map_err(|error| Error::Invalid { path: path.to_owned(), problem: error.to_string() })
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
    ImageSettings::new(crop, data.flip)
}
