//! The settings of a loader.

use std::sync::Arc;

use concepts::{Bank, Matching};
use storage::{Cache, Location};

use crate::Error;
use crate::order::Share;
use crate::shards::CaptionSource;

/// What to load, and how. [`Settings::new`] sets the defaults; change fields as needed.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Settings {
    /// The shards; see [`crate::shards::list`]. The order of the samples depends on the order of this
    /// list.
    pub shards: Vec<Location>,
    /// The datasets that the shards belong to, in the order of `shards`, with their weights.
    /// Default: empty, all shards are one dataset.
    pub sets: Vec<Share>,
    /// Number of samples in a global batch, over all ranks.
    pub batch_size: usize,
    /// Seed of the sample order, the augmentation and the choice of captions. Default 0.
    pub seed: u64,
    /// Number of parts of the dataset that are read in parallel; every batch takes the same number of rows from each.
    /// Reduced to the greatest common divisor with `batch_size`. Default 64.
    pub streams: usize,
    /// Number of samples of a stream that are shuffled among each other (the size of the shuffle buffer). Default
    /// 4,096: with images of 50 kB, a window is 200 MB of neighbouring bytes.
    pub window: usize,
    /// Size and augmentation of the images.
    pub image: ImageSettings,
    /// Whether JPEGs are decoded to Pillow's pixels, or faster. Default: exact.
    pub decoding: Decoding,
    /// Whether images are loaded. If not, a batch's `images` is empty; training from cached features needs none.
    /// Default true.
    pub images: bool,
    /// Whether captions and tokens are loaded; a sample without a caption then counts as broken. Default true.
    pub captions: bool,
    /// Where captions come from, and which of several is used. Default: the `.txt` member.
    pub caption_source: CaptionSource,
    /// Number of tokens per caption, including start and end of text. Default 77, as in CLIP.
    pub context: usize,
    /// The concept vocabulary that gives mentions their labels, and how mentions are matched to it. If set, every shard
    /// needs a sidecar. Default: none, no sidecar is read.
    pub bank: Option<(Arc<Bank>, Matching)>,
    /// Maximum number of mentions kept per caption; the first ones are kept. Default 32.
    pub max_mentions: usize,
    /// Maximum length of a mention, tokens; longer ones are dropped. Default 16.
    pub max_mention_tokens: usize,
    /// Number of threads that read and decode. Default: one per processor.
    pub threads: usize,
    /// Number of batches that are prepared ahead of the one asked for. Default 2.
    pub prefetch: usize,
    /// A local cache: remote shards are downloaded as a whole, compressed shards are decompressed, once per machine.
    /// Default: none. Without it, only the samples in use are read from remote shards, and every process decompresses
    /// compressed shards into `TMPDIR`.
    pub cache: Option<Cache>,
    /// Rank of this process, from 0. It gets rows `rank B / world_size .. (rank + 1) B / world_size` of every global
    /// batch of B samples. Default 0.
    pub rank: usize,
    /// Number of ranks (processes) that share the global batch. Default 1.
    pub world_size: usize,
}

impl Settings {
    /// The defaults for these shards and this global batch size.
    pub fn new<S: Into<Location>>(shards: impl IntoIterator<Item = S>, batch_size: usize) -> Self {
        Self {
            shards: shards.into_iter().map(Into::into).collect(),
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

    /// The same for a mixture of datasets, each with its weight: every batch has samples of all of them.
    pub fn mixed<S: Into<Location>>(sets: Vec<(Vec<S>, f64)>, batch_size: usize) -> Self {
        let shares =
            sets.iter().map(|(shards, weight)| Share { shards: shards.len(), weight: *weight }).collect();
        let shards = sets.into_iter().flat_map(|(shards, _)| shards);
        Self { sets: shares, ..Self::new(shards, batch_size) }
    }

    /// Rejects values that are invalid by themselves; `order` checks its own.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let refuse = |problem: &str| Err(Error::Settings(problem.to_owned()));
        if self.shards.is_empty() {
            return refuse("no shard is given");
        }
        if self.threads == 0 {
            return refuse("the number of threads must be at least 1");
        }
        // Start and end of text need two tokens.
        if self.captions && !(2..=1 << 16).contains(&self.context) {
            return refuse("the context must be 2 to 65,536 tokens");
        }
        if self.bank.is_some() && !self.captions {
            return refuse("mentions need captions: load captions, or set no bank");
        }
        self.image.check()
    }
}

/// How exactly a JPEG is decoded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Decoding {
    /// Pillow's pixels, resized with Pillow's filter: beside Pillow 12, about 0.3 % of the values differ, by 1
    /// ([`Scaler`](crate::images::Scaler)).
    #[default]
    Exact,
    /// Faster, with small differences. A large crop is decoded at 1/2, 1/4 or 1/8 of its size, but not smaller than the
    /// result; rounding is coarser, chroma is repeated instead of interpolated, and the resampling filter is half as
    /// wide ([`Scaler`](crate::images::Scaler)). On 490 COCO photos the median PSNR against exact decoding is 39 dB. Worth it for
    /// photos several times as large as the result; for smaller ones most of the time goes into Huffman decoding, which
    /// both modes do.
    Fast,
}

/// How an image becomes a square of `size` x `size` pixels.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct ImageSettings {
    /// Which part of the image.
    pub crop: Crop,
    /// Probability of a horizontal flip. Default 0.
    pub flip: f32,
}

impl Default for ImageSettings {
    /// A random crop of 90 to 100 % of the area, resized to 224 pixels, not flipped.
    fn default() -> Self {
        let crop = Crop::RandomResized { size: 224, scale: (0.9, 1.0), ratio: (3.0 / 4.0, 4.0 / 3.0) };
        Self::new(crop, 0.0)
    }
}

/// Which part of an image is resized to `size` x `size` pixels (bicubic, antialiased).
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Crop {
    /// A random part of the image, drawn as by torchvision's `RandomResizedCrop`.
    RandomResized {
        /// Side of the result, pixels.
        size: u32,
        /// Area of the part divided by the area of the image: minimum, maximum.
        scale: (f32, f32),
        /// Width divided by height of the part: minimum, maximum.
        ratio: (f32, f32),
    },
    /// The short side is resized to `size`, then the centre is cropped.
    Centre {
        /// Side of the result, pixels.
        size: u32,
    },
}

impl ImageSettings {
    /// This crop, flipped with this probability.
    pub fn new(crop: Crop, flip: f32) -> Self {
        Self { crop, flip }
    }

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
