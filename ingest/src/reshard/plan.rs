//! Which sample of which shard goes into which new shard: a function of the shards, the selection and the seed alone.

use std::ops::Range;

use sha2::{Digest, Sha256};

use crate::rewrite::tables::Origin;

/// Shards whose samples are mixed, or read together.
const MIXED: u64 = 32;
const TOGETHER: u64 = 16;

/// The plan of a run.
#[derive(Debug)]
pub(super) struct Plan {
    /// The shards in the order in which they are read, and the number of the first of their samples in that order.
    pub(super) shards: Vec<usize>,
    starts: Vec<u64>,
    /// Samples per new shard.
    size: u64,
    /// New shards that are made from the same shards, whose samples are mixed if there is a seed.
    per_block: u64,
    seed: Option<u64>,
}

/// New shards that are made from the same shards.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Block {
    /// Their numbers.
    pub(super) new: Range<u32>,
    /// Of each shard that they are made from, its number and the range of its selected samples.
    pub(super) sources: Vec<(usize, Range<usize>)>,
    /// The samples of the new shards, one after the other.
    order: Vec<Origin>,
    size: usize,
}

impl Plan {
    /// For shards with these numbers of selected samples. With a seed, the samples of each [`MIXED`] shards, which are drawn at
    /// random, are mixed.
    pub(super) fn new(taken: &[usize], size: u32, seed: Option<u64>) -> Self {
        let mut shards: Vec<usize> = (0..taken.len()).filter(|&shard| taken[shard] > 0).collect();
        if let Some(seed) = seed {
            shards.sort_by_key(|shard| Sha256::digest(format!("reshard\n{seed}\nshard {shard}")));
        }
        let mut starts = vec![0];
        let mut total = 0;
        for &shard in &shards {
            total += taken[shard] as u64;
            starts.push(total);
        }
        let size = u64::from(size);
        let together = if seed.is_some() { MIXED } else { TOGETHER };
        // As many samples as these shards have on average.
        let samples = together * total.div_ceil(shards.len().max(1) as u64);
        Self { shards, starts, size, per_block: samples.div_ceil(size).max(1), seed }
    }

    /// Number of samples.
    pub(super) fn samples(&self) -> u64 {
        self.starts.last().copied().unwrap_or_default()
    }

    /// Number of new shards.
    pub(super) fn new_shards(&self) -> u64 {
        self.samples().div_ceil(self.size)
    }

    /// Number of blocks.
    pub(super) fn blocks(&self) -> u64 {
        self.new_shards().div_ceil(self.per_block)
    }

    /// The numbers of the new shards of a block.
    pub(super) fn new_of(&self, block: u64) -> Range<u32> {
        let first = block * self.per_block;
        first as u32..(first + self.per_block).min(self.new_shards()) as u32
    }

    pub(super) fn block(&self, block: u64) -> Block {
        let new = self.new_of(block);
        let (from, to) =
            (u64::from(new.start) * self.size, (u64::from(new.end) * self.size).min(self.samples()));
        let (mut sources, mut order) = (Vec::new(), Vec::new());
        let first = self.starts.partition_point(|&start| start <= from).saturating_sub(1);
        for (&shard, bounds) in self.shards[first..].iter().zip(self.starts[first..].windows(2)) {
            if bounds[0] >= to {
                break;
            }
            let range = from.max(bounds[0]) - bounds[0]..to.min(bounds[1]) - bounds[0];
            let range = range.start as usize..range.end as usize;
            order.extend((0..range.len()).map(|sample| (sources.len(), sample)));
            sources.push((shard, range));
        }
        if let Some(seed) = self.seed {
            mix(&mut order, seed, block);
        }
        Block { new, sources, order, size: self.size as usize }
    }
}

impl Block {
    /// The samples of a new shard of this block.
    pub(super) fn order(&self, new: u32) -> &[Origin] {
        let first = (new - self.new.start) as usize * self.size;
        &self.order[first..(first + self.size).min(self.order.len())]
    }
}

/// A random order: sorted by numbers that are all different, which SplitMix64 gives (Steele, Lea and Flood, 2014).
fn mix(order: &mut Vec<Origin>, seed: u64, block: u64) {
    const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;
    let digest = Sha256::digest(format!("reshard\n{seed}\nblock {block}"));
    let mut state = digest.iter().take(8).fold(0u64, |number, &byte| number << 8 | u64::from(byte));
    let mut next = || {
        state = state.wrapping_add(GOLDEN);
        let mut number = state;
        number = (number ^ (number >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        number = (number ^ (number >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        number ^ (number >> 31)
    };
    let mut numbered: Vec<(u64, Origin)> = order.drain(..).map(|sample| (next(), sample)).collect();
    numbered.sort_unstable_by_key(|&(number, _)| number);
    order.extend(numbered.into_iter().map(|(_, sample)| sample));
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// The shard and the number among its selected samples of every sample of each new shard.
    fn all(plan: &Plan) -> Vec<Vec<(usize, usize)>> {
        let mut found = Vec::new();
        for number in 0..plan.blocks() {
            let block = plan.block(number);
            assert_eq!(block.new, plan.new_of(number));
            for new in block.new.clone() {
                assert_eq!(new as usize, found.len());
                let of = |&(source, sample): &Origin| {
                    let (shard, range) = &block.sources[source];
                    (*shard, range.start + sample)
                };
                found.push(block.order(new).iter().map(of).collect());
            }
        }
        found
    }

    #[test]
    fn without_a_seed_samples_stay_in_order() {
        let plan = Plan::new(&[3, 0, 5, 1], 2, None);
        assert_eq!((plan.samples(), plan.new_shards()), (9, 5));
        let expected = [
            vec![(0, 0), (0, 1)],
            vec![(0, 2), (2, 0)],
            vec![(2, 1), (2, 2)],
            vec![(2, 3), (2, 4)],
            vec![(3, 0)],
        ];
        assert_eq!(all(&plan), expected);
        assert_eq!(Plan::new(&[0, 0], 2, None).new_shards(), 0);
    }

    #[test]
    fn every_sample_comes_once_whatever_the_sizes() {
        for (shards, each, size, seed) in [
            (100, 7, 10, None),
            (100, 7, 10, Some(1)),
            (200, 1, 64, Some(2)),
            (3, 50, 4, Some(3)),
            (70, 9, 1000, Some(4)),
        ] {
            let taken: Vec<usize> = (0..shards).map(|shard| each + shard % 3).collect();
            let new = all(&Plan::new(&taken, size, seed));
            assert!(new[..new.len() - 1].iter().all(|samples| samples.len() == size as usize));
            let distinct: BTreeSet<_> = new.iter().flatten().collect();
            let total: usize = taken.iter().sum();
            assert_eq!((distinct.len(), new.iter().map(Vec::len).sum()), (total, total));
            assert_eq!(new, all(&Plan::new(&taken, size, seed)), "a function of its input");
        }
    }

    #[test]
    fn a_seed_mixes_samples_over_shards() {
        let taken = [100; 40];
        let new = all(&Plan::new(&taken, 100, Some(7)));
        assert_ne!(new, all(&Plan::new(&taken, 100, Some(8))));
        // Of 32 shards mixed, a new one of 100 samples misses (31 / 32)^100 = 4 %, so it has about 30 of them.
        for samples in &new[..32] {
            let shards: BTreeSet<usize> = samples.iter().map(|&(shard, _)| shard).collect();
            assert!(shards.len() > 20, "{}", shards.len());
        }
    }
}
