//! Mixtures: every batch takes rows from several datasets. See the specification in [`crate::order`]. No I/O here.

use std::ops::Range;

use super::{Order, Position, Selected, greatest_common_divisor};
use crate::Error;
use crate::order::permutation::key;

/// Separates the seeds of datasets from other keys.
const SET: u64 = 5;

/// One dataset of a mixture. Its shards follow those of the dataset before it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Share {
    /// Number of shards of the dataset.
    pub shards: usize,
    /// Weight of the dataset: its share of every batch is this, divided by the sum of all weights.
    pub weight: f64,
}

/// The order of all epochs of a mixture of one or more datasets.
#[derive(Debug, Clone)]
pub(crate) struct Mixture {
    sets: Vec<Order>,
    /// For each dataset, the number of its first shard in the list of all shards.
    first_shards: Vec<u32>,
    counts: Vec<u32>,
    /// For each stream, its dataset and the stream's number within that dataset.
    streams: Vec<(usize, u64)>,
    /// Number of streams asked for; used in the error message only.
    wanted: usize,
    batch_size: u64,
    rows_per_stream: u64,
}

/// Where a row of a batch comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    /// Index of the dataset.
    pub set: usize,
    /// Epoch of that dataset.
    pub epoch: u64,
    /// Stream of that dataset.
    pub stream: u64,
    /// Position in that stream.
    pub position: u64,
}

impl Mixture {
    /// `counts`: number of samples of each shard, in the order listed. `selected`: what a selection has of each. `shares`: the
    /// datasets that the shards belong to; if empty, all shards are one dataset. For the other arguments see [`Order::new`].
    ///
    /// # Errors
    /// A number is 0; a weight is not positive and finite, or is too small for one stream; the shares have more or
    /// fewer shards than there are; a dataset has fewer samples than its rows of one batch.
    pub(crate) fn new(
        counts: Vec<u32>,
        selected: Option<Vec<Selected>>,
        shares: &[Share],
        seed: u64,
        streams: usize,
        window: usize,
        batch_size: usize,
    ) -> Result<Self, Error> {
        let all = [Share { shards: counts.len(), weight: 1.0 }];
        let shares = if shares.is_empty() { &all } else { shares };
        let refuse = |problem: String| Err(Error::Settings(problem));
        let listed: usize = shares.iter().map(|share| share.shards).sum();
        if listed != counts.len() {
            return refuse(format!(
                "the datasets have {listed} shards together, but {} shards are given",
                counts.len()
            ));
        }
        for (set, share) in shares.iter().enumerate() {
            if !(share.weight > 0.0 && share.weight.is_finite()) {
                return refuse(format!(
                    "the weight of dataset {} is {}, it must be a positive finite number",
                    set + 1,
                    share.weight
                ));
            }
        }
        if batch_size == 0 || streams == 0 {
            // Order::new reports which of them is 0.
            Order::new(counts.clone(), None, seed, streams, window, batch_size)?;
        }
        let total = greatest_common_divisor(streams as u64, batch_size as u64);
        let rows_per_stream = batch_size as u64 / total;
        let weights: Vec<f64> = shares.iter().map(|share| share.weight).collect();
        let parts = apportion(total, &weights);
        let (mut sets, mut first_shards, mut first) = (Vec::new(), Vec::new(), 0);
        let mut selected = selected.map(Vec::into_iter);
        for (set, (share, &part)) in shares.iter().zip(&parts).enumerate() {
            if part == 0 {
                return refuse(format!(
                    "the weight of dataset {} is too small for one of {total} streams; leave the dataset out, or \
                     choose a batch size and a number of streams with a larger common divisor",
                    set + 1
                ));
            }
            let rows = (part * rows_per_stream) as usize;
            let own = counts[first..first + share.shards].to_vec();
            let its = selected.as_mut().map(|selected| selected.by_ref().take(share.shards).collect());
            let seed = if set == 0 { seed } else { key(&[seed, SET, set as u64]) };
            let order = Order::new(own, its, seed, part as usize, window, rows).map_err(|error| match error {
                Error::TooFewSamples { samples, .. } if shares.len() > 1 => Error::Settings(format!(
                    "dataset {} has {samples} samples, fewer than its {rows} rows of a batch of {batch_size}; give it \
                     more shards or a smaller weight",
                    set + 1
                )),
                error => error,
            })?;
            sets.push(order);
            first_shards.push(first as u32);
            first += share.shards;
        }
        let streams_of_sets = assign(&parts);
        Ok(Self {
            sets,
            first_shards,
            counts,
            streams: streams_of_sets,
            wanted: streams,
            batch_size: batch_size as u64,
            rows_per_stream,
        })
    }

