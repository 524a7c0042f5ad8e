//! The order of samples: a pure function of the seed, the epoch and the sample counts of the shards. This module does
//! no I/O.
//!
//! # Specification
//! Given are the shards in the order they are listed, with `n_0, n_1, ..` samples each and `N` in all; a seed; `S`
//! streams; a window of `W` samples; a global batch of `B` samples. `S` is the greatest common divisor of the number of
//! streams asked for and `B`, so that `q = B / S` is an integer. In epoch `e`:
//! 1. The shards are permuted by the key (seed, e, `SHARDS`). Their samples, in tar order, one shard after the
//!    other, are the *list*, with positions `0..N`.
//! 2. The list is cut into `S` streams: stream `s` holds positions `floor(s N / S) .. floor((s+1) N / S)`.
//! 3. A stream of `L` samples is cut, by the same rule, into `ceil(L / W)` windows, and window `w` is permuted
//!    (shuffled) by the key (seed, e, `WINDOW`, s, w).
//! 4. Step `t` takes positions `t q .. (t+1) q` of every stream. Row `s q + i` of the global batch is position
//!    `t q + i` of stream `s`. The epoch has `floor(N / B)` steps.
//! 5. Rank `r` of `R` (which divides `S`) owns streams `r S / R .. (r+1) S / R`, that is, rows
//!    `r B / R .. (r+1) B / R`.
//!
//! # Several datasets
//! Given are datasets `k = 0, 1, ..` with weights `w_k`. Dataset `k` gets `S_k` of the `S` streams: `S w_k / sum w`,
//! rounded to integers by the largest remainder method (equal remainders: the first dataset first), and with them
//! `B_k = S_k q` rows of every batch. The streams are assigned one by one: for `s = 1, 2, .. S` the next stream goes to the
//! dataset with the largest `S_k s - S d_k` (equal values: the first dataset) among those with `d_k < S_k`, where `d_k`
//! is the number of streams assigned to dataset `k` so far.
//!
//! Each dataset has the order above for its own shards, with `S_k` streams, a batch of `B_k`, and the seed, which for
//! `k > 0` is the key (seed, `SET`, k). Let `T_k` be the number of steps per epoch of dataset `k`. Batch `t` of the run
//! (`t = e floor(N / B) + step`, with `N` the number of samples of all datasets) takes step `t mod T_k` of epoch
//! `floor(t / T_k)` of dataset `k`. So every dataset is drawn without replacement and starts its next epoch when it is
//! used up, independently of the others. Augmentation and captions are drawn from the dataset's own epoch and from the
//! shard's number in the list of all shards.
//!
//! # Invariants
//! - The global batches do not depend on `R`, on threads or on where a run was resumed.
//! - No sample comes twice in an epoch. Fewer than `B` samples are left out, and which ones changes with the epoch.
//! - Any position is reached in constant time after the shard list of the epoch (one entry per shard) is permuted.
//! - A rank reads about `N / R` neighbouring samples of the list, in windows of `W`.
//!
//! # Broken samples
//! If the sample at position `p` of stream `s` is broken, the next good sample of that stream replaces it: `p + 1`,
//! `p + 2`, .., continuing at the start of the stream after its end. If all samples of the stream are broken, stream
//! `s + 1` (after the last stream: 0) is searched in the same way from its position `p mod L`, with `L` its number of
//! samples, then `s + 2` and so on. The replacement also comes at its own position, so a broken sample costs one
//! repetition and moves no other sample: the batches remain a function of the data and do not depend on what was read
//! before.

mod mixture;
pub(crate) mod permutation;

use std::ops::Range;

pub use self::mixture::Share;
pub(crate) use self::mixture::{Mixture, Place};
use self::permutation::{Permutation, key};
use crate::Error;

/// Separates the keys of shard permutations from those of windows.
const SHARDS: u64 = 1;
const WINDOW: u64 = 2;

/// The position of a run: the batch that comes next.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
pub struct Position {
    /// Epochs completed before this batch: the number of the epoch, from 0.
    pub epoch: u64,
    /// Batches of this epoch before this batch: the number of the step, from 0.
    pub step: u64,
}

impl Position {
    /// The position after this one.
    #[must_use]
    pub fn next(self, steps_per_epoch: u64) -> Self {
        Self { step: self.step + 1, ..self }.normalised(steps_per_epoch)
    }

    /// The same position with a step inside the epoch: step `steps_per_epoch` becomes step 0 of the next epoch.
    #[must_use]
    pub fn normalised(self, steps_per_epoch: u64) -> Self {
        let steps = steps_per_epoch.max(1);
        Self { epoch: self.epoch + self.step / steps, step: self.step % steps }
    }
}

/// Identifies one sample of the dataset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SampleId {
    /// Index of its shard in the list of shards, from 0.
    pub shard: u32,
    /// Its position in the tar, from 0.
    pub sample: u32,
}

/// The order of all epochs of one dataset.
#[derive(Debug, Clone)]
pub(crate) struct Order {
    counts: Vec<u32>,
    plan: Plan,
}

