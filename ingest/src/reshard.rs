//! `ingest reshard`: selected samples of shards to new shards, with everything that belongs to them. What a new shard contains is a
//! function of the input alone (`plan.rs`), so that a run can be resumed, and shared by several processes.

mod plan;

use std::collections::{BTreeSet, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use arrow_schema::SchemaRef;
use bytes::Bytes;
use concepts::checksums::{Checksums, hexadecimal, sha256};
use loader::Identity;
use loader::shards::{self, Archive, Index, selection};
use program::{Progress, interrupted};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use storage::Location;

use self::plan::{Block, Plan};
use crate::dataset::claim::{Claim, Claims};
use crate::dataset::publish::{self, Files};
use crate::dataset::staging::Staging;
use crate::dataset::{Dataset, Part, RESHARD, ShardStats, VERSION};
use crate::error::Error;
use crate::image;
use crate::messages::counted;
use crate::parallel::{StopFlag, run_parallel};
use crate::problem::Status;
use crate::rewrite::companions::{self, Carried};
use crate::rewrite::samples::Samples;
use crate::rewrite::{self, tables};

/// How often this process looks whether others have finished their shards, in a folder and in an object store.
const LOOK_EVERY: [Duration; 2] = [Duration::from_millis(200), Duration::from_secs(5)];

/// What the system allows at least, if it does not say how many files may be open.
const FEWEST_FILES: u64 = 256;

/// What to make.
#[derive(Debug, Clone)]
pub struct Options {
    /// The samples to take; without it, all.
    pub selection: Option<Location>,
    /// Folder of the new shards.
    pub out: Location,
    /// Samples per new shard.
    pub size: u32,
    /// Mixes the samples with this seed.
    pub shuffle: Option<u64>,
    /// Whether tars are compressed (`.tar.zst`).
    pub compress: bool,
    /// Which of the new shards this process makes.
    pub part: Part,
    /// Number of threads.
    pub threads: usize,
}

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

/// Writes the samples of the complete shards in `input` (a folder, a file or a brace list).
///
/// # Errors
/// Before anything is written: the selection is not one of these shards, or has other weights than 0 and 1; two samples have the same
/// key; tables do not fit together; a sidecar or signals are of another version, or of another state of their shard. Later: a shard
/// cannot be read, or a new one cannot be written.
pub fn reshard(input: &Location, options: &Options) -> Result<Totals, Error> {
    publish::recover_all(input)?;
    let shards = shards::list(std::slice::from_ref(input))?;
    if let Some(incomplete) = shards::incomplete([input])?.first() {
        let problem = "incomplete (no _stats.json): finish it with the command that makes it first";
        return Err(Error::input(incomplete, problem));
    }
    let indexed = read_indexes(&shards, options.threads)?;
    let taken = match &options.selection {
        Some(path) => {
            let contents: Vec<Identity> = indexed.iter().map(|index| index.identity).collect();
            let counts: Vec<u32> = indexed.iter().map(|index| index.samples).collect();
            let taken = selection::taken(path, &shards, &counts, &contents)?;
            taken.into_iter().map(Some).collect()
        }
        None => vec![None; shards.len()],
    };
    let numbers: Vec<usize> = taken
        .iter()
        .zip(&indexed)
        .map(|(taken, index)| taken.as_ref().map_or(index.samples as usize, Vec::len))
        .collect();
    let plan = Plan::new(&numbers, options.size, options.shuffle);
    if plan.samples() == 0 {
        let of = options.selection.as_ref().unwrap_or(input);
        return Err(Error::input(of, "it has no samples, so there is nothing to put into shards"));
    }
    refuse_equal_keys(&shards, &indexed, &taken)?;
    let used: BTreeSet<usize> = plan.shards.iter().copied().collect();
    let of_used = |shard: &usize| (shards[*shard].clone(), indexed[*shard].samples);
    let (paths, counts): (Vec<Location>, Vec<u32>) = used.iter().map(of_used).unzip();
    let (carried, left_out) = companions::common(&paths, &counts)?;
    let columns = columns(&paths)?;
    let dataset = Dataset {
        folder: options.out.clone(),
        shard_size: options.size,
        compress: options.compress,
        part: options.part,
        requests: false,
        image: image::Settings::default(),
    };
    dataset.claim_with(&manifest(options, &shards, &indexed, &taken, &carried))?;
    drop(indexed);
    for line in &left_out {
        eprintln!("{line}");
    }
    let new = (0..plan.new_shards() as u32).filter(|&new| options.part.owns(new));
    let totals =
        Totals { shards: new.count() as u64, samples: plan.samples(), left_out, ..Totals::default() };
    let progress = Progress::new("resharding", "samples", 0);
    let maker = Maker {
        dataset,
        shards: &shards,
        taken: &taken,
        plan,
        carried,
        columns,
        claims: Mutex::new(Claims::new(&options.out)),
        state: Mutex::new((totals, progress)),
        threads: options.threads,
        most_open: rlimit::increase_nofile_limit(u64::MAX).unwrap_or(FEWEST_FILES) / 2,
    };
    maker.make_all()
}

/// What is known of a shard.
struct Indexed {
    samples: u32,
    identity: Identity,
    /// A hash of each key.
    keys: Vec<u64>,
}

fn read_indexes(shards: &[Location], threads: usize) -> Result<Vec<Indexed>, Error> {
    let progress = Mutex::new(Progress::new("reading", "shards", shards.len() as u64));
    let (next, found) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    run_parallel(threads.min(shards.len()), |stop| {
        loop {
            stop.check()?;
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(shard) = shards.get(number) else { return Ok(()) };
            let index = Index::load(&Archive::open(shard)?)?;
            let samples = index.len() as u32;
            let keys = (0..samples).map(|sample| shards::image_check(index.key(sample).as_bytes())).collect();
            let indexed = Indexed { samples, identity: index.identity(), keys };
            found.lock().unwrap_or_else(PoisonError::into_inner).push((number, indexed));
            progress.lock().unwrap_or_else(PoisonError::into_inner).advance(1, String::new);
        }
    })?;
    let mut found = found.into_inner().unwrap_or_else(PoisonError::into_inner);
    found.sort_by_key(|(number, _)| *number);
    Ok(found.into_iter().map(|(_, indexed)| indexed).collect())
}

/// Samples keep their keys, of which a tar may have each only once.
fn refuse_equal_keys(
    shards: &[Location],
    indexed: &[Indexed],
    taken: &[Option<Vec<u32>>],
) -> Result<(), Error> {
    let mut all: Vec<(u64, u32)> = Vec::new();
    for (shard, (index, taken)) in (0..).zip(indexed.iter().zip(taken)) {
        match taken {
            None => all.extend(index.keys.iter().map(|&key| (key, shard))),
            Some(taken) => all.extend(taken.iter().map(|&sample| (index.keys[sample as usize], shard))),
        }
    }
    all.sort_unstable();
    for [(_, one), (_, other)] in all.array_windows().filter(|[a, b]| a.0 == b.0) {
        let (one, other) = (&shards[*one as usize], &shards[*other as usize]);
        if let Some(key) = shared_key(one, other)? {
            let problem = format!(
                "sample {key} has the same key as one of {other}, and samples keep their keys: reshard the two shards one by one"
            );
            return Err(Error::input(one, problem));
        }
    }
    Ok(())
}

/// A key that two shards have, or one shard twice. Different keys may have the same hash.
fn shared_key(one: &Location, other: &Location) -> Result<Option<String>, Error> {
    let mut seen = HashSet::new();
    let (mut shared, shards) = (None, if one == other { vec![one] } else { vec![one, other] });
    for shard in shards {
        let index = Index::load(&Archive::open(shard)?)?;
        for sample in 0..index.len() as u32 {
            if !seen.insert(index.key(sample).to_owned()) {
                shared.get_or_insert_with(|| index.key(sample).to_owned());
            }
        }
    }
    Ok(shared)
}

/// The columns of the new tables: those of all tables, and those of shards without one.
fn columns(shards: &[Location]) -> Result<SchemaRef, Error> {
    let mut found = Vec::new();
    for shard in shards {
        let path = shards::table_path(shard);
        let columns = if storage::exists(&path)? { tables::schema(&path)? } else { tables::minimal_schema() };
        found.push((path, columns));
    }
    tables::united(found.iter().map(|(path, columns)| (path, columns)))
}

fn manifest(
    options: &Options,
    shards: &[Location],
    indexed: &[Indexed],
    taken: &[Option<Vec<u32>>],
    carried: &Carried,
) -> Value {
    let (mut content, mut chosen) = (Sha256::new(), Sha256::new());
    for (shard, (index, taken)) in shards.iter().zip(indexed.iter().zip(taken)) {
        let Identity { places, images, captions } = index.identity;
        content.update(format!("{} {places} {images:?} {captions:?}\n", shard.file_name()));
        if let Some(taken) = taken {
            chosen.update((taken.len() as u64).to_le_bytes());
            for sample in taken {
                chosen.update(sample.to_le_bytes());
            }
        }
    }
    let digits = |hash: Sha256| hexadecimal(&hash.finalize()[..8]);
    json!({
        "version": VERSION,
        "input": {
            "command": RESHARD,
            "from": { "shards": shards.len(), "hash": digits(content) },
            "selection": options.selection.as_ref().map(|_| digits(chosen)),
            "shuffle": options.shuffle,
            "mentions": carried.mentions,
            "signals": carried.producers,
        },
        "shard_size": options.size,
        "compressed": options.compress,
    })
}

/// Makes the new shards.
struct Maker<'a> {
    dataset: Dataset,
    shards: &'a [Location],
    taken: &'a [Option<Vec<u32>>],
    plan: Plan,
    carried: Carried,
    columns: SchemaRef,
    claims: Mutex<Claims>,
    state: Mutex<(Totals, Progress)>,
    threads: usize,
    /// If a block is made from more shards, they are not kept open.
    most_open: u64,
}

/// A block whose samples have been read.
struct Read {
    block: Block,
    sources: Vec<Samples>,
}

impl Maker<'_> {
    fn make_all(self) -> Result<Totals, Error> {
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
