//! From shards to what a step takes: the bank, the loader, the frozen tower's features.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;

use concepts::Bank;
use loader::{Batch, Batches, Crop, ImageSettings, Loader, Position, Share, Slot};
use tch::{Device, Kind, Tensor};

use crate::error::{Error, Result};
use crate::group::Group;
use crate::objective::{Images, Objective, StepInput};
use crate::operations;
use crate::pooling::Mention;
use crate::settings::{CropKind, DataSettings, Settings};
use crate::torch::{Lane, PinnedSlot};
use crate::towers::{CaptionTokens, ClipVisionTower, VisionFeatures, unit};
use crate::vision_source::{CacheHeader, FeatureCache, FrozenVision, pixels};

/// The bank of a run: the names of its file, or every concept that the sidecars mention often enough. None for objectives
/// without concepts, whose shards need no sidecars.
pub fn bank(settings: &Settings, shards: &[PathBuf]) -> Result<Option<Bank>> {
    if settings.objective.name != Objective::Simzss {
        return Ok(None);
    }
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
    if !matched {
        return Err(Error::Setting {
            name: "bank".to_owned(),
            problem: format!(
                "none of its {} concepts is mentioned in the shards' sidecars, so the concept loss has nothing to align",
                bank.len()
            ),
        });
    }
    Ok(Some(bank))
}

