//! The order of samples: a pure function of seed, epoch and the shards' sample counts. No input or output here.
//!
//! # Specification
//! Given the shards in the order they are listed, with `n_0, n_1, ..` samples and `N` in all; a seed; `S` streams;
//! a window `W`; a global batch of `B` samples. `S` is the greatest common divisor of the streams asked for and
//! `B`, so that `q = B / S` is whole. In epoch `e`:
//! 1. The shards are permuted by the key (seed, e, `SHARDS`). Their samples, in tar order, one shard after the
//!    other, are the *list*: positions `0..N`.
//! 2. The list is cut into `S` streams: stream `s` holds positions `floor(s N / S) .. floor((s+1) N / S)`.
//! 3. A stream of `L` samples is cut, by the same rule, into `ceil(L / W)` windows, and window `w` is permuted by
//!    the key (seed, e, `WINDOW`, s, w).
//! 4. Step `t` takes positions `t q .. (t+1) q` of every stream. Row `s q + i` of the global batch is position
//!    `t q + i` of stream `s`. The epoch has `floor(N / B)` steps.
//! 5. Rank `r` of `R` (which divides `S`) owns streams `r S / R .. (r+1) S / R`, that is, rows
//!    `r B / R .. (r+1) B / R`.
//!
//! # Invariants
//! - The global batches do not depend on `R`, on threads or on where a run was resumed.
//! - No sample comes twice in an epoch; fewer than `B` are left out, and which ones changes with the epoch.
//! - Any position is reached in constant time after an epoch's shard list (one entry a shard) is permuted.
//! - A rank reads from about `N / R` neighbouring samples of the list, in windows of `W`.
//!
//! # Broken samples
//! Position `p` of a stream, if its sample is broken, is filled with the next good sample of that stream:
//! `p + 1`, `p + 2`, .. , going on at the stream's start after its end. That one then also comes at its own
//! position, so a broken sample costs one repetition and moves nothing else: the batches remain a function of
//! the data, whatever was read before.

use std::ops::Range;

use crate::Error;
use crate::permutation::{Permutation, key};

/// Keeps the keys of shard permutations apart from those of windows.
const SHARDS: u64 = 1;
const WINDOW: u64 = 2;

/// Where a run is: the batch that comes next.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
pub struct Position {
    /// Passes over the shards before this one.
    pub epoch: u64,
    /// Batches of this epoch before this one.
    pub step: u64,
}

impl Position {
    /// The position after this one.
    #[must_use]
    pub fn next(self, steps_per_epoch: u64) -> Self {
        Self { step: self.step + 1, ..self }.normalised(steps_per_epoch)
    }

    /// The same position with its step inside the epoch: step `steps_per_epoch` is the next epoch's step 0.
    #[must_use]
    pub fn normalised(self, steps_per_epoch: u64) -> Self {
        let steps = steps_per_epoch.max(1);
        Self { epoch: self.epoch + self.step / steps, step: self.step % steps }
    }
}

/// One sample of the set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SampleId {
    /// Index of its shard in the list of shards.
    pub shard: u32,
    /// Its position in the tar.
    pub sample: u32,
}

/// The order of all epochs.
#[derive(Debug, Clone)]
pub struct Order {
    counts: Vec<u32>,
    /// Streams asked for; only for the error message.
    wanted: usize,
    plan: Plan,
}

/// The numbers of the specification, in its notation: N, S, W, B and the seed.
#[derive(Debug, Clone, Copy)]
struct Plan {
    samples: u64,
    streams: u64,
    window: u64,
    batch_size: u64,
    seed: u64,
}

impl Order {
    /// `counts`: samples of each shard, as listed. `streams` is reduced to its greatest common divisor with
    /// `batch_size` (samples of a global batch).
    ///
    /// # Errors
    /// Zeros, and fewer samples than one batch.
    pub fn new(
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
        Ok(Self { counts, wanted: streams, plan })
    }

    /// Samples of each shard, as listed.
    pub fn counts(&self) -> &[u32] {
        &self.counts
    }

    /// Samples of all shards.
    pub fn samples(&self) -> u64 {
        self.plan.samples
    }

    /// Streams in use.
    pub fn streams(&self) -> u64 {
        self.plan.streams
    }

    /// Batches of an epoch.
    pub fn steps_per_epoch(&self) -> u64 {
        self.plan.samples / self.plan.batch_size
    }

    /// Rows that each stream gives to a batch.
    pub fn rows_per_stream(&self) -> u64 {
        self.plan.batch_size / self.plan.streams
    }

