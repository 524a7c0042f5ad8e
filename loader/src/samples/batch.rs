//! The loader's output: batches, and counters of the work behind them.

use std::ops::Range;
use std::time::Duration;

use storage::Location;

use crate::error::SampleError;
use crate::order::Position;
use crate::samples::buffers::Images;

/// One rank's part of a global batch. B below is the number of its rows. The numbers are stored as arrays without gaps, so that
/// they can be handed to other languages and devices as they are.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
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
    /// The mentions whose concept is in the vocabulary ([`concepts::Bank`]).
    pub mentions: Mentions,
    /// For each row, the concepts that only other captions of its sample mention, ascending; empty unless they are asked for
    /// ([`Settings::siblings`](crate::Settings::siblings)).
    pub siblings: Vec<Vec<u32>>,
    /// Times and counts of the work for this batch.
    pub counters: Counters,
}

/// The concept mentions of a batch as columns. They are ordered by row and then from left to right; value `i` of every column
/// except `offsets` belongs to mention `i`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Mentions {
    /// The mentions of row `r` are those from `offsets[r]` to before `offsets[r + 1]`. One value more than there are rows.
    pub offsets: Vec<u32>,
    /// Label of the concept in the vocabulary ([`concepts::Bank`]).
    pub labels: Vec<u32>,
    /// Position of the first token of the mention's words in its row of [`Batch::tokens`].
    pub token_starts: Vec<u32>,
    /// Position after the last of these tokens; there is at least one.
    pub token_ends: Vec<u32>,
    /// First byte of the same words in the canonical caption.
    pub byte_starts: Vec<u32>,
    /// End of these bytes.
    pub byte_ends: Vec<u32>,
}

/// One of the [`Mentions`] of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchMention {
    /// Label of the concept in the vocabulary ([`concepts::Bank`]).
    pub label: u32,
    /// Token positions of the mention's words in the row of [`Batch::tokens`]; never empty.
    pub positions: Range<u32>,
    /// The same words as a range of bytes of the canonical caption.
    pub span: Range<u32>,
}

/// No rows.
impl Default for Mentions {
    fn default() -> Self {
        Self::with_capacity(0, 0)
    }
}

impl Mentions {
    pub(crate) fn with_capacity(rows: usize, mentions: usize) -> Self {
        let mut offsets = Vec::with_capacity(rows + 1);
        offsets.push(0);
        let column = || Vec::with_capacity(mentions);
        Self {
            offsets,
            labels: column(),
            token_starts: column(),
            token_ends: column(),
            byte_starts: column(),
            byte_ends: column(),
        }
    }

    /// Number of mentions.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there is no mention.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// Number of rows, with mentions or without.
    pub fn rows(&self) -> usize {
        self.offsets.len().saturating_sub(1)
    }

    /// The mentions of a row, from left to right.
    ///
    /// # Panics
    /// There is no such row, or the columns were changed so that they do not fit each other.
    pub fn of_row(&self, row: usize) -> impl Iterator<Item = BatchMention> + '_ {
        (self.offsets[row] as usize..self.offsets[row + 1] as usize).map(|at| BatchMention {
            label: self.labels[at],
            positions: self.token_starts[at]..self.token_ends[at],
            span: self.byte_starts[at]..self.byte_ends[at],
        })
    }

    /// All mentions, each with its row.
    pub fn iter(&self) -> impl Iterator<Item = (usize, BatchMention)> + '_ {
        (0..self.rows()).flat_map(|row| self.of_row(row).map(move |mention| (row, mention)))
    }

    /// Adds a row.
    pub fn push_row(&mut self, mentions: impl IntoIterator<Item = BatchMention>) {
        for BatchMention { label, positions, span } in mentions {
            self.labels.push(label);
            self.token_starts.push(positions.start);
            self.token_ends.push(positions.end);
            self.byte_starts.push(span.start);
            self.byte_ends.push(span.end);
        }
        self.offsets.push(self.labels.len() as u32);
    }
}

/// Times and counts of the work for one batch.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
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
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Skipped {
    /// Its shard.
    pub shard: Location,
    /// Its key.
    pub key: String,
    /// What is wrong with it.
    pub cause: SampleError,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_become_columns_and_rows_again() {
        let mention =
            |label| BatchMention { label, positions: label..label + 2, span: 10 * label..11 * label };
        let rows = [vec![mention(1), mention(2)], vec![], vec![mention(3)]];
        let mut mentions = Mentions::default();
        for row in &rows {
            mentions.push_row(row.clone());
        }
        assert_eq!((mentions.rows(), mentions.len()), (3, 3));
        assert_eq!(mentions.offsets, [0, 2, 2, 3]);
        assert_eq!(mentions.token_ends, [3, 4, 5]);
        assert_eq!(mentions.byte_starts, [10, 20, 30]);
        for (row, expected) in rows.iter().enumerate() {
            assert!(mentions.of_row(row).eq(expected.iter().cloned()));
        }
        assert!(mentions.iter().map(|(row, mention)| (row, mention.label)).eq([(0, 1), (0, 2), (2, 3)]));
        assert!(Mentions::default().is_empty() && Mentions::default().rows() == 0);
    }
}
