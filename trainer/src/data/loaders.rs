//! The loaders of the trainer: of a run, of the feature cache, and of pretraining.

use std::path::Path;
use std::sync::Arc;

use concepts::Bank;
use image::RgbImage;
use loader::{CropKind, Loader, Share};
use storage::Location;

use super::watched::watched;
use crate::distributed::Group;
use crate::error::{Error, Result};
use crate::method::unmentioned::Siblings;
use crate::observer::Observer;
use crate::settings::Settings;

/// Opens the loader that the settings of a run describe, for one of its ranks.
pub fn loader(
    settings: &Settings,
    shards: Vec<Location>,
    bank: Option<Arc<Bank>>,
    group: &Group,
    observer: &dyn Observer,
) -> Result<Loader> {
    let data = &settings.data;
    let mut sets = Vec::new();
    if !data.weights.is_empty() {
        for (entry, &weight) in data.shards.iter().zip(&data.weights) {
            let shards = loader::shards::list(std::slice::from_ref(entry))?.len();
            sets.push(Share { shards, weight });
        }
    }
    let mut to_load = loader::Settings::new(shards, data.loading.batch_size);
    to_load.sets = sets;
    to_load.options = data.loading.clone();
    to_load.seed = settings.seed;
    to_load.images = data.features.is_none();
    to_load.context = settings.text.context as usize;
    to_load.siblings = bank.is_some() && settings.objective.siblings != Siblings::Negative;
    to_load.bank = bank.map(|bank| (bank, settings.bank.matching));
    (to_load.rank, to_load.world_size) = (group.rank(), group.world());
    let looks = to_load.shards.len() * if to_load.bank.is_some() { 2 } else { 1 };
    watched(observer, "looking at shards", looks as u64, |done| Ok(Loader::open_counting(to_load, done)?))
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
    to_load.captions = false;
    let options = &mut to_load.options;
    (options.size, options.crop, options.threads) = (size, CropKind::Centre, threads);
    (options.streams, options.window, options.prefetch) = (1, 1, 128);
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
    (to_load.seed, to_load.captions) = (seed, false);
    let options = &mut to_load.options;
    (options.size, options.crop, options.flip) = (size, CropKind::Centre, 0.5);
    (options.threads, options.prefetch) = (threads, 8);
    Ok(Loader::open(to_load)?)
}

/// Decodes one image, with the size limits of the loader. As in training, its EXIF orientation is not applied.
pub fn read_image(path: &Path) -> Result<RgbImage> {
    let bytes = storage::read(path)?;
    loader::images::decode(&bytes)
        .map_err(|error| Error::Invalid { path: path.to_owned(), problem: error.to_string() })
}