/// Calls `visit` with every mention of the shards' sidecars until it says to stop.
fn for_each_mention(
    shards: &[PathBuf],
    mut visit: impl FnMut(concepts::sidecar::MentionRow<'_>) -> bool,
) -> Result<()> {
    let mut tagged_by: Option<(PathBuf, String)> = None;
    for shard in shards {
        let sidecar = loader::sidecar::open(shard, None)?;
        let metadata = &sidecar.metadata;
        let by =
            format!("{} (data {:.8}, grammar {})", metadata.tagger, metadata.tagger_hash, metadata.grammar);
        match &tagged_by {
            Some((first, other)) if *other != by => {
                let first = first.display();
                let problem =
                    format!("was tagged by {by}, and {first} by {other}; tag all shards with one tagger");
                return Err(Error::Invalid { path: shard.clone(), problem });
            }
            Some(_) => {}
            None => tagged_by = Some((shard.clone(), by)),
        }
        let samples = metadata.samples;
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

/// Opens the loader that a run's settings describe, for one of its ranks.
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

/// Where the embeddings of a batch's images come from.
#[derive(Debug)]
pub enum VisionSource {
    /// The frozen tower, on images of this size.
    Frozen(FrozenVision, i64),
    /// Its features on disk.
    Cache(FeatureCache),
    /// CLIP's own tower, which is trained.
    Trained(Box<FrozenVision<ClipVisionTower>>, i64),
}

impl VisionSource {
    /// What a run's settings name: the frozen tower, its cache, or a new tower of `clip`'s. Returns the width d_v too. A new
    /// tower draws from libtorch's generator.
    pub fn open(settings: &Settings, loader: &Loader, device: Device) -> Result<(Self, i64)> {
        match settings.objective.name {
            Objective::Clip => Ok((Self::to_train(settings, device), settings.clip.output)),
            Objective::Simzss | Objective::Lit => Self::frozen(settings, loader, device),
        }
    }

    /// A new tower of `clip`'s.
    pub fn to_train(settings: &Settings, device: Device) -> Self {
        let (kind, size) = (settings.precision.kind(device), i64::from(settings.data.size));
        let tower = ClipVisionTower::random(settings.clip, size / settings.clip.patch, kind, device);
        let vision = FrozenVision::around(tower.trainable(), &settings.vision, kind, device);
        Self::Trained(Box::new(vision), size)
    }

    fn frozen(settings: &Settings, loader: &Loader, device: Device) -> Result<(Self, i64)> {
        let kind = settings.precision.kind(device);
        let vision = FrozenVision::open(&settings.vision, kind, device)?;
        vision.tower.check_size("data.size", i64::from(settings.data.size))?;
        let width = vision.tower.width;
        let source = match &settings.data.features {
            None => Self::Frozen(vision, i64::from(settings.data.size)),
            Some(folder) => {
                let expected = CacheHeader::new(&settings.vision, &vision.tower, settings.data.size, loader)?;
                Self::Cache(FeatureCache::open(folder, &expected, device)?)
            }
        };
        Ok((source, width))
    }

    /// Side of the images, and none where no image is needed.
    fn size(&self) -> Option<i64> {
        match self {
            Self::Frozen(_, size) | Self::Trained(_, size) => Some(*size),
            Self::Cache(_) => None,
        }
    }

    /// Floating-point operations of a step for one image.
    pub fn operations(&self) -> f64 {
        match self {
            Self::Frozen(FrozenVision { tower, .. }, size) => {
                operations::vision(*size, tower.patch, tower.width, tower.depth(), tower.extra_tokens())
            }
            Self::Trained(vision, size) => {
                let tower = &vision.tower;
                operations::TRAINING * operations::vision(*size, tower.patch, tower.width(), tower.depth(), 1)
            }
            Self::Cache(_) => 0.0,
        }
    }

    /// Every parameter that is trained, under open_clip's name for it.
    pub fn trained(&self) -> Vec<(String, Tensor)> {
        match self {
            Self::Trained(vision, _) => vision.tower.named(),
            Self::Frozen(..) | Self::Cache(_) => Vec::new(),
        }
    }
}

/// A batch and its pixels, [B, H, W, 3] uint8, on the device; none where features come from a cache.
#[derive(Debug)]
pub struct Fed {
    /// What the loader gave.
    pub batch: Batch,
    /// On the device.
    pub pixels: Option<Tensor>,
}

/// Batches that are on the device when they are asked for.
///
/// On a GPU two batches are ahead: their pixels travel from pinned memory on a stream of their own while kernels run.
#[derive(Debug)]
pub struct Feed {
    batches: Batches,
    device: Device,
    size: Option<i64>,
    /// Buffers on the GPU: one that is read, and one for each batch ahead. None on a CPU.
    lanes: Vec<Lane>,
    ahead: VecDeque<(Batch, usize)>,
    /// Number of batches sent, and of batches handed out.
    sent: usize,
    given: usize,
}

/// Batches whose pixels are on their way while one is computed.
const AHEAD: usize = 2;

impl Feed {
    /// From a position on.
    pub fn new(loader: &Loader, from: Position, source: &VisionSource, device: Device) -> Result<Self> {
        let mut lanes = Vec::new();
        if let (Device::Cuda(_), Some(size)) = (device, source.size()) {
            for _ in 0..=AHEAD {
                let shape = [loader.rows() as i64, size, size, 3];
                lanes.push(Lane::new(Tensor::zeros(shape, (Kind::Uint8, device)))?);
            }
        }
        let batches = if lanes.is_empty() {
            loader.batches(from)
        } else {
            let pinned = |bytes| Ok(Box::new(PinnedSlot::new(bytes)?) as Box<dyn Slot>);
            loader.batches_in(from, Box::new(pinned))
        };
        Ok(Self { batches, device, size: source.size(), lanes, ahead: VecDeque::new(), sent: 0, given: 0 })
    }

    /// The next batch. Kernels that read the last one's pixels must have been started.
    pub fn next_batch(&mut self) -> Result<Fed> {
        let Some(size) = self.size else { return Ok(Fed { batch: self.load()?, pixels: None }) };
        if self.lanes.is_empty() {
            let batch = self.load()?;
            let pixels = pixels(&batch.images, size).to_device(self.device);
            return Ok(Fed { batch, pixels: Some(pixels) });
        }
        let count = self.lanes.len();
        if self.given > 0 {
            self.lanes[(self.given - 1) % count].release()?;
        }
        while self.ahead.len() <= AHEAD {
            let batch = self.load()?;
            let lane = self.sent % count;
            let slot = batch.images.slot::<PinnedSlot>().ok_or_else(no_batch)?;
            self.lanes[lane].send(slot.tensor(&[batch.size as i64, size, size, 3]))?;
            self.sent += 1;
            self.ahead.push_back((batch, lane));
        }
        let (batch, lane) = self.ahead.pop_front().ok_or_else(no_batch)?;
        self.given += 1;
        let pixels = Some(self.lanes[lane].receive()?.shallow_clone());
        Ok(Fed { batch, pixels })
    }

    fn load(&mut self) -> Result<Batch> {
        Ok(self.batches.next().ok_or_else(no_batch)??)
    }
}

fn no_batch() -> Error {
    Error::Setting { name: "data.shards".to_owned(), problem: "gave no batch".to_owned() }
}

/// Images that the frozen tower sees at once where no micro-batch is set: enough to fill a GPU. It keeps nothing for a
/// backward pass, so pieces cost nothing.
const SEEN_AT_ONCE: i64 = 1024;

/// What a step takes of a batch, its images seen by the frozen tower in pieces.
pub fn step_input<'a>(
    fed: &Fed,
    source: &'a VisionSource,
    settings: &Settings,
    device: Device,
) -> Result<StepInput<'a>> {
    let kind = settings.precision.kind(device);
    let with_patches = settings.objective.name == Objective::Simzss;
    let batch = &fed.batch;
    let images = match (source, &fed.pixels) {
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

/// Features of unit length, patches in the precision of the towers.
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
