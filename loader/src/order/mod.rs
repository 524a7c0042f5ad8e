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
//! # Selections
//! A selection gives samples weights; those that it does not name have the weight 0. Only steps 1 and 2 change. The integer
//! part of a weight says how often the sample comes in every epoch, its fraction how likely it comes once more:
//! - The list is made of *parts*. Part `i < S'` (of `S'` shards) has the samples of shard `i` with a weight of at least 1. After these,
//!   for each shard, there is one part with its samples of weight at least 2, one for 3, and so on, and then one with its drawn samples,
//!   if any of its weights has a fraction. In a part of whole copies, samples with a larger integer part come first, and otherwise
//!   all are in tar order. The parts, instead of the shards, are permuted by the key (seed, e, `SHARDS`).
//! - Fractions are rounded to multiples of 2^-32. Laid end to end, in the order of shards and of samples, they form a line of length
//!   `F` (in units of 2^-32). Let `n` be `F / 2^32`, rounded, and `r` a draw below `F` from the key (seed, e, `SELECTION`). Point
//!   `k = 0, .., n - 1` is at `floor((k F + r) / n)`, and a sample is drawn as often as points fall on its fraction.
//!
//! `N` is then the sum of the weights, rounded, in every epoch. A sample with an integer weight comes exactly that often; any
//! other comes as often as one of the two integers around its expectation, which is its weight (or, if `F` is no multiple of
//! 2^32, its integer part plus its fraction times `n 2^32 / F`). The crop and the caption of a further copy are drawn with the
//! seed (seed, `COPY`, c): `c` is the number of the copy, from 2, and 0 for a drawn one. A selection of all samples, each with the weight
//! 1, changes nothing.
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
//! - Without a selection, no sample comes twice in an epoch. Fewer than `B` samples are left out, and which ones changes with the epoch.
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
mod selection;

use std::ops::Range;
use std::sync::Arc;

pub use self::mixture::Share;
pub(crate) use self::mixture::{Mixture, Place};
use self::permutation::{Permutation, key};
pub(crate) use self::selection::Selected;
use self::selection::{Drawing, Selection};
use crate::Error;

/// Separates the keys of shard permutations from those of windows.
const SHARDS: u64 = 1;
const WINDOW: u64 = 2;
/// Separates the draws for further copies of a sample from those for the first.
const COPY: u64 = 7;

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

/// A sample at one of its places in an epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Visit {
    pub(crate) id: SampleId,
    /// Which copy of it: 1, unless a selection repeats it.
    pub(crate) copy: u32,
}

impl Visit {
    /// The seed of what is drawn for the sample, so that copies of it get different crops.
    pub(crate) fn seed(self, seed: u64) -> u64 {
        if self.copy == 1 { seed } else { key(&[seed, COPY, self.copy.into()]) }
    }
}

/// The order of all epochs of one dataset.
#[derive(Debug, Clone)]
pub(crate) struct Order {
    counts: Vec<u32>,
    selection: Option<Arc<Selection>>,
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
    /// `counts`: number of samples of each shard, in the order listed. `selected`: what a selection has of each; `None` for
    /// all samples. `streams` is reduced to its greatest common divisor with `batch_size`, the number of samples in a global
    /// batch.
    ///
    /// # Errors
    /// A number is 0, or there are fewer samples than one batch.
    pub(crate) fn new(
        counts: Vec<u32>,
        selected: Option<Vec<Selected>>,
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
        let selection = selected.map(|selected| Arc::new(Selection::new(selected)));
        let samples = match &selection {
            None => counts.iter().map(|&n| u64::from(n)).sum(),
            Some(selection) => selection.samples(),
        };
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
        Ok(Self { counts, selection, plan })
    }

    /// Number of samples in an epoch: of all shards, or of the selection.
    pub(crate) fn samples(&self) -> u64 {
        self.plan.samples
    }

    /// Number of batches in an epoch.
    pub(crate) fn steps_per_epoch(&self) -> u64 {
        self.plan.samples / self.plan.batch_size
    }

    /// The order of one epoch. Takes time and memory proportional to the number of shards, not of samples.
    pub(crate) fn epoch(&self, epoch: u64) -> Epoch {
        let seed = self.plan.seed;
        let selected = self.selection.as_ref().map(|it| (Arc::clone(it), it.draw(seed, epoch)));
        let parts = self.selection.as_ref().map_or(self.counts.len(), |selection| selection.parts().len());
        let permutation = Permutation::new(key(&[seed, epoch, SHARDS]), parts as u64);
        let mut listed = Vec::with_capacity(parts);
        let mut start = 0;
        for i in 0..parts as u64 {
            let part = permutation.apply(i) as usize;
            listed.push((start, part as u32));
            start += match &selected {
                None => u64::from(self.counts[part]),
                Some((selection, drawing)) => selection.count(drawing, selection.parts()[part]),
            };
        }
        Epoch { plan: self.plan, epoch, selected, listed }
    }
}

/// The order of one epoch.
#[derive(Debug, Clone)]
pub(crate) struct Epoch {
    plan: Plan,
    epoch: u64,
    selected: Option<(Arc<Selection>, Drawing)>,
    /// The shards (with a selection, its parts) in their permuted order, each with the list position of its first sample.
    listed: Vec<(u64, u32)>,
}

impl Epoch {
    /// Number of samples of a stream.
    pub(crate) fn stream_len(&self, stream: u64) -> u64 {
        let stream = cut(self.plan.samples, self.plan.streams, stream);
        stream.end - stream.start
    }

    /// The sample at `position` of a stream. Positions beyond its last sample start again at its first.
    pub(crate) fn sample(&self, stream: u64, position: u64) -> Visit {
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
    /// epoch's list once.
    pub(crate) fn replacements(&self, stream: u64, position: u64) -> impl Iterator<Item = Visit> + '_ {
        let streams = self.plan.streams;
        (stream..stream + streams).map(move |stream| stream % streams).flat_map(move |stream| {
            (position..position + self.stream_len(stream)).map(move |position| self.sample(stream, position))
        })
    }

    /// The sample at a position of the list.
    fn listed(&self, position: u64) -> Visit {
        // Several parts have the same start if all but the last of them are empty: take the last.
        let after = self.listed.partition_point(|&(start, _)| start <= position);
        let (start, part) = self.listed[after - 1];
        let index = position - start;
        match &self.selected {
            None => Visit { id: SampleId { shard: part, sample: index as u32 }, copy: 1 },
            Some((selection, drawing)) => {
                let (shard, copy) = selection.parts()[part as usize];
                let sample = selection.sample(drawing, (shard, copy), index);
                Visit { id: SampleId { shard, sample }, copy }
            }
        }
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
