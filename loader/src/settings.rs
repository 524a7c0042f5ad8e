//! What a loader is told.

use std::path::PathBuf;
use std::sync::Arc;

use concepts::{Bank, Matching};

use crate::{Cache, CaptionSource, Error, Share};

/// What to load, and how. [`Settings::new`] has the defaults; change fields as needed.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Shards, in order: the order is part of what the samples' order depends on. See [`crate::shard::list`].
    pub shards: Vec<PathBuf>,
    /// The sets that the shards belong to, in their order, and their weights; see [`crate::order`]. Default none: all
    /// shards are one set.
    pub sets: Vec<Share>,
    /// Samples of a global batch, over all ranks.
    pub batch_size: usize,
    /// Decides the order and the augmentation.
    pub seed: u64,
    /// Parts of the set that are read side by side; reduced to the greatest common divisor with `batch_size`.
    /// Default 64.
    pub streams: usize,
    /// Samples of a stream among which they are shuffled. Default 4,096: a window of 50-kB images is 200 MB of
    /// neighbouring bytes.
    pub window: usize,
    /// Size and augmentation of the images.
    pub image: ImageSettings,
    /// Whether pixels are Pillow's, or made faster. Default exact.
    pub decoding: Decoding,
    /// Whether images are loaded; without them a batch's `images` is empty, as for training from cached features.
    /// Default true.
    pub images: bool,
    /// Whether captions and tokens are loaded; a sample without a caption then counts as broken. Default true.
    pub captions: bool,
    /// Where captions come from, and which of several is taken. Default the `.txt`.
    pub caption_source: CaptionSource,
    /// Tokens of a caption, start and end included. Default 77, CLIP's.
    pub context: usize,
    /// Labels of the mentions. With a bank every shard needs its sidecar, without one none is read.
    pub bank: Option<(Arc<Bank>, Matching)>,
    /// Mentions kept of one caption, the first ones. Default 32.
    pub max_mentions: usize,
    /// Longest mention kept, in tokens. Default 16.
    pub max_mention_tokens: usize,
    /// Threads that read and decode. Default: one a processor.
    pub threads: usize,
    /// Batches in the making beyond the one that is asked for. Default 2.
    pub prefetch: usize,
    /// Where remote shards are kept as they are fetched, whole, and compressed ones decoded. Default none: of remote
    /// shards just the samples are read, and compressed ones are decoded into `TMPDIR` by every process.
    pub cache: Option<Cache>,
    /// This process among `world_size`; it gets rows `rank B / world_size ..` of every global batch. Default 0.
    pub rank: usize,
    /// Processes that share the global batch. Default 1.
    pub world_size: usize,
}

impl Settings {
    /// Defaults for these shards and this global batch.
    pub fn new(shards: Vec<PathBuf>, batch_size: usize) -> Self {
        Self {
            shards,
            sets: Vec::new(),
            batch_size,
            seed: 0,
            streams: 64,
            window: 4096,
            image: ImageSettings::default(),
            decoding: Decoding::default(),
            images: true,
            captions: true,
            caption_source: CaptionSource::default(),
            context: 77,
            bank: None,
            max_mentions: 32,
            max_mention_tokens: 16,
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            prefetch: 2,
            cache: None,
            rank: 0,
            world_size: 1,
        }
    }

    /// The same for several sets, each with its weight: every batch holds samples of all of them.
    pub fn mixed(sets: Vec<(Vec<PathBuf>, f64)>, batch_size: usize) -> Self {
        let shares =
            sets.iter().map(|(shards, weight)| Share { shards: shards.len(), weight: *weight }).collect();
        let shards = sets.into_iter().flat_map(|(shards, _)| shards).collect();
        Self { sets: shares, ..Self::new(shards, batch_size) }
    }

    /// Refuses values that make no sense by themselves; the order checks its own.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let refuse = |problem: &str| Err(Error::Settings(problem.to_owned()));
        if self.shards.is_empty() {
            return refuse("no shard is named");
        }
        if self.threads == 0 {
            return refuse("the loader needs at least 1 thread");
        }
        // Below 2 there is no room for start and end of text.
        if self.captions && !(2..=1 << 16).contains(&self.context) {
            return refuse("the context must be 2 to 65,536 tokens");
        }
        if self.bank.is_some() && !self.captions {
            return refuse("mentions need captions: load captions, or give no bank");
        }
        self.image.check()
    }
}

/// How much care a JPEG is decoded with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Decoding {
    /// The pixels that Pillow and torchvision make, within rounding.
    #[default]
    Exact,
    /// A large part is decoded at 1/2, 1/4 or 1/8 of its size, no smaller than the result; rounding is coarser, colour
    /// repeated instead of interpolated, and the filter half as wide ([`crate::scaler`]). On 490 photographs of COCO
    /// 39 dB from exact, in the median. Pays for photographs several times as large as the result; for others
    /// unpacking the codes takes most of the time, which it shares with exact decoding.
    Fast,
}

/// How an image becomes a square of `size` x `size` pixels.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ImageSettings {
    /// Which part of the image.
    pub crop: Crop,
    /// Probability of a mirror image. Default 0.
    pub flip: f32,
}

impl Default for ImageSettings {
    /// A random crop to 224 of 90 to 100 % of the area, not mirrored.
    fn default() -> Self {
        let crop = Crop::RandomResized { size: 224, scale: (0.9, 1.0), ratio: (3.0 / 4.0, 4.0 / 3.0) };
        Self { crop, flip: 0.0 }
    }
}

/// Which part of an image is resized to `size` x `size`, bicubic and antialiased.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Crop {
    /// A random part of the image, as torchvision's `RandomResizedCrop` draws it.
    RandomResized {
        /// Side of the result, pixels.
        size: u32,
        /// Part of the image's area: smallest, largest.
        scale: (f32, f32),
        /// Width / height of the part: smallest, largest.
        ratio: (f32, f32),
    },
    /// The short side becomes `size`, then the centre is taken.
    Centre {
        /// Side of the result, pixels.
        size: u32,
    },
}

impl ImageSettings {
    /// Side of the result, pixels.
    pub fn size(&self) -> u32 {
        match self.crop {
            Crop::RandomResized { size, .. } | Crop::Centre { size } => size,
        }
    }

    /// Bytes of one image.
    pub(crate) fn bytes(&self) -> usize {
        (self.size() as usize).pow(2) * 3
    }

    fn check(&self) -> Result<(), Error> {
        let refuse = |problem: String| Err(Error::Settings(problem));
        if !(1..=16_384).contains(&self.size()) {
            return refuse(format!("image size {} is not within 1 to 16,384 pixels", self.size()));
        }
        if !(0.0..=1.0).contains(&self.flip) {
            return refuse(format!("flip probability {} is not within 0 to 1", self.flip));
        }
        if let Crop::RandomResized { scale, ratio, .. } = self.crop {
            if !(scale.0 > 0.0 && scale.0 <= scale.1 && scale.1 <= 1.0) {
                return refuse(format!("crop scale {scale:?} is not a range within 0 to 1"));
            }
            if !(ratio.0 > 0.0 && ratio.0 <= ratio.1 && ratio.1.is_finite()) {
                return refuse(format!("crop ratio {ratio:?} is not a range of positive numbers"));
            }
        }
        Ok(())
    }
}
