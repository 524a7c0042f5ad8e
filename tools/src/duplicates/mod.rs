//! `tools duplicates`: samples whose images are those of other samples, or nearly so, by their perceptual hashes.

mod groups;
mod near;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result, bail};
use arrow_array::cast::AsArray;
use arrow_array::types::UInt64Type;
use arrow_array::{ArrayRef, RecordBatch, StringArray, UInt32Array};
use clap::ValueHint;
use loader::shards::selection;
use loader::shards::signals::{HASH, Signals};
use program::{Interrupted, Outcome, location};
use serde_json::json;
use storage::Location;

use self::groups::Groups;
use crate::each::each;
use crate::input;

/// Find samples with nearly the same image
///
/// Compares the perceptual hashes that `ingest download`, `ingest shard` or `ingest hash` have written next to the shards
/// (NNNNN.hash.parquet). Writes a Parquet table of the samples to leave out, for `tools select --without`: of each group of
/// images that are connected by near-duplicates, all but the first. With --against, instead, all samples that are near-duplicates of an image
/// of another dataset, such as one for evaluation.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Folder of shards; on disk or at an address such as s3://bucket/shards
    #[arg(value_name = "DIR", value_parser = location(), value_hint = ValueHint::AnyPath)]
    shards: Location,
    /// File or address to write; it must not exist yet
    #[arg(long, value_name = "FILE", value_parser = location(), value_hint = ValueHint::AnyPath)]
    out: Location,
    /// Compare with the images of these shards instead
    #[arg(long, value_name = "DIR", value_parser = location(), value_hint = ValueHint::AnyPath)]
    against: Option<Location>,
    /// Maximum number of bits, of 64, in which the hashes of near-duplicates differ; 0: only equal hashes
    #[arg(long, value_name = "BITS", default_value_t = 4, value_parser = clap::value_parser!(u32).range(0..=16))]
    distance: u32,
    /// Number of threads; each needs 8 bytes for every sample [default: number of cores]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1024))]
    threads: Option<u32>,
    /// Print a summary as one line of JSON
    #[arg(long)]
    json: bool,
}

/// The hashes of a dataset, in the order of its samples.
struct Hashed {
    shards: Vec<Location>,
    /// Which hash all its shards have: of the image as it was, or without its border.
    column: &'static str,
    hashes: Vec<u64>,
    /// Of each hash, the shard and the sample.
    places: Vec<(u32, u32)>,
    without: u64,
}

/// A sample to leave out, the sample that it is like, and in how many bits they differ.
struct Found {
    sample: (u32, u32),
    like: (u32, u32),
    distance: u32,
}

pub(crate) fn run(arguments: &Arguments) -> Result<Outcome> {
    if storage::exists(&arguments.out)? {
        bail!("{} exists; remove it or choose another --out", arguments.out);
    }
    let threads = arguments.threads.map_or_else(
        || std::thread::available_parallelism().map_or(1, usize::from),
        |threads| threads as usize,
    );
    let mut hashed = read(&arguments.shards, threads)?;
    let samples = hashed.hashes.len();
    let own_shards = hashed.shards.len();
    if let Some(against) = &arguments.against {
        let other = read(against, threads)?;
        if other.column != hashed.column {
            bail!(
                "the hashes of {} are {} and those of {against} are {}: run `ingest hash --force` on both, so that both are of the same \
                 kind",
                arguments.shards,
                hashed.column,
                other.column
            );
        }
        hashed.hashes.extend(other.hashes);
        hashed.places.extend(other.places.iter().map(|&(shard, sample)| (shard + own_shards as u32, sample)));
        hashed.shards.extend(other.shards);
        hashed.without += other.without;
    }
    if hashed.without > 0 {
        eprintln!(
            "note: {} samples have no hash, because their image cannot be decoded; they are not compared",
            hashed.without
        );
    }
    let distinct = distinct(&hashed.hashes);
    let search = Search { hashed: &hashed, distinct: &distinct, distance: arguments.distance, threads };
    let found = if arguments.against.is_some() { search.against(samples) } else { search.within() };
    if program::interrupted() {
        bail!(Interrupted::new(format!("{} was not written", arguments.out)));
    }
    let equal = found.iter().filter(|found| found.distance == 0).count();
    write(&arguments.out, &hashed, own_shards, &found)?;
    let of =
        if arguments.against.is_some() { "of an image of the other dataset" } else { "of an earlier sample" };
    crate::screen(&format!(
        "{:<44}{samples:>14}\n{:<44}{:>14}\n{:<44}{equal:>14}\n\nwritten to {}\n",
        "samples",
        format!("near-duplicates {of}"),
        found.len(),
        "of these, with the same hash",
        arguments.out
    ))?;
    if arguments.json {
        program::print_json(&json!({
            "samples": samples, "duplicates": found.len(), "same_hash": equal, "without_hash": hashed.without,
        }))?;
    }
    Ok(Outcome::Done)
}

/// The search for near-duplicates.
struct Search<'a> {
    hashed: &'a Hashed,
    /// The distinct hashes, sorted.
    distinct: &'a [u64],
    distance: u32,
    threads: usize,
}

