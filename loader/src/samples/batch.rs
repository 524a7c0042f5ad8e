//! The loader's output: batches, and counters of the work behind them.

use std::ops::Range;
use std::time::Duration;

use storage::Location;

use crate::order::Position;
use crate::samples::buffers::Images;

/// One rank's part of a global batch. B below is the number of its rows.
#[derive(Debug, Clone)]
pub struct Batch {
    /// Epoch and step of the batch.
    pub position: Position,
    /// B, the number of rows.
    pub size: usize,
    /// Pixels, [B, H, W, 3] bytes in the order red, green, blue; not normalised. Empty when images are not loaded.
    pub images: Images,
    /// B sample keys. If a broken sample was replaced, this is the key of the replacement.
    pub keys: Vec<String>,
    /// B sample numbers (of the replacement, where a broken sample was replaced), from 0 over all shards in the order
    /// of [`Settings::shards`](crate::Settings::shards).
    pub samples: Vec<u64>,
    /// B captions as canonical text ([`concepts::canonical()`]); empty when captions are not loaded.
    pub captions: Vec<String>,
    /// Token ids of CLIP's vocabulary, [B, context]; empty when captions are not loaded.
    pub tokens: Vec<i64>,
    /// The mentions whose concept is in the vocabulary ([`concepts::Bank`]), ordered by row and then from left to
    /// right.
    pub mentions: Vec<BatchMention>,
    /// Times and counts of the work for this batch.
    pub counters: Counters,
}

/// A concept mention in a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchMention {
    /// Row of the batch.
    pub sample: u32,
    /// Label of the concept in the vocabulary ([`concepts::Bank`]).
    pub label: u32,
    /// Token positions of the mention's words in the row of [`Batch::tokens`]; never empty.
    pub positions: Range<u32>,
    /// The same words as a range of bytes of the canonical caption.
    pub span: Range<u32>,
}

/// Times and counts of the work for one batch.
#[derive(Debug, Clone, Default)]
pub struct Counters {
    /// How long the consumer waited for the batch.
    pub waited: Duration,
    /// Time spent reading, summed over the threads.
    pub read: Duration,
    /// Time spent decoding, cropping and resizing, summed over the threads.
    pub decode: Duration,
    /// Bytes of images and captions read, including those of broken samples.
    pub bytes: u64,
    /// Mentions whose concept is in the vocabulary but that a limit excluded: too many mentions in the caption, too
    /// many tokens in the mention, or beyond the end of the truncated caption.
    pub mentions_left_out: u32,
    /// Rows without mentions because the caption that was drawn is not the one that the sidecar's mentions were made
    /// from.
    pub captions_without_mentions: u32,
    /// The broken samples that were replaced, ordered by row.
    pub skipped: Vec<Skipped>,
}

impl Counters {
    /// Adds the counters of one row or of another batch.
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

/// A broken sample that was replaced by another one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Skipped {
    /// Its shard.
    pub shard: Location,
    /// Its key.
    pub key: String,
    /// What is wrong with it.
    pub cause: String,
}
