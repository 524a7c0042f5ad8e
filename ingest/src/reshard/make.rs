//! Writes the new shards of a plan, each by one process of those that share the work.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use arrow_schema::SchemaRef;
use bytes::Bytes;
use concepts::checksums::{Checksums, sha256};
use program::{Progress, interrupted};
use serde_json::{Value, json};
use storage::Location;

use super::plan::{Block, Plan};
use crate::dataset::claim::{Claim, Claims};
use crate::dataset::publish::{self, Files};
use crate::dataset::staging::Staging;
use crate::dataset::{Dataset, ShardStats};
use crate::error::Error;
use crate::messages::counted;
use crate::parallel::{StopFlag, run_parallel};
use crate::problem::Status;
use crate::rewrite::companions::Carried;
use crate::rewrite::samples::Samples;
use crate::rewrite::{self, tables};

/// How often this process looks whether others have finished their shards, in a folder and in an object store.
const LOOK_EVERY: [Duration; 2] = [Duration::from_millis(200), Duration::from_secs(5)];

/// Counts of a run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Totals {
    /// New shards of this job.
    pub shards: u64,
    /// Of these, shards that this run wrote.
    pub written: u64,
    /// Samples of the whole dataset, of which this job may make a part.
    pub samples: u64,
    /// Samples of the shards that this run wrote.
    pub samples_written: u64,
    /// What only some of the shards had, or had in different forms: a line each.
    pub left_out: Vec<String>,
}

impl Totals {
    /// The summary object of `--json`.
    pub fn json(&self, seconds: f64) -> Value {
        json!({
            "shards": self.shards,
            "shards_written": self.written,
            "samples": self.samples,
            "samples_written": self.samples_written,
            "left_out": self.left_out,
            "seconds": seconds,
        })
    }
}

/// Makes the new shards.
pub(super) struct Maker<'a> {
    pub(super) dataset: Dataset,
    pub(super) shards: &'a [Location],
    pub(super) taken: &'a [Option<Vec<u32>>],
    pub(super) plan: Plan,
    pub(super) carried: Carried,
    pub(super) columns: SchemaRef,
    pub(super) claims: Mutex<Claims>,
    pub(super) state: Mutex<(Totals, Progress)>,
    pub(super) threads: usize,
    /// If a block is made from more shards, they are not kept open.
    pub(super) most_open: u64,
}

/// A block whose samples have been read.
struct Read {
    block: Block,
    sources: Vec<Samples>,
}

