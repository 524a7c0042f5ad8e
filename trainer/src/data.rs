//! From shards to the input of a step: the concept vocabulary, the loader, the features of the frozen vision tower.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;

use concepts::Bank;
use concepts::sidecar::Metadata;
use loader::{Batch, Batches, Crop, ImageSettings, Loader, Position, Share, Slot};
use tch::{Device, Kind, Tensor};

use crate::error::{Error, Result};
use crate::group::Group;
use crate::objective::{Images, Objective, StepInput};
use crate::operations;
use crate::pooling::Mention;
use crate::settings::{CropKind, DataSettings, Settings};
use crate::torch::{PinnedSlot, StagingBuffer};
use crate::towers::{CaptionTokens, ClipVisionTower, VisionFeatures, unit};
use crate::vision_source::{CacheHeader, FeatureCache, ImageEncoder, pixels};

/// The concept vocabulary (bank) of a run: the concepts in its file, or every concept that the sidecars mention often enough.
/// `None` for objectives without a concept loss, whose shards need no sidecars.
pub fn bank(settings: &Settings, shards: &[PathBuf]) -> Result<Option<Bank>> {
    if settings.objective.name != Objective::Simzss {
        return Ok(None);
    }
    refuse_mixed_taggers(shards, &loader::sidecar::footers(shards)?)?;
    let bank = if let Some(path) = &settings.bank.names {
        Bank::from_bytes(path, &loader::source::read(path)?)?
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
    if !matched {
        return Err(Error::Failed(format!(
            "the sidecars of the shards mention none of the {} concepts of the vocabulary, so the concept loss has nothing to align; \
             check bank.names and bank.min_mentions",
            bank.len()
        )));
    }
    Ok(Some(bank))
}

/// Mentions of different taggers are not comparable, whatever the vocabulary.
fn refuse_mixed_taggers(shards: &[PathBuf], footers: &[Metadata]) -> Result<()> {
    let by = |it: &Metadata| format!("{} (data {:.8}, grammar {})", it.tagger, it.tagger_hash, it.grammar);
    let Some((first, tagger)) = shards.first().zip(footers.first().map(by)) else { return Ok(()) };
    let differs = |(_, footer): &(&PathBuf, &Metadata)| by(footer) != tagger;
    let Some((shard, footer)) = shards.iter().zip(footers).find(differs) else { return Ok(()) };
    let problem = format!(
        "was tagged by {}, but {} by {tagger}; tag all shards with the same tagger",
        by(footer),
        first.display()
    );
    Err(Error::Invalid { path: shard.clone(), problem })
}

/// Calls `visit` with every mention in the sidecars of the shards until it returns `false`.
fn for_each_mention(
    shards: &[PathBuf],
    mut visit: impl FnMut(concepts::sidecar::MentionRow<'_>) -> bool,
) -> Result<()> {
    for shard in shards {
        let sidecar = loader::sidecar::open(shard, None)?;
        for sample in sidecar.samples_with_mentions() {
            for row in sidecar.mentions(sample) {
                if !visit(row) {
                    return Ok(());
                }
            }
        }
    }
    Ok(())
}

/// Opens the loader that the settings of a run describe, for one of its ranks.
pub fn loader(
    settings: &Settings,
    shards: Vec<PathBuf>,
    bank: Option<Arc<Bank>>,
    group: &Group,
) -> Result<Loader> {
    let data = &settings.data;
    let mut to_load = loader::Settings::new(shards, data.batch_size);
    if !data.weights.is_empty() {
        for (entry, &weight) in data.shards.iter().zip(&data.weights) {
            let shards = loader::shard::list(std::slice::from_ref(entry))?.len();
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
    let loader = Loader::open(to_load)?;
    if group.is_first() {
        let sidecars = loader.sidecars();
        let unchecked = sidecars.iter().filter(|it| it.captions.is_none()).count();
        let unchecked = loader::sidecar::unchecked_warning(unchecked, sidecars.len());
        for warning in loader.warning().into_iter().chain(unchecked) {
            eprintln!("warning: {warning}");
        }
    }
    Ok(loader)
}

/// A loader that gives only images, one by one, each exactly once: for the feature cache.
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

/// A loader that gives only images, shuffled and randomly flipped: for pretraining a tower.
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

/// Where the embeddings of the images of a batch come from.
#[derive(Debug)]
pub enum VisionSource {
    /// The frozen tower, for images of this size.
    Frozen(ImageEncoder, i64),
    /// Its features, stored on disk.
    Cache(FeatureCache),
    /// CLIP's vision tower, which is trained, for images of this size.
    Trained(Box<ImageEncoder<ClipVisionTower>>, i64),
}

impl VisionSource {
    /// The source that the settings of a run describe: the frozen tower, its cached features, or a new tower for `clip`. Also
    /// returns the width d_v. A new tower uses libtorch's random generator.
    pub fn open(settings: &Settings, loader: &Loader, device: Device) -> Result<(Self, i64)> {
        match settings.objective.name {
            Objective::Clip => Ok((Self::to_train(settings, device), settings.clip.output)),
            Objective::Simzss | Objective::Lit => Self::frozen(settings, loader, device),
        }
    }

    /// A new tower for `clip`.
    pub fn to_train(settings: &Settings, device: Device) -> Self {
        let (kind, size) = (settings.precision.kind(device), i64::from(settings.data.size));
        let tower = ClipVisionTower::random(settings.clip, size / settings.clip.patch, kind, device);
        let vision = ImageEncoder::around(tower.trainable(), &settings.vision, kind, device);
        Self::Trained(Box::new(vision), size)
    }

    fn frozen(settings: &Settings, loader: &Loader, device: Device) -> Result<(Self, i64)> {
        let kind = settings.precision.kind(device);
        let vision = ImageEncoder::open(&settings.vision, kind, device)?;
        vision.tower.check_size("data.size", i64::from(settings.data.size))?;
        let width = vision.tower.width;
        let source = match &settings.data.features {
            None => Self::Frozen(vision, i64::from(settings.data.size)),
            Some(folder) => {
                let expected = CacheHeader::new(&settings.vision, &vision.tower, settings.data.size, loader)?;
                let cache = FeatureCache::open(folder, &expected, device)?;
                cache.expect_its_images(loader)?;
                Self::Cache(cache)
            }
        };
        Ok((source, width))
    }

    /// Side of the images; `None` if no images are needed.
    fn size(&self) -> Option<i64> {
        match self {
            Self::Frozen(_, size) | Self::Trained(_, size) => Some(*size),
            Self::Cache(_) => None,
        }
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
            Self::Cache(_) => 0.0,
        }
    }

    /// All parameters that are trained, with their state-dict keys in open_clip.
    pub fn trained(&self) -> Vec<(String, Tensor)> {
        match self {
            Self::Trained(vision, _) => vision.tower.named(),
            Self::Frozen(..) | Self::Cache(_) => Vec::new(),
        }
    }
}

/// A batch whose pixels are on the device.
#[derive(Debug)]
pub struct DeviceBatch {
    /// The batch from the loader.
    pub batch: Batch,
    /// [B, H, W, 3] uint8, on the device; `None` if features come from a cache.
    pub pixels: Option<Tensor>,
}

/// Copies batches to the device ahead of time.
///
/// On a GPU, two batches are in preparation: their pixels are copied from pinned memory on a separate CUDA stream while kernels
/// run.
#[derive(Debug)]
pub struct Prefetcher {
    batches: Batches,
    device: Device,
    size: Option<i64>,
    /// On the GPU: one that is being read, and one per batch in preparation. Empty on a CPU.
    buffers: Vec<StagingBuffer>,
    ahead: VecDeque<(Batch, usize)>,
    /// Number of batches whose copy was started, and number of batches returned.
    sent: usize,
    given: usize,
}

/// Batches whose pixels are being copied while one is computed.
const AHEAD: usize = 2;

impl Prefetcher {
    /// Starts at a position.
    pub fn new(loader: &Loader, from: Position, source: &VisionSource, device: Device) -> Result<Self> {
        let mut buffers = Vec::new();
        if let (Device::Cuda(_), Some(size)) = (device, source.size()) {
            for _ in 0..=AHEAD {
                let shape = [loader.rows() as i64, size, size, 3];
                buffers.push(StagingBuffer::new(Tensor::zeros(shape, (Kind::Uint8, device)))?);
            }
        }
        let batches = if buffers.is_empty() {
            loader.batches(from)
        } else {
            let pinned = |bytes| Ok(Box::new(PinnedSlot::new(bytes)?) as Box<dyn Slot>);
            loader.batches_in(from, Box::new(pinned))
        };
        Ok(Self { batches, device, size: source.size(), buffers, ahead: VecDeque::new(), sent: 0, given: 0 })
    }

    /// The next batch. All kernels that read the pixels of the previous batch must have been launched.
    pub fn next_batch(&mut self) -> Result<DeviceBatch> {
        let Some(size) = self.size else { return Ok(DeviceBatch { batch: self.load()?, pixels: None }) };
        if self.buffers.is_empty() {
            let batch = self.load()?;
            let pixels = pixels(&batch.images, size).to_device(self.device);
            return Ok(DeviceBatch { batch, pixels: Some(pixels) });
        }
        let count = self.buffers.len();
        if self.given > 0 {
            self.buffers[(self.given - 1) % count].release()?;
        }
        while self.ahead.len() <= AHEAD {
            let batch = self.load()?;
            let buffer = self.sent % count;
            let slot = batch.images.slot::<PinnedSlot>().ok_or_else(no_batch)?;
            self.buffers[buffer].send(slot.tensor(&[batch.size as i64, size, size, 3]))?;
            self.sent += 1;
            self.ahead.push_back((batch, buffer));
        }
        let (batch, buffer) = self.ahead.pop_front().ok_or_else(no_batch)?;
        self.given += 1;
        let pixels = Some(self.buffers[buffer].receive()?.shallow_clone());
        Ok(DeviceBatch { batch, pixels })
    }

    fn load(&mut self) -> Result<Batch> {
        Ok(self.batches.next().ok_or_else(no_batch)??)
    }
}

fn no_batch() -> Error {
    Error::Failed("the loader gave no batch".to_owned())
}

/// Images per forward pass of the frozen tower if `micro_batch` is not set: enough to fill a GPU. It keeps no activations for
/// a backward pass, so splitting the batch costs nothing.
const SEEN_AT_ONCE: i64 = 1024;

/// The input of a step from a batch; the frozen tower processes the images in pieces.
pub fn step_input<'a>(
    device_batch: &DeviceBatch,
    source: &'a VisionSource,
    settings: &Settings,
    device: Device,
) -> Result<StepInput<'a>> {
    let kind = settings.precision.kind(device);
    let with_patches = settings.objective.name == Objective::Simzss;
    let batch = &device_batch.batch;
    let images = match (source, &device_batch.pixels) {
        (VisionSource::Trained(vision, _), Some(pixels)) => {
            Images::ToTrain(&vision.tower, vision.normalise(pixels))
        }
        (VisionSource::Frozen(vision, _), Some(pixels)) => {
            let rows = pixels.size()[0];
            let piece = if settings.micro_batch == 0 { SEEN_AT_ONCE } else { settings.micro_batch as i64 };
            let pieces: Vec<VisionFeatures> = (0..rows)
                .step_by(piece as usize)
                .map(|start| vision.features(&pixels.narrow(0, start, piece.min(rows - start))))
                .map(|features| seen(&features, with_patches, kind))
                .collect();
            Images::Seen(join(&pieces))
        }
        (VisionSource::Cache(cache), _) => {
            let samples: Vec<i64> = batch.samples.iter().map(|&sample| sample as i64).collect();
            Images::Seen(seen(&cache.features(&samples), with_patches, kind))
        }
        (VisionSource::Trained(..) | VisionSource::Frozen(..), None) => return Err(no_batch()),
    };
    let mentions = batch
        .mentions
        .iter()
        .map(|m| Mention { row: m.sample, label: m.label, positions: m.positions.clone() })
        .collect();
    let captions = CaptionTokens::new(&batch.tokens, settings.text.context as usize, device);
    Ok(StepInput { images, captions, mentions })
}

/// L2-normalized features; patches in the precision of the towers.
pub fn seen(features: &VisionFeatures, with_patches: bool, kind: Kind) -> VisionFeatures {
    tch::no_grad(|| VisionFeatures {
        class: unit(&features.class),
        patches: if with_patches { unit(&features.patches).to_kind(kind) } else { Tensor::new() },
    })
}

fn join(pieces: &[VisionFeatures]) -> VisionFeatures {
    if let [one] = pieces {
        return VisionFeatures { class: one.class.shallow_clone(), patches: one.patches.shallow_clone() };
    }
    let cat = |part: &dyn Fn(&VisionFeatures) -> &Tensor| {
        let parts: Vec<&Tensor> = pieces.iter().map(part).filter(|t| t.defined()).collect();
        if parts.is_empty() { Tensor::new() } else { Tensor::cat(&parts, 0) }
    };
    VisionFeatures { class: cat(&|f| &f.class), patches: cat(&|f| &f.patches) }
}
