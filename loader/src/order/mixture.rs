//! Several sets side by side in every batch: see the specification in [`crate::order`]. No input or output here.

use std::ops::Range;

use super::{Order, Position, greatest_common_divisor};
use crate::Error;
use crate::permutation::key;

/// Keeps the seeds of sets apart from other keys.
const SET: u64 = 5;

/// One set among those that are mixed: its shards follow those of the set before it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Share {
    /// Shards of the set.
    pub shards: usize,
    /// Its share of every batch, in proportion to the other sets' weights.
    pub weight: f64,
}

/// The order of all epochs of one or more sets.
#[derive(Debug, Clone)]
pub struct Mixture {
    sets: Vec<Order>,
    /// Of each set, in the list of all shards.
    first_shards: Vec<u32>,
    counts: Vec<u32>,
    /// Set of each stream, and the stream's number there.
    streams: Vec<(usize, u64)>,
    /// Streams asked for; only for the error message.
    wanted: usize,
    batch_size: u64,
    rows_per_stream: u64,
}

/// Where a row of a batch comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Set, by its number.
    pub set: usize,
    /// The set's own epoch.
    pub epoch: u64,
    /// Stream of the set.
    pub stream: u64,
    /// Position in the stream.
    pub position: u64,
}

impl Mixture {
    /// `counts`: samples of each shard, as listed; `shares`: the sets these belong to, one set when empty. For the
    /// rest see [`Order::new`].
    ///
    /// # Errors
    /// Zeros; weights that are not positive numbers, or too small for a stream; shares of more or fewer shards than
    /// there are; fewer samples than a set's rows of a batch.
    pub fn new(
        counts: Vec<u32>,
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
            return refuse(format!("the sets have {listed} shards together, but {} are named", counts.len()));
        }
        for (set, share) in shares.iter().enumerate() {
            if !(share.weight > 0.0 && share.weight.is_finite()) {
                return refuse(format!(
                    "the weight of set {} is {}, not a positive number",
                    set + 1,
                    share.weight
                ));
            }
        }
        if batch_size == 0 || streams == 0 {
            // Which it is, the order knows to say.
            Order::new(counts.clone(), seed, streams, window, batch_size)?;
        }
        let total = greatest_common_divisor(streams as u64, batch_size as u64);
        let rows_per_stream = batch_size as u64 / total;
        let weights: Vec<f64> = shares.iter().map(|share| share.weight).collect();
        let parts = apportion(total, &weights);
        let (mut sets, mut first_shards, mut first) = (Vec::new(), Vec::new(), 0);
        for (set, (share, &part)) in shares.iter().zip(&parts).enumerate() {
            if part == 0 {
                return refuse(format!(
                    "the weight of set {} is too small for one of {total} streams; leave the set out, or choose a batch \
                     size and a number of streams with a larger common divisor",
                    set + 1
                ));
            }
            let rows = (part * rows_per_stream) as usize;
            let own = counts[first..first + share.shards].to_vec();
            let samples: u64 = own.iter().map(|&n| u64::from(n)).sum();
            if shares.len() > 1 && samples < rows as u64 {
                return refuse(format!(
                    "set {} holds {samples} samples, fewer than its {rows} of a batch of {batch_size}; give it more \
                     shards or a smaller weight",
                    set + 1
                ));
            }
            let seed = if set == 0 { seed } else { key(&[seed, SET, set as u64]) };
            sets.push(Order::new(own, seed, part as usize, window, rows)?);
            first_shards.push(first as u32);
            first += share.shards;
        }
        let streams_of_sets = deal(&parts);
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

    /// The orders of the sets.
    pub fn sets(&self) -> &[Order] {
        &self.sets
    }

    /// Number of a set's first shard in the list of all shards.
    pub fn first_shard(&self, set: usize) -> u32 {
        self.first_shards.get(set).copied().unwrap_or_default()
    }

    /// Samples of each shard, as listed.
    pub fn counts(&self) -> &[u32] {
        &self.counts
    }

    /// Samples of all shards.
    pub fn samples(&self) -> u64 {
        self.sets.iter().map(Order::samples).sum()
    }

    /// Streams in use, of all sets.
    pub fn streams(&self) -> u64 {
        self.streams.len() as u64
    }

    /// Batches of an epoch: as many as hold the samples of all sets once.
    pub fn steps_per_epoch(&self) -> u64 {
        self.samples() / self.batch_size
    }

    /// Rows that each stream gives to a batch.
    pub fn rows_per_stream(&self) -> u64 {
        self.rows_per_stream
    }

    /// Streams of rank `rank` of `world_size`.
    ///
    /// # Errors
    /// Ranks that do not divide the streams; a rank outside the world.
    pub fn streams_of(&self, rank: usize, world_size: usize) -> Result<Range<u64>, Error> {
        if rank >= world_size {
            return Err(Error::Settings(format!("there is no rank {rank} among {world_size}")));
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

    /// Where the rows come from that `streams` give to the batch at `at`, in the order of the batch.
    pub fn rows(&self, at: Position, streams: Range<u64>) -> impl Iterator<Item = Place> + '_ {
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

/// `total` in whole parts in proportion to the weights, by largest remainder; of equal ones the first comes first.
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

/// Set and number of every stream: dealt so that each set is as evenly spread over the streams as whole ones allow,
/// and with them over the ranks.
fn deal(parts: &[u64]) -> Vec<(usize, u64)> {
    let total: u64 = parts.iter().sum();
    let mut dealt = vec![0; parts.len()];
    (1..=total)
        .map(|number| {
            // What a set should have by now beyond what it has, times the total.
            let behind = |set: usize| i128::from(parts[set] * number) - i128::from(dealt[set] * total);
            let open = (0..parts.len()).filter(|&set| dealt[set] < parts[set]);
            let set = open.max_by_key(|&set| (behind(set), std::cmp::Reverse(set))).unwrap_or_default();
            dealt[set] += 1;
            (set, dealt[set] - 1)
        })
        .collect()
}

#[cfg(test)]
mod tests;
