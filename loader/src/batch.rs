//! What the loader gives.

use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use crate::{Images, Position};

/// One rank's part of a global batch; B is the number of its rows.
#[derive(Debug, Clone)]
pub struct Batch {
    /// Which batch it is.
    pub position: Position,
    /// B.
    pub size: usize,
    /// [B, H, W, 3], red, green, blue; not normalised. Empty when images are not loaded.
    pub images: Images,
    /// B keys: those of the samples in use, so a replaced sample's is the replacement's.
    pub keys: Vec<String>,
    /// B numbers of the samples in use, counted over the shards in the order of the settings.
    pub samples: Vec<u64>,
    /// B captions as canonical text; none when captions are not loaded.
    pub captions: Vec<String>,
    /// [B, context] ids of CLIP's vocabulary; empty when captions are not loaded.
    pub tokens: Vec<i64>,
    /// The mentions that the bank knows, by row, then from left to right.
    pub mentions: Vec<BatchMention>,
    /// What it took to make the batch.
    pub counters: Counters,
}

/// A concept mention of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchMention {
    /// Row in the batch.
    pub sample: u32,
    /// Label in the bank.
    pub label: u32,
    /// Token positions of the mention's words; never empty.
    pub positions: Range<u32>,
    /// The same in bytes of the canonical caption.
    pub span: Range<u32>,
}

/// What it took to make one batch.
#[derive(Debug, Clone, Default)]
pub struct Counters {
    /// How long the consumer waited for it.
    pub waited: Duration,
    /// Time in reads, added up over the threads.
    pub read: Duration,
    /// Time in decoding, cropping and resizing, added up over the threads.
    pub decode: Duration,
    /// Bytes of images and captions read, broken ones included.
    pub bytes: u64,
    /// Mentions that the bank knows but the limits left out: too many, too long, or cut off with the caption.
    pub mentions_left_out: u32,
    /// Rows that show another caption than the one that the sidecar's mentions were made from, and so have none.
    pub captions_without_mentions: u32,
    /// The broken samples that were replaced, in the order of the rows.
    pub skipped: Vec<Skipped>,
}

impl Counters {
    /// Adds the counts of one row, or of another batch.
    pub fn add(&mut self, other: Self) {
        self.waited += other.waited;
        self.read += other.read;
        self.decode += other.decode;
        self.bytes += other.bytes;
        self.mentions_left_out += other.mentions_left_out;
        self.captions_without_mentions += other.captions_without_mentions;
        self.skipped.extend(other.skipped);
    }
}

/// A broken sample that another one replaced.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Skipped {
    /// Its shard.
    pub shard: PathBuf,
    /// Its key.
    pub key: String,
    /// What is wrong with it.
    pub cause: String,
}
