//! `ingest verify`: checks that tars, tables, statistics, sidecars and signals are undamaged and describe the same samples.

mod files;
mod shard;
mod signals;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use concepts::checksums::sha256;
use concepts::sidecar::{PARTS, Parts, Sidecar};
use program::Progress;
use serde_json::{Value, json};
use storage::Location;

use self::files::Listed;
use self::shard::Found;
use crate::dataset::MANIFEST;
use crate::dataset::sums;
use crate::error::Error;
use crate::messages::counted;
use crate::parallel::run_parallel;

/// How thoroughly to look.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Does not read the images: they are not decoded, and the checksums of the tars are not compared.
    pub quick: bool,
    /// Number of shards that are checked at the same time.
    pub threads: usize,
}

/// The result for a folder.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Number of checked shards, or of sidecars of a tagged table.
    pub shards: u64,
    /// Number of samples in their tars.
    pub samples: u64,
    /// Number of shards with a sidecar.
    pub sidecars: u64,
    /// Number of files of signals next to them.
    pub signals: u64,
    /// Number of images that were decoded.
    pub images: u64,
    /// Of these, images whose bytes have the hash in the table.
    pub hashes: u64,
    /// Number of files whose checksums were compared.
    pub checksums: u64,
    /// Damage: one line each, beginning with the file.
    pub problems: Vec<String>,
    /// What is harmless, or could not be checked: one line each, beginning with the file.
    pub notes: Vec<String>,
}

impl Report {
    /// The summary object of `--json`.
    pub fn json(&self) -> Value {
        json!({
            "shards": self.shards,
            "samples": self.samples,
            "sidecars": self.sidecars,
            "signals": self.signals,
            "images": self.images,
            "hashes": self.hashes,
            "checksums": self.checksums,
            "problems": self.problems,
            "notes": self.notes,
        })
    }

    fn add(&mut self, found: Found) {
        self.shards += 1;
        self.samples += found.samples;
        self.sidecars += u64::from(found.sidecar.is_some());
        self.signals += found.signals;
        self.images += found.images;
        self.hashes += found.hashes;
        self.checksums += found.checksums;
        self.problems.extend(found.problems);
        self.notes.extend(found.notes);
    }
}

/// Checks every shard of a folder, which may be in an object store. Damage is reported, not an error.
pub fn verify(folder: &Location, options: Options) -> Result<Report, Error> {
    if let Some(parts) = parts(folder)? {
        return verify_parts(folder, &parts);
    }
    let input = std::slice::from_ref(folder);
    let mut report = Report::default();
    for path in loader::shards::incomplete(input)? {
        report.problems.push(format!(
            "{}: incomplete (no _stats.json): run the command that made the dataset again",
            path.display()
        ));
    }
    let listed = files::list(folder)?;
    for name in &listed.leftovers {
        let path = folder.join(name);
        report.notes.push(format!(
            "{}: left by a process that was stopped; the next run of `ingest` on this folder completes or removes it",
            path.display()
        ));
    }
    report.problems.extend(listed.problems.iter().cloned());
    let shards = if listed.tars == 0 { Vec::new() } else { loader::shards::list(input).unwrap_or_default() };
    if shards.is_empty() && report.problems.is_empty() {
        return Err(Error::input(folder, "no shards in this folder"));
    }
    let found = verify_shards(&shards, options, &listed)?;
    let unchecked = found.iter().filter(|found| found.sidecar == Some(false)).count() as u64;
    let unsummed = found.iter().filter(|found| listed.ours && !found.summed).count() as u64;
    for found in found {
        report.add(found);
    }
    if unchecked > 0 {
        report.notes.push(format!(
            "{}: {} of version 1, which cannot tell whether all captions are those that were tagged; `ingest tag --force` \
             makes them again",
            folder.display(),
            counted(unchecked, "sidecar")
        ));
    }
    if unsummed > 0 {
        report.notes.push(format!(
            "{}: {} made by a version without checksums: not every damage to its images can be seen",
            folder.display(),
            counted(unsummed, "shard")
        ));
    }
    Ok(report)
}

/// Checks shards on several threads; the results are in the order of the shards.
fn verify_shards(shards: &[Location], options: Options, listed: &Listed) -> Result<Vec<Found>, Error> {
    let progress = Mutex::new((Progress::new("verifying", "shards", shards.len() as u64), 0));
    let (next, all) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    run_parallel(options.threads.min(shards.len()), |stop| {
        loop {
            stop.check()?;
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(path) = shards.get(number) else { return Ok(()) };
            let stem = loader::shards::stem(path).unwrap_or_default();
            let producers = listed.producers.get(stem).map_or(&[][..], Vec::as_slice);
            let found = shard::verify(path, options, listed.ours, producers, stop)?;
            let mut progress = progress.lock().unwrap_or_else(PoisonError::into_inner);
            progress.1 += found.problems.len() as u64;
            let problems = progress.1;
            progress.0.advance(1, || counted(problems, "problem"));
            drop(progress);
            all.lock().unwrap_or_else(PoisonError::into_inner).push((number, found));
        }
    })?;
    let (progress, problems) = progress.into_inner().unwrap_or_else(PoisonError::into_inner);
    progress.finish(&counted(problems, "problem"));
    let mut all = all.into_inner().unwrap_or_else(PoisonError::into_inner);
    all.sort_by_key(|(number, _)| *number);
    Ok(all.into_iter().map(|(_, found)| found).collect())
}

/// What `ingest tag --table` wrote last; `None` if the folder has no such file.
fn parts(folder: &Location) -> Result<Option<Parts>, Error> {
    let path = folder.join(PARTS);
    match storage::read(&path) {
        Ok(json) => Ok(Some(Parts::from_bytes(&path.as_name(), &json)?)),
        Err(error) if storage::is_missing(&error) => Ok(None),
        // It is not a folder; the list of its files says so.
        Err(storage::Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotADirectory => {
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

/// Checks the sidecars that `ingest tag --table` made.
fn verify_parts(folder: &Location, parts: &Parts) -> Result<Report, Error> {
    let mut report = Report::default();
    let checksums = sums::read(&folder.join(crate::tag::SUMS))?;
    let agrees = |path: &Location, bytes: &[u8], report: &mut Report| {
        let name = path.file_name();
        let Some(expected) = checksums.as_ref().and_then(|sums| sums.get(&name)) else { return };
        report.checksums += 1;
        if *expected != sha256(bytes) {
            let line =
                format!("{}: damaged: its SHA-256 is not the one in {}", path.display(), crate::tag::SUMS);
            report.problems.push(line);
        }
    };
    let path = folder.join(PARTS);
    agrees(&path, &storage::read(&path)?, &mut report);
    for (number, footer) in (0..).zip(parts.footers()) {
        if program::interrupted() {
            return Err(Error::interrupted());
        }
        report.shards += 1;
        report.samples += u64::from(footer.samples);
        let path = folder.join(Parts::path("".as_ref(), number));
        let bytes = match storage::read(&path) {
            Ok(bytes) => bytes,
            Err(error) => {
                report.problems.push(error.to_string());
                continue;
            }
        };
        agrees(&path, &bytes, &mut report);
        let checked = Sidecar::from_bytes(&path.as_name(), bytes)
            .and_then(|sidecar| Parts::refuse_unless(&footer, &sidecar.metadata, &path.as_name()));
        match checked {
            Ok(()) => report.sidecars += 1,
            Err(error) => report.problems.push(error.to_string()),
        }
    }
    Ok(report)
}