impl Maker<'_> {
    /// Makes all new shards of this job, or waits for other processes that make them.
    pub(super) fn make_all(self) -> Result<Totals, Error> {
        let part = self.dataset.part;
        let mut left: BTreeSet<u32> =
            (0..self.plan.new_shards() as u32).filter(|&new| part.owns(new)).collect();
        loop {
            for block in 0..self.plan.blocks() {
                let of_block: Vec<u32> = self.plan.new_of(block).filter(|new| left.contains(new)).collect();
                for new in self.make_block(block, &of_block)? {
                    left.remove(&new);
                }
            }
            if left.is_empty() {
                break;
            }
            eprintln!("waiting for {} that other processes are making", counted(left.len() as u64, "shard"));
            self.wait(&mut left)?;
        }
        let (totals, progress) = self.state.into_inner().unwrap_or_else(PoisonError::into_inner);
        if totals.written > 0 {
            progress.finish(&format!("{} written", counted(totals.written, "shard")));
        }
        Ok(totals)
    }

    /// Waits until a shard of another process is complete, or has lost its process.
    fn wait(&self, left: &mut BTreeSet<u32>) -> Result<(), Error> {
        loop {
            for new in left.clone() {
                let name = Dataset::name(new);
                if self.dataset.finished(new)?.is_some() {
                    left.remove(&new);
                } else if self.lock_claims().take(&name)?.is_some() {
                    // It is free: the claim ends here, and the next pass makes it.
                    return Ok(());
                }
            }
            if left.is_empty() {
                return Ok(());
            }
            if interrupted() {
                return Err(Error::interrupted());
            }
            std::thread::sleep(LOOK_EVERY[usize::from(self.dataset.folder.is_remote())]);
        }
    }

    fn lock_claims(&self) -> std::sync::MutexGuard<'_, Claims> {
        self.claims.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes those of these shards of a block that no other process makes; returns those that are complete now.
    fn make_block(&self, block: u64, new: &[u32]) -> Result<Vec<u32>, Error> {
        let (next, complete) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
        // Read when the first shard is claimed.
        let read: OnceLock<Read> = OnceLock::new();
        let reading = Mutex::new(());
        run_parallel(self.threads.min(new.len()), |stop| {
            while let Some(&new) = new.get(next.fetch_add(1, Ordering::Relaxed)) {
                stop.check()?;
                let name = Dataset::name(new);
                if self.dataset.finished(new)?.is_none() {
                    let claim = self.lock_claims().take(&name)?;
                    let Some(claim) = claim else { continue };
                    publish::recover_shard(&self.dataset.folder, &name)?;
                    if self.dataset.finished(new)?.is_none() {
                        let read = {
                            let _one = reading.lock().unwrap_or_else(PoisonError::into_inner);
                            if read.get().is_none() {
                                let made = self.read(block)?;
                                read.get_or_init(|| made);
                            }
                            read.get()
                        };
                        // It was just read.
                        let Some(read) = read else { continue };
                        self.make(new, read, &claim, stop)?;
                    }
                }
                complete.lock().unwrap_or_else(PoisonError::into_inner).push(new);
            }
            Ok(())
        })?;
        Ok(complete.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    /// Reads what belongs to the samples of a block.
    fn read(&self, block: u64) -> Result<Read, Error> {
        let block = self.plan.block(block);
        let (next, found) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
        run_parallel(self.threads.min(block.sources.len()), |stop| {
            loop {
                stop.check()?;
                let number = next.fetch_add(1, Ordering::Relaxed);
                let Some((shard, range)) = block.sources.get(number) else { return Ok(()) };
                let wanted = |position: u32, _: &str| match &self.taken[*shard] {
                    None => range.contains(&(position as usize)),
                    Some(taken) => taken[range.clone()].binary_search(&position).is_ok(),
                };
                let mut samples = Samples::read(&self.shards[*shard], wanted, &self.columns, &self.carried)?;
                if samples.len() != range.len() {
                    return Err(Error::input(&self.shards[*shard], "changed while it was read: start again"));
                }
                if block.sources.len() as u64 > self.most_open {
                    samples.close();
                }
                found.lock().unwrap_or_else(PoisonError::into_inner).push((number, samples));
            }
        })?;
        let mut found = found.into_inner().unwrap_or_else(PoisonError::into_inner);
        found.sort_by_key(|(number, _)| *number);
        Ok(Read { block, sources: found.into_iter().map(|(_, samples)| samples).collect() })
    }

    /// Writes the files of a new shard.
    fn make(&self, new: u32, read: &Read, claim: &Claim, stop: &StopFlag) -> Result<(), Error> {
        let Read { block, sources } = read;
        let order = block.order(new);
        let (tar_name, table_name) = (self.dataset.tar(new), self.dataset.table(new));
        let staging = Staging::new(&self.dataset.folder)?;
        let made = staging.path(&tar_name);
        let tar = rewrite::write_tar(&made, sources, order, stop, || claim.confirm())?;
        let rows: Vec<_> = sources.iter().map(|source| &source.rows).collect();
        let rows = tables::interleaved(&table_name, &rows, order)?;
        let mut described = rewrite::companions(&tar_name, &tar, sources, order, &self.carried)?;
        described.push((table_name.clone(), tables::bytes(&table_name, &rows, tar.images.iter().copied())?));
        let mut sums = Checksums::default();
        sums.set(&tar_name.file_name(), tar.sha256);
        for (path, bytes) in &described {
            sums.set(&path.file_name(), sha256(bytes));
        }
        described.push((self.dataset.sums(new), sums.text().into()));
        let stats = self.dataset.stats(new);
        let stats = (stats.clone(), counts(&stats, order.len() as u64)?);
        publish::publish(&self.dataset.folder, &Files { tar: tar_name, described, stats }, &made, false)?;
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (totals, progress) = &mut *state;
        totals.written += 1;
        totals.samples_written += order.len() as u64;
        let written = totals.written;
        progress.advance(order.len() as u64, || format!("{} written", counted(written, "shard")));
        Ok(())
    }
}

/// The statistics of a new shard. Without times, so that a shard is the same in every run.
fn counts(path: &Location, samples: u64) -> Result<Bytes, Error> {
    let stats = ShardStats {
        count: samples,
        successes: samples,
        status_dict: [(Status::Success.name().to_owned(), samples)].into(),
        ..ShardStats::default()
    };
    let text = serde_json::to_string_pretty(&stats).map_err(|error| Error::input(path, error.to_string()))?;
    Ok(text.into())
}