    /// The order of each dataset.
    pub(crate) fn sets(&self) -> &[Order] {
        &self.sets
    }

    /// Number of a dataset's first shard in the list of all shards.
    pub(crate) fn first_shard(&self, set: usize) -> u32 {
        self.first_shards.get(set).copied().unwrap_or_default()
    }

    /// Number of samples of each shard, in the order listed.
    pub(crate) fn counts(&self) -> &[u32] {
        &self.counts
    }

    /// Number of samples in an epoch: of all shards, or of the selection.
    pub(crate) fn samples(&self) -> u64 {
        self.sets.iter().map(Order::samples).sum()
    }

    /// Number of streams in use, over all datasets.
    pub(crate) fn streams(&self) -> u64 {
        self.streams.len() as u64
    }

    /// Number of batches in an epoch of the mixture: the number of samples of all datasets divided by the batch size.
    pub(crate) fn steps_per_epoch(&self) -> u64 {
        self.samples() / self.batch_size
    }

    /// Number of rows of a batch that come from each stream.
    pub(crate) fn rows_per_stream(&self) -> u64 {
        self.rows_per_stream
    }

    /// The streams of rank `rank` of `world_size` ranks.
    ///
    /// # Errors
    /// The number of ranks does not divide the number of streams, or `rank` is not below `world_size`.
    pub(crate) fn streams_of(&self, rank: usize, world_size: usize) -> Result<Range<u64>, Error> {
        if rank >= world_size {
            return Err(Error::Settings(format!(
                "rank {rank} does not exist: there are {world_size} ranks, numbered from 0"
            )));
        }
        let (rank, world, streams) = (rank as u64, world_size as u64, self.streams());
        if !streams.is_multiple_of(world) {
            return Err(Error::Ranks {
                world_size,
                streams: self.streams.len(),
                wanted: self.wanted,
                batch_size: self.batch_size as usize,
            });
        }
        Ok(rank * streams / world..(rank + 1) * streams / world)
    }

    /// Where the rows of the batch at `at` that belong to `streams` come from, in the order of the batch.
    pub(crate) fn rows(&self, at: Position, streams: Range<u64>) -> impl Iterator<Item = Place> + '_ {
        let batches = at.epoch.saturating_mul(self.steps_per_epoch()).saturating_add(at.step);
        streams.flat_map(move |stream| {
            let (set, stream) = self.streams[stream as usize];
            let steps = self.sets[set].steps_per_epoch();
            let (epoch, step) = (batches / steps, batches % steps);
            let rows = self.rows_per_stream;
            (step * rows..(step + 1) * rows).map(move |position| Place { set, epoch, stream, position })
        })
    }
}

/// Splits `total` into integers in proportion to the weights, by the largest remainder method; ties go to the first.
fn apportion(total: u64, weights: &[f64]) -> Vec<u64> {
    let sum: f64 = weights.iter().sum();
    let exact: Vec<f64> = weights.iter().map(|weight| total as f64 * weight / sum).collect();
    let mut parts: Vec<u64> = exact.iter().map(|part| part.floor() as u64).collect();
    let mut by_remainder: Vec<usize> = (0..parts.len()).collect();
    by_remainder.sort_by(|&a, &b| (exact[b] - exact[b].floor()).total_cmp(&(exact[a] - exact[a].floor())));
    let left = total.saturating_sub(parts.iter().sum());
    for &set in by_remainder.iter().cycle().take(left as usize) {
        parts[set] += 1;
    }
    parts
}

/// Dataset and stream number of every stream. The streams of each dataset are spread evenly, and with them its rows
/// over the ranks.
fn assign(parts: &[u64]) -> Vec<(usize, u64)> {
    let total: u64 = parts.iter().sum();
    let mut assigned = vec![0; parts.len()];
    (1..=total)
        .map(|number| {
            // How far a dataset is behind its share of the streams so far, times the total.
            let behind = |set: usize| i128::from(parts[set] * number) - i128::from(assigned[set] * total);
            let open = (0..parts.len()).filter(|&set| assigned[set] < parts[set]);
            let set = open.max_by_key(|&set| (behind(set), std::cmp::Reverse(set))).unwrap_or_default();
            assigned[set] += 1;
            (set, assigned[set] - 1)
        })
        .collect()
}

#[cfg(test)]
mod tests;