/// The numbers of the specification, there called N, S, W, B and the seed.
#[derive(Debug, Clone, Copy)]
struct Plan {
    samples: u64,
    streams: u64,
    window: u64,
    batch_size: u64,
    seed: u64,
}

impl Order {
    /// `counts`: number of samples of each shard, in the order listed. `streams` is reduced to its greatest common
    /// divisor with `batch_size`, the number of samples in a global batch.
    ///
    /// # Errors
    /// A number is 0, or there are fewer samples than one batch.
    pub(crate) fn new(
        counts: Vec<u32>,
        seed: u64,
        streams: usize,
        window: usize,
        batch_size: usize,
    ) -> Result<Self, Error> {
        for (value, name) in [(batch_size, "batch size"), (streams, "number of streams"), (window, "window")]
        {
            if value == 0 {
                return Err(Error::Settings(format!("the {name} must be at least 1")));
            }
        }
        let samples = counts.iter().map(|&n| u64::from(n)).sum();
        if samples < batch_size as u64 {
            return Err(Error::TooFewSamples { samples, batch_size });
        }
        let plan = Plan {
            samples,
            streams: greatest_common_divisor(streams as u64, batch_size as u64),
            window: window as u64,
            batch_size: batch_size as u64,
            seed,
        };
        Ok(Self { counts, plan })
    }

    /// Number of samples in all shards.
    pub(crate) fn samples(&self) -> u64 {
        self.plan.samples
    }

    /// Number of batches in an epoch.
    pub(crate) fn steps_per_epoch(&self) -> u64 {
        self.plan.samples / self.plan.batch_size
    }

    /// The order of one epoch. Takes time and memory proportional to the number of shards, not of samples.
    pub(crate) fn epoch(&self, epoch: u64) -> Epoch {
        let shards = Permutation::new(key(&[self.plan.seed, epoch, SHARDS]), self.counts.len() as u64);
        let mut listed = Vec::with_capacity(self.counts.len());
        let mut start = 0;
        for i in 0..self.counts.len() as u64 {
            let shard = shards.apply(i) as u32;
            listed.push((start, shard));
            start += u64::from(self.counts[shard as usize]);
        }
        Epoch { plan: self.plan, epoch, listed }
    }
}

/// The order of one epoch.
#[derive(Debug, Clone)]
pub(crate) struct Epoch {
    plan: Plan,
    epoch: u64,
    /// The shards in their permuted order, each with the list position of its first sample.
    listed: Vec<(u64, u32)>,
}

impl Epoch {
    /// Number of samples of a stream.
    pub(crate) fn stream_len(&self, stream: u64) -> u64 {
        let stream = cut(self.plan.samples, self.plan.streams, stream);
        stream.end - stream.start
    }

    /// The sample at `position` of a stream. Positions beyond its last sample start again at its first.
    pub(crate) fn sample(&self, stream: u64, position: u64) -> SampleId {
        let Plan { samples, streams, window, seed, .. } = self.plan;
        let bounds = cut(samples, streams, stream);
        let length = bounds.end - bounds.start;
        let position = position % length;
        let windows = length.div_ceil(window);
        let number = part_of(length, windows, position);
        let inside = cut(length, windows, number);
        let permutation =
            Permutation::new(key(&[seed, self.epoch, WINDOW, stream, number]), inside.end - inside.start);
        self.listed(bounds.start + inside.start + permutation.apply(position - inside.start))
    }

    /// The sample at `position` of a stream and then, in order, those that replace it if it is broken: every sample of the
    /// dataset once.
    pub(crate) fn replacements(&self, stream: u64, position: u64) -> impl Iterator<Item = SampleId> + '_ {
        let streams = self.plan.streams;
        (stream..stream + streams).map(move |stream| stream % streams).flat_map(move |stream| {
            (position..position + self.stream_len(stream)).map(move |position| self.sample(stream, position))
        })
    }

    /// The sample at a position of the list.
    fn listed(&self, position: u64) -> SampleId {
        // Several shards have the same start if all but the last of them are empty: take the last.
        let after = self.listed.partition_point(|&(start, _)| start <= position);
        let (start, shard) = self.listed[after - 1];
        SampleId { shard, sample: (position - start) as u32 }
    }
}

/// Part `i` when `total` is cut into `parts` parts of equal size, as far as integers allow.
fn cut(total: u64, parts: u64, i: u64) -> Range<u64> {
    let bound = |i: u64| (u128::from(i) * u128::from(total) / u128::from(parts)) as u64;
    bound(i)..bound(i + 1)
}

/// The part of [`cut`] that contains `position`.
fn part_of(total: u64, parts: u64, position: u64) -> u64 {
    // The largest i with floor(i total / parts) <= position, that is, i total < (position + 1) parts.
    (((u128::from(position) + 1) * u128::from(parts) - 1) / u128::from(total)) as u64
}

fn greatest_common_divisor(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

#[cfg(test)]
mod tests;
