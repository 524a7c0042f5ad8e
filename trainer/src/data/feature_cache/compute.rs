//! Computes the features of the frozen vision tower for a dataset once, for `trainer cache`.

use std::path::{Path, PathBuf};

use loader::Position;
use tch::Tensor;

use super::header::CacheHeader;
use super::images::ImageFiles;
use super::writer::CacheWriter;
use crate::data::{frozen_tower, image_loader};
use crate::device::{self, Precision};
use crate::error::{Error, Result};
use crate::observer::Observer;
use crate::settings::VisionSettings;
use crate::towers::{VisionFeatures, pixels};

/// Images per forward pass.
const BATCH: usize = 64;

/// Settings of `trainer cache`.
#[derive(Debug, Clone)]
pub struct CacheSettings {
    /// Shards: folders, tar files or brace lists.
    pub shards: Vec<PathBuf>,
    /// The frozen tower.
    pub vision: VisionSettings,
    /// Head means instead of class and patch tokens, for the objective `talk2dino`.
    pub head_means: bool,
    /// Side of the centre crop in pixels.
    pub size: u32,
    /// `auto`, `cpu`, `cuda` or `cuda:N`, as for [`device::open`].
    pub device: String,
    /// Number format in which the tower computes.
    pub precision: Precision,
    /// CPU threads of libtorch and of the decoder; 0 = one per core.
    pub threads: usize,
}

/// Writes the class and patch tokens of the centre crop of every sample, or its head means, to the folder `out`, in the order of the
/// shards.
///
/// A sample whose image cannot be read is an error: the loader would replace it, and the features would belong to another
/// sample.
pub fn compute(settings: &CacheSettings, out: &Path, observer: &dyn Observer) -> Result<CacheHeader> {
    if storage::Location::from(out).is_remote() {
        let problem = "must be a folder on a local disk: training reads features from everywhere in it; of a run, only checkpoints are \
                       copied to a store (checkpoint.copy_to)";
        return Err(Error::Setting { name: "--out".to_owned(), problem: problem.to_owned() });
    }
    let device = device::open(&settings.device)?;
    device::limit_threads(settings.threads);
    let mut tower = settings.vision.clone();
    observer.message(&frozen_tower::settle(&mut tower, "--")?);
    let vision = frozen_tower::open(&tower, settings.precision.frozen_kind(device), device)?;
    let size = i64::from(settings.size);
    vision.tower.check_size("--size", size)?;
    if settings.head_means {
        frozen_tower::check_attention(&tower, &vision.tower)?;
    }
    let shards = loader::shards::list(&settings.shards)?;
    let loader = image_loader(shards, settings.size, settings.threads)?;
    let header = CacheHeader::new(&tower, &vision.tower, settings.size, &loader, settings.head_means)?;
    let mut writer = CacheWriter::create(out, header.clone())?;
    let mut progress = observer.progress("caching features", "images", header.samples as u64);

    let mut files = ImageFiles::new(&loader);
    let mut batches = loader.batches(Position { epoch: 0, step: 0 }).take(header.samples as usize);
    let mut waiting: Vec<Tensor> = Vec::with_capacity(BATCH);
    // The loader permutes the shards even with a shuffle window of one sample.
    let (mut numbers, mut checks): (Vec<i64>, Vec<u64>) = (Vec::new(), Vec::new());
    loop {
        let batch = batches.next().transpose()?;
        let done = batch.is_none();
        if let Some(batch) = batch {
            if let Some(broken) = batch.counters.skipped.first() {
                let problem = format!(
                    "sample {} cannot be read ({}); remove it from the shard, or train without cached features",
                    broken.key, broken.cause
                );
                return Err(Error::Invalid { path: broken.shard.clone().into(), problem });
            }
            waiting.push(pixels(&batch.images, size));
            numbers.extend(batch.samples.iter().map(|&n| n as i64));
            for &number in &batch.samples {
                checks.push(files.check(number)?);
            }
        }
        if waiting.len() == BATCH || (done && !waiting.is_empty()) {
            let count = waiting.len();
            let pixels = Tensor::cat(&waiting, 0);
            let features = if settings.head_means {
                vision.head_means(&pixels)
            } else {
                let VisionFeatures { class, patches } = vision.features(&pixels);
                Tensor::cat(&[class.unsqueeze(1), patches], 1)
            };
            writer.put(&numbers, &checks, &features)?;
            waiting.clear();
            numbers.clear();
            checks.clear();
            progress.advance(count as u64, &String::new);
        }
        if done {
            break;
        }
        if observer.interrupted() {
            return Err(Error::interrupted(format!("{} is not written", out.display())));
        }
    }
    writer.finish(&loader.opened())?;
    progress.finish(&out.display().to_string());
    Ok(header)
}
