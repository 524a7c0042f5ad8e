//! The settings of a loader.

use std::sync::Arc;

use concepts::{Bank, Matching};
use serde::{Deserialize, Serialize};
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
    /// What a user chooses, for example in a file.
    pub options: Options,
    /// Seed of the sample order, the augmentation and the choice of captions. Default 0.
    pub seed: u64,
    /// Whether images are loaded. If not, a batch's `images` is empty; training from cached features needs none.
    /// Default true.
    pub images: bool,
    /// Whether captions and tokens are loaded; a sample without a caption then counts as broken. Default true.
    pub captions: bool,
    /// Number of tokens per caption, including start and end of text. Default 77, as in CLIP.
    pub context: usize,
    /// The concept vocabulary that gives mentions their labels, and how mentions are matched to it. If set, every shard
    /// needs a sidecar. Default: none, no sidecar is read.
    pub bank: Option<(Arc<Bank>, Matching)>,
    /// Whether the concepts that the other captions of a sample mention are loaded, too, where captions are from a field of the `.json`
    /// members. Needs a `bank`, and sidecars of that field. Default false.
    pub siblings: bool,
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
            options: Options { batch_size, ..Options::default() },
            seed: 0,
            images: true,
            captions: true,
            context: 77,
            bank: None,
            siblings: false,
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
        // Start and end of text need two tokens.
        if self.captions && !(2..=1 << 16).contains(&self.context) {
            return refuse("the context must be 2 to 65,536 tokens");
        }
        if self.bank.is_some() && !self.captions {
            return refuse("mentions need captions: load captions, or set no bank");
        }
        if self.siblings && (self.bank.is_none() || self.options.captions.field().is_none()) {
            return refuse(
                "the concepts of a sample's other captions need a bank, and captions from a field of the .json members",
            );
        }
        match self.options.problem() {
            Some((name, problem)) => refuse(&format!("{name} {problem}")),
            None => Ok(()),
        }
    }
}

/// The settings that a user chooses, named as in a settings file, with their defaults and limits. Programs that read them from a
/// file take them from here. (`docs/settings.md` has these comments, as the page of the trainer's section `[data]`.)
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Options {
    /// Where captions come from: `"text"` (the sample's .txt), or `{ json = { key = "captions", choice = "random" } }` (a
    /// string or a list of strings in the sample's .json; `choice` is `first` or `random`).
    pub captions: CaptionSource,
    /// JPEG decoder: `exact` (Pillow's pixels before resizing) or `fast` (less exact, for images several times as large as
    /// `size`).
    pub decoding: Decoding,
    /// Keep remote shards on a local disk: `{ folder = "DIR", limit = BYTES }`. If not set, only the bytes of the needed
    /// samples are fetched.
    pub cache: Option<Cache>,
    /// Train on a selection of the samples only: a Parquet file as `tools select` writes it (`shard`, `sample`, `weight`), or its
    /// address. A weight says how often a sample comes in each epoch.
    pub selection: Option<Location>,
    /// Samples per step, over all processes.
    pub batch_size: usize,
    /// Side of the square training images, in pixels; must be a multiple of the patch size.
    pub size: u32,
    /// `random` (torchvision's RandomResizedCrop) or `centre` (resize the short side to `size`, then crop the centre).
    pub crop: CropKind,
    /// For `crop = "random"`: minimum and maximum fraction of the image's area that the crop covers.
    pub scale: [f32; 2],
    /// Probability that an image is flipped horizontally.
    pub flip: f32,
    /// The dataset is read as this many parallel streams, and every batch takes the same number of samples from each. The
    /// number in use is the greatest common divisor with `batch_size`; the number of processes must divide it.
    pub streams: usize,
    /// Samples of a stream that are shuffled together (the size of the shuffle buffer).
    pub window: usize,
    /// Maximum number of concept mentions per caption; further mentions are left out.
    pub max_mentions: usize,
    /// Maximum length of a mention in tokens; longer mentions are left out. With `bank.matching = "strict"` the whole noun phrase
    /// counts, as in the authors' code.
    pub max_mention_tokens: usize,
    /// Threads that read and decode; 0 = one per core.
    pub threads: usize,
    /// Batches that are prepared in advance.
    pub prefetch: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            captions: CaptionSource::default(),
            decoding: Decoding::default(),
            cache: None,
            selection: None,
            batch_size: 512,
            size: 224,
            crop: CropKind::Random,
            scale: [0.9, 1.0],
            flip: 0.0,
            streams: 64,
            // With images of 50 kB, a window is 200 MB of neighbouring bytes.
            window: 4096,
            max_mentions: 32,
            max_mention_tokens: 15,
            threads: 0,
            prefetch: 2,
        }
    }
}

impl Options {
    /// The option that no loader could use, and what is wrong with it.
    pub fn problem(&self) -> Option<(&'static str, &'static str)> {
        let [smallest, largest] = self.scale;
        if self.batch_size == 0 {
            return Some(("batch_size", "must be at least 1"));
        }
        if !(1..=16_384).contains(&self.size) {
            return Some(("size", "must be 1 to 16,384 pixels"));
        }
        if !(smallest > 0.0 && smallest <= largest && largest <= 1.0) {
            let problem =
                "must be two fractions of the area, minimum and maximum: 0 < minimum <= maximum <= 1";
            return Some(("scale", problem));
        }
        if !(0.0..=1.0).contains(&self.flip) {
            return Some(("flip", "must be a probability, 0 to 1"));
        }
        None
    }

    /// How an image becomes a row of a batch.
    pub fn image(&self) -> ImageSettings {
        let Self { size, crop, scale: [smallest, largest], flip, .. } = *self;
        let crop = match crop {
            CropKind::Centre => Crop::Centre { size },
            // torchvision's ratio.
            CropKind::Random => {
                Crop::RandomResized { size, scale: (smallest, largest), ratio: (3.0 / 4.0, 4.0 / 3.0) }
            }
        };
        ImageSettings { crop, flip }
    }

    /// Number of threads that read and decode: `threads`, or one per core.
    pub fn thread_count(&self) -> usize {
        match self.threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            threads => threads,
        }
    }
}

/// How an image is cropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CropKind {
    /// Resize the short side to the image size, then crop the centre.
    Centre,
    /// Random resized crop.
    Random,
}

/// How exactly a JPEG is decoded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
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
    /// Probability of a horizontal flip.
    pub flip: f32,
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
}