impl Search<'_> {
    /// The place of a hash in `distinct`.
    fn number(&self, hash: u64) -> usize {
        self.distinct.binary_search(&hash).unwrap_or_default()
    }

    /// Hashes with the shard and sample of each, in the order of the samples.
    fn samples(&self) -> impl Iterator<Item = (u64, (u32, u32))> + '_ {
        self.hashed.hashes.iter().copied().zip(self.hashed.places.iter().copied())
    }

    /// All samples but the first of each group of connected near-duplicates.
    fn within(&self) -> Vec<Found> {
        let groups = Mutex::new(Groups::new(self.distinct.len()));
        near::pairs(self.distinct, self.distance, self.threads, |a, b| {
            lock(&groups).join(self.number(a), self.number(b));
        });
        let mut groups = groups.into_inner().unwrap_or_else(PoisonError::into_inner);
        let mut first = vec![None; self.distinct.len()];
        let mut found = Vec::new();
        for (hash, sample) in self.samples() {
            let group = groups.of(self.number(hash));
            match first[group] {
                None => first[group] = Some((hash, sample)),
                Some((of, like)) => found.push(Found { sample, like, distance: (hash ^ of).count_ones() }),
            }
        }
        found
    }

    /// Those of the first `own` samples that are near-duplicates of one of the others, with the nearest of these.
    fn against(&self, own: usize) -> Vec<Found> {
        let mut first = vec![None; self.distinct.len()];
        for (hash, sample) in self.samples().skip(own) {
            first[self.number(hash)].get_or_insert(sample);
        }
        let equal = first.iter().enumerate().map(|(hash, sample)| sample.map(|_| (0, hash)));
        let nearest: Mutex<Vec<Option<(u32, usize)>>> = Mutex::new(equal.collect());
        near::pairs(self.distinct, self.distance, self.threads, |a, b| {
            let (distance, a, b) = ((a ^ b).count_ones(), self.number(a), self.number(b));
            for (hash, of) in [(a, b), (b, a)] {
                if first[of].is_some() {
                    let known = &mut lock(&nearest)[hash];
                    *known = Some(known.map_or((distance, of), |known| known.min((distance, of))));
                }
            }
        });
        let nearest = nearest.into_inner().unwrap_or_else(PoisonError::into_inner);
        let found = self.samples().take(own).filter_map(|(hash, sample)| {
            let (distance, of) = nearest[self.number(hash)]?;
            Some(Found { sample, like: first[of]?, distance })
        });
        found.collect()
    }
}

/// A panic of another thread has left no partial state: every change is one call.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Reads the hashes of all samples.
fn read(shards: &Location, threads: usize) -> Result<Hashed> {
    let paths = input::shards(shards)?;
    let columns = ["phash", "phash_trimmed"];
    let read = each(paths.len(), threads, "reading hashes", |number| {
        let signals = Signals::open(&paths[number], HASH, None, Some(&columns))
            .with_context(|| format!("run `ingest hash {}` first", input::folder_of(&paths[number])))?;
        let column = columns.into_iter().find(|name| signals.columns().column_by_name(name).is_some());
        let column = column.with_context(|| {
            format!("the signals of {} have no hash; run `ingest hash --force` on it", paths[number])
        })?;
        let hashes = signals
            .columns()
            .column_by_name(column)
            .and_then(|it| it.as_primitive_opt::<UInt64Type>().cloned());
        let hashes =
            hashes.with_context(|| format!("the column {column} of {} is not uint64", paths[number]))?;
        Ok((column, hashes))
    })?;
    let mut hashed =
        Hashed { shards: paths, column: columns[0], hashes: Vec::new(), places: Vec::new(), without: 0 };
    for (shard, (column, hashes)) in (0..).zip(read) {
        if shard == 0 {
            hashed.column = column;
        } else if column != hashed.column {
            bail!(
                "{} has hashes of the kind {}, but {} of the kind {column}: run `ingest hash --force` on the folder, so that all are of \
                 the same kind",
                hashed.shards[0],
                hashed.column,
                hashed.shards[shard as usize]
            );
        }
        for (sample, hash) in (0..).zip(hashes.iter()) {
            match hash {
                Some(hash) => {
                    hashed.hashes.push(hash);
                    hashed.places.push((shard, sample));
                }
                None => hashed.without += 1,
            }
        }
    }
    Ok(hashed)
}

/// The distinct values, sorted.
fn distinct(hashes: &[u64]) -> Vec<u64> {
    let mut distinct = hashes.to_vec();
    distinct.sort_unstable();
    distinct.dedup();
    distinct
}

/// Writes the table. `own` is the number of shards of the dataset itself.
fn write(out: &Location, hashed: &Hashed, own: usize, found: &[Found]) -> Result<()> {
    let (shards, others) = hashed.shards.split_at(own);
    let mut names = selection::names(shards);
    names.extend(selection::names(others));
    let name = |&(shard, _): &(u32, u32)| names[shard as usize].as_str();
    let number =
        |of: fn(&Found) -> u32| -> ArrayRef { Arc::new(UInt32Array::from_iter_values(found.iter().map(of))) };
    let text = |of: fn(&Found) -> &(u32, u32)| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(found.iter().map(|found| name(of(found)))))
    };
    let batch = RecordBatch::try_from_iter([
        ("shard", text(|found| &found.sample)),
        ("sample", number(|found| found.sample.1)),
        ("like_shard", text(|found| &found.like)),
        ("like_sample", number(|found| found.like.1)),
        ("distance", number(|found| found.distance)),
    ])?;
    Ok(storage::write(out, crate::table::bytes(&batch)?)?)
}
