//! The shards of a dataset, and what has become of each sample so far.

use std::collections::HashMap;

use anyhow::{Result, anyhow, bail};
use loader::Identity;
use loader::shards::selection::{self, ShardOfSelection};
use loader::shards::{Archive, Index, stem};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use sha2::{Digest, Sha256};
use storage::Location;

use super::table::Rows;
use crate::each::each;

/// What has become of a sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// It is selected so far.
    Kept,
    /// A rule that thins frequent concepts has left it out; it may be taken back.
    Thinned,
    /// It is left out for good.
    Dropped,
}

/// A shard.
#[derive(Debug)]
pub(super) struct Shard {
    pub(super) path: Location,
    /// Its name in the selection.
    name: String,
    content: Identity,
    /// In tar order.
    pub(super) fates: Vec<Fate>,
}

impl Shard {
    /// Random numbers for this shard, whichever shards are selected from together with it.
    pub(super) fn random(&self, seed: u64, purpose: &str) -> ChaCha8Rng {
        let name = stem(&self.path).unwrap_or(&self.name).to_owned();
        ChaCha8Rng::from_seed(Sha256::digest(format!("{purpose}\n{seed}\n{name}")).into())
    }
}

/// The shards.
#[derive(Debug)]
pub(super) struct Dataset {
    pub(super) shards: Vec<Shard>,
}

impl Dataset {
    /// Reads the index of every shard. All samples are kept so far.
    pub(super) fn open(paths: Vec<Location>, threads: usize) -> Result<Self> {
        let names = selection::names(&paths);
        let read = each(paths.len(), threads, "reading", |number| {
            let index = Index::load(&Archive::open(&paths[number])?)?;
            Ok((index.len(), index.identity()))
        })?;
        let shards = paths.into_iter().zip(names).zip(read);
        let shards = shards
            .map(|((path, name), (samples, content))| Shard {
                path,
                name,
                content,
                fates: vec![Fate::Kept; samples],
            })
            .collect();
        Ok(Self { shards })
    }

    /// Number of samples with a fate.
    pub(super) fn count(&self, fate: Fate) -> u64 {
        let of = |shard: &Shard| shard.fates.iter().filter(|it| **it == fate).count() as u64;
        self.shards.iter().map(of).sum()
    }

    /// Drops all samples but these.
    pub(super) fn keep_only(&mut self, rows: &Rows, of: &str) -> Result<()> {
        let mut listed: Vec<Vec<bool>> =
            self.shards.iter().map(|shard| vec![false; shard.fates.len()]).collect();
        self.find(rows, of, |shard, sample| listed[shard][sample] = true)?;
        for (shard, listed) in self.shards.iter_mut().zip(listed) {
            for (fate, listed) in shard.fates.iter_mut().zip(listed) {
                if !listed {
                    *fate = Fate::Dropped;
                }
            }
        }
        Ok(())
    }

    /// Drops these samples.
    pub(super) fn drop_all(&mut self, rows: &Rows, of: &str) -> Result<()> {
        let mut found = Vec::new();
        self.find(rows, of, |shard, sample| found.push((shard, sample)))?;
        for (shard, sample) in found {
            self.shards[shard].fates[sample] = Fate::Dropped;
        }
        Ok(())
    }

    /// Calls `each` with the number of the shard and the position of every row.
    fn find(&self, rows: &Rows, of: &str, mut each: impl FnMut(usize, usize)) -> Result<()> {
        let paths: Vec<Location> = self.shards.iter().map(|shard| shard.path.clone()).collect();
        let names = selection::Names::new(&paths);
        for (shard, samples) in &rows.by_sample {
            let number = names.number(shard).map_err(|problem| anyhow!("cannot use {of}: {problem}"))?;
            let count = self.shards[number].fates.len();
            for &sample in samples {
                if sample as usize >= count {
                    bail!(
                        "cannot use {of}: it has sample {sample} of {shard}, which has {count} samples, numbered from 0"
                    );
                }
                each(number, sample as usize);
            }
        }
        for (shard, keys) in &rows.by_key {
            let number = names.number(shard).map_err(|problem| anyhow!("cannot use {of}: {problem}"))?;
            let index = Index::load(&Archive::open(&paths[number])?)?;
            let positions: HashMap<&str, usize> =
                (0..index.len()).map(|sample| (index.key(sample as u32), sample)).collect();
            for key in keys {
                let Some(&sample) = positions.get(key.as_str()) else {
                    bail!(
                        "cannot use {of}: it has the key {key}, but {} has no sample with it; a failed sample is not in the shard: \
                         add status = 'success'",
                        paths[number]
                    );
                };
                each(number, sample);
            }
        }
        Ok(())
    }

    /// The shards, for the selection's footer.
    pub(super) fn shards_of_selection(&self) -> Vec<ShardOfSelection> {
        let of = |shard: &Shard| ShardOfSelection {
            shard: shard.name.clone(),
            samples: shard.fates.len() as u32,
            content: Some(shard.content),
        };
        self.shards.iter().map(of).collect()
    }

    /// Number of the shard and position of every sample that is kept.
    pub(super) fn kept(&self) -> impl Iterator<Item = (u32, u32)> + '_ {
        (0..).zip(&self.shards).flat_map(|(number, shard)| {
            let kept = (0..).zip(&shard.fates).filter(|(_, fate)| **fate == Fate::Kept);
            kept.map(move |(sample, _)| (number, sample))
        })
    }
}