    /// Streams of rank `rank` of `world_size`.
    ///
    /// # Errors
    /// Ranks that do not divide the streams; a rank outside the world.
    pub fn streams_of(&self, rank: usize, world_size: usize) -> Result<Range<u64>, Error> {
        if rank >= world_size {
            return Err(Error::Settings(format!("there is no rank {rank} among {world_size}")));
        }
        let (rank, world) = (rank as u64, world_size as u64);
        if !self.plan.streams.is_multiple_of(world) {
            return Err(Error::Ranks {
                world_size,
                streams: self.plan.streams as usize,
                wanted: self.wanted,
                batch_size: self.plan.batch_size as usize,
            });
        }
        Ok(rank * self.plan.streams / world..(rank + 1) * self.plan.streams / world)
    }

    /// The order of one epoch; takes time and memory in proportion to the shards, not to the samples.
    pub fn epoch(&self, epoch: u64) -> Epoch {
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
pub struct Epoch {
    plan: Plan,
    epoch: u64,
    /// The shards in their permuted order, each with the list position of its first sample.
    listed: Vec<(u64, u32)>,
}

impl Epoch {
    /// Samples of a stream.
    pub fn stream_len(&self, stream: u64) -> u64 {
        let stream = cut(self.plan.samples, self.plan.streams, stream);
        stream.end - stream.start
    }

    /// The sample at `position` of a stream; positions at and after the stream's length start over.
    pub fn sample(&self, stream: u64, position: u64) -> SampleId {
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

    /// The sample at a position of the list.
    fn listed(&self, position: u64) -> SampleId {
        // Of shards without samples, which start where the next one does, the last is the one that has it.
        let after = self.listed.partition_point(|&(start, _)| start <= position);
        let (start, shard) = self.listed[after - 1];
        SampleId { shard, sample: (position - start) as u32 }
    }

    /// (stream, position) of the rows that `streams` give to step `step`, in the order of the batch.
    pub fn rows(&self, step: u64, streams: Range<u64>) -> impl Iterator<Item = (u64, u64)> + use<> {
        let rows = self.plan.batch_size / self.plan.streams;
        streams
            .flat_map(move |stream| (step * rows..(step + 1) * rows).map(move |position| (stream, position)))
    }
}

/// Part `i` when `total` is cut into `parts` as equal as whole numbers allow.
fn cut(total: u64, parts: u64, i: u64) -> Range<u64> {
    let bound = |i: u64| (u128::from(i) * u128::from(total) / u128::from(parts)) as u64;
    bound(i)..bound(i + 1)
}

/// The part of [`cut`] that holds `position`.
fn part_of(total: u64, parts: u64, position: u64) -> u64 {
    // The largest i with floor(i total / parts) <= position, that is, i total < (position + 1) parts.
    (((u128::from(position) + 1) * u128::from(parts) - 1) / u128::from(total)) as u64
}

fn greatest_common_divisor(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    fn global_batch(order: &Order, epoch: &Epoch, step: u64) -> Vec<SampleId> {
        epoch
            .rows(step, 0..order.streams())
            .map(|(stream, position)| epoch.sample(stream, position))
            .collect()
    }

    /// Batches that a Python implementation of the specification gives.
    #[test]
    fn agrees_with_the_independent_implementation() {
        let cases: serde_json::Value =
            serde_json::from_str(include_str!("../tests/fixtures/order.json")).unwrap();
        for case in cases.as_array().unwrap() {
            let number = |name: &str| case[name].as_u64().unwrap();
            let counts: Vec<u32> = serde_json::from_value(case["counts"].clone()).unwrap();
            let expected: Vec<Vec<(u32, u32)>> = serde_json::from_value(case["batches"].clone()).unwrap();
            let [streams, window, batch] = ["streams", "window", "batch"].map(|name| number(name) as usize);
            let order = Order::new(counts, number("seed"), streams, window, batch).unwrap();
            let epoch = order.epoch(number("epoch"));
            assert_eq!(order.steps_per_epoch(), expected.len() as u64);
            for (step, expected) in expected.into_iter().enumerate() {
                let batch: Vec<_> = global_batch(&order, &epoch, step as u64)
                    .iter()
                    .map(|id| (id.shard, id.sample))
                    .collect();
                assert_eq!(batch, expected, "step {step} of {case}");
            }
        }
    }

    proptest! {
        #[test]
        fn every_sample_at_most_once_and_fewer_than_a_batch_left_out(
            counts in prop::collection::vec(0_u32..60, 1..12),
            seed: u64, epoch: u64, streams in 1_usize..80, window in 1_usize..50, batch_size in 1_usize..70,
        ) {
            let samples: u64 = counts.iter().map(|&n| u64::from(n)).sum();
            prop_assume!(samples >= batch_size as u64);
            let order = Order::new(counts.clone(), seed, streams, window, batch_size).unwrap();
            let epoch = order.epoch(epoch);
            let mut seen = HashSet::new();
            for step in 0..order.steps_per_epoch() {
                let batch = global_batch(&order, &epoch, step);
                prop_assert_eq!(batch.len(), batch_size);
                for id in batch {
                    prop_assert!(id.sample < counts[id.shard as usize]);
                    prop_assert!(seen.insert(id), "{:?} comes twice", id);
                }
            }
            prop_assert!(samples - (seen.len() as u64) < batch_size as u64);
            // Streams cover the whole set, what the batches leave out included.
            for stream in 0..order.streams() {
                seen.extend((0..epoch.stream_len(stream)).map(|position| epoch.sample(stream, position)));
            }
            prop_assert_eq!(seen.len() as u64, samples);
        }

        #[test]
        fn any_number_of_ranks_sees_the_same_batches(
            seed: u64, power in 0_u32..7, per_stream in 1_usize..4, world in 1_usize..=64, step_choice: u64,
        ) {
            let streams = 1_usize << power;
            let batch_size = streams * per_stream;
            let order = Order::new(vec![100, 57, 200, 31], seed, streams, 32, batch_size).unwrap();
            let epoch = order.epoch(seed ^ 5);
            let step = step_choice % order.steps_per_epoch();
            let ranks: Result<Vec<_>, _> = (0..world).map(|rank| order.streams_of(rank, world)).collect();
            prop_assert_eq!(ranks.is_ok(), streams.is_multiple_of(world));
            if let Ok(ranks) = ranks {
                let parts: Vec<_> = ranks.iter().map(|streams| epoch.rows(step, streams.clone()).count()).collect();
                prop_assert!(parts.iter().all(|&rows| rows == batch_size / world));
                let joined: Vec<_> =
                    ranks.into_iter().flat_map(|streams| epoch.rows(step, streams)).map(|(s, p)| epoch.sample(s, p)).collect();
                prop_assert_eq!(joined, global_batch(&order, &epoch, step));
            }
        }

        #[test]
        fn parts_are_found_by_position(total in 1_u64..5000, parts in 1_u64..100, position: u64) {
            prop_assume!(parts <= total);
            let position = position % total;
            let range = cut(total, parts, part_of(total, parts, position));
            prop_assert!(range.contains(&position));
            prop_assert!((range.end - range.start).abs_diff(total / parts) <= 1);
        }
    }

    #[test]
    fn epochs_and_seeds_differ_and_shards_move() {
        let batches = |seed, epoch| {
            let order = Order::new(vec![50; 8], seed, 4, 64, 40).unwrap();
            let epoch = order.epoch(epoch);
            (0..order.steps_per_epoch())
                .flat_map(|step| global_batch(&order, &epoch, step))
                .collect::<Vec<_>>()
        };
        let first = batches(0, 0);
        assert_eq!(first, batches(0, 0));
        assert_ne!(first, batches(0, 1));
        assert_ne!(first, batches(1, 0));
    }

    /// With one shard, the same few samples must not be left out of every epoch.
    #[test]
    fn what_is_left_out_changes() {
        let order = Order::new(vec![390], 0, 64, 4096, 32).unwrap();
        let mut seen = HashSet::new();
        for epoch in 0..4 {
            let epoch = order.epoch(epoch);
            seen.extend((0..order.steps_per_epoch()).flat_map(|step| global_batch(&order, &epoch, step)));
        }
        assert_eq!(seen.len(), 390);
    }

    #[test]
    fn streams_shrink_to_a_divisor_of_the_batch() {
        let order = |streams, batch| Order::new(vec![1000], 0, streams, 10, batch);
        assert_eq!(order(64, 32).unwrap().streams(), 32);
        assert_eq!(order(64, 100).unwrap().streams(), 4);
        assert_eq!(order(64, 256).unwrap().rows_per_stream(), 4);
        let error = order(64, 100).unwrap().streams_of(0, 8).unwrap_err().to_string();
        assert!(error.contains("8 ranks cannot share 4 streams"), "{error}");
        assert!(order(64, 64).unwrap().streams_of(8, 8).is_err());
        assert!(order(64, 1001).unwrap_err().to_string().contains("1000 samples"));
        assert!(order(0, 10).is_err() && order(4, 0).is_err());
    }

    /// 400 million samples in 40,000 shards: any position at once, without a list of the samples.
    #[test]
    fn a_large_set_is_entered_anywhere() {
        let order = Order::new(vec![10_000; 40_000], 3, 64, 4096, 4096).unwrap();
        let started = std::time::Instant::now();
        let epoch = order.epoch(7);
        let batch = global_batch(&order, &epoch, 10_000_000 / 4096);
        assert_eq!(batch.len(), 4096);
        assert!(started.elapsed() < std::time::Duration::from_secs(2), "took {:?}", started.elapsed());
        assert_eq!(std::mem::size_of_val(epoch.listed.as_slice()), 40_000 * 16);
    }

    #[test]
    fn positions_go_on_into_the_next_epoch() {
        let at = |epoch, step| Position { epoch, step };
        assert_eq!(at(0, 8).next(10), at(0, 9));
        assert_eq!(at(0, 9).next(10), at(1, 0));
        assert_eq!(at(2, 25).normalised(10), at(4, 5));
        assert_eq!(at(2, 0).normalised(10), at(2, 0));
    }
}
