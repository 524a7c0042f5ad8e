//! `ingest hash`: the perceptual hashes of the images of shards and the languages of their captions, for shards that others made.
//!
//! Each thread makes the signals of one shard at a time. They depend on the shard alone, so the number of threads does not change
//! them.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use concepts::checksums::sha256;
use loader::shards;
use loader::shards::signals::{self, HASH, Metadata, Signals};
use loader::shards::{CAPTION_EXTENSION, IMAGE_EXTENSIONS, Visited};
use program::Progress;
use serde_json::{Value, json};
use storage::Location;

use crate::dataset::{own_shards, sums};
use crate::error::Error;
use crate::image;
use crate::messages::counted;
use crate::parallel::{StopFlag, run_parallel};
use crate::signals::{Columns, Hashed, Language};

/// Counts of a run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Totals {
    /// Shards of this job.
    pub shards: u64,
    /// Shards whose signals this run made.
    pub hashed: u64,
    /// Of these, shards that had signals of another shard, of an earlier version of this one, or damaged ones.
    pub replaced: u64,
    /// Shards that were left out because they are incomplete.
    pub incomplete: u64,
    /// Samples whose signals this run made.
    pub samples: u64,
    /// Of these, samples without an image, or with one that cannot be decoded.
    pub without_hash: u64,
    /// Of these, samples without a caption, or with one without letters.
    pub without_language: u64,
}

impl Totals {
    fn message(&self) -> String {
        let without = counted(self.without_hash, "sample");
        format!("{without} without an image that can be decoded, {} written", counted(self.hashed, "file"))
    }

    /// The summary object of `--json`.
    pub fn json(&self, seconds: f64) -> Value {
        json!({
            "shards": self.shards,
            "hashed": self.hashed,
            "replaced": self.replaced,
            "incomplete": self.incomplete,
            "samples": self.samples,
            "without_hash": self.without_hash,
            "without_language": self.without_language,
            "seconds": seconds,
        })
    }
}

/// Writes the signals of the complete shards in `input` (a folder, a file or a brace list) for whose position in the list `owns` is
/// true. Signals that were made from their shard as it is are kept, unless `force` is true: also those of `ingest download` and
/// `ingest shard`, which are of the original images.
pub fn hash(
    input: &Location,
    threads: usize,
    force: bool,
    owns: impl Fn(u32) -> bool,
) -> Result<Totals, Error> {
    let (shards, incomplete) = own_shards(input, owns)?;
    let totals = Totals { shards: shards.len() as u64, incomplete, ..Totals::default() };
    let state = Mutex::new((totals, Progress::new("hashing", "samples", 0)));
    let next = AtomicUsize::new(0);
    run_parallel(threads.min(shards.len()), |stop| {
        while let Some(shard) = shards.get(next.fetch_add(1, Ordering::Relaxed)) {
            stop.check()?;
            hash_shard(shard, force, stop, &state)?;
        }
        Ok(())
    })?;
    let (totals, progress) = state.into_inner().unwrap_or_else(PoisonError::into_inner);
    // A run that had nothing to do prints no counts of nothing.
    if totals.hashed > 0 {
        progress.finish(&totals.message());
    }
    Ok(totals)
}

/// Writes the signals of a shard, unless it has current ones.
fn hash_shard(
    shard: &Location,
    force: bool,
    stop: &StopFlag,
    state: &Mutex<(Totals, Progress)>,
) -> Result<(), Error> {
    let (target, sums_path) = (signals::path(shard, HASH), shards::sums_path(shard));
    let shard_bytes = storage::length(shard)?;
    let shard_sha256 = checksum(&sums_path, shard)?;
    let before = existing(&target)?;
    if let Some(bytes) = before.as_ref().filter(|_| !force)
        && is_current(shard, &target, bytes, shard_bytes, shard_sha256.as_deref())
        && sums::agree(&sums_path, &target, bytes)? != Some(false)
    {
        // Adds the line if a process was killed before it did.
        return sums::add(&sums_path, &target, sha256(bytes));
    }
    let mut pass = Pass { columns: Columns::new(Hashed::Trimmed), sample: None, without: [0; 2] };
    shards::visit(
        shard,
        |extension| is_image(extension).is_some() || extension == CAPTION_EXTENSION,
        |member| {
            stop.check()?;
            pass.member(&member);
            Ok::<_, Error>(())
        },
    )?;
    pass.end();
    let Pass { columns, without, .. } = pass;
    let samples = columns.len() as u64;
    let made = columns.finish(shard, shard_bytes, shard_sha256)?.to_bytes(&target)?;
    if storage::length(shard)? != shard_bytes {
        return Err(Error::input(shard, "changed while it was read: run `ingest hash` again"));
    }
    let sha256 = sha256(&made);
    sums::forget(&sums_path, &target)?;
    storage::write(&target, made)?;
    sums::add(&sums_path, &target, sha256)?;
    let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
    let (totals, progress) = &mut *state;
    if before.is_some() && !force {
        eprintln!(
            "{}: replaced, because it is damaged or was made from another state of the shard",
            target.display()
        );
        totals.replaced += 1;
    }
    totals.hashed += 1;
    totals.samples += samples;
    totals.without_hash += without[0];
    totals.without_language += without[1];
    progress.advance(samples, || totals.message());
    Ok(())
}

/// The shard's SHA-256 in its checksums.
fn checksum(sums_path: &Location, shard: &Location) -> Result<Option<String>, Error> {
    let sums = sums::read(sums_path)?.unwrap_or_default();
    Ok(sums.get(&shard.file_name()).map(str::to_owned))
}

/// The bytes of the signals that a shard has.
fn existing(target: &Location) -> Result<Option<Bytes>, Error> {
    match storage::read(target) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if storage::is_missing(&error) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Whether signals were made from this state of the shard, by this version of the program.
fn is_current(
    shard: &Location,
    target: &Location,
    bytes: &Bytes,
    shard_bytes: u64,
    shard_sha256: Option<&str>,
) -> bool {
    let Ok(signals) = Signals::from_bytes(target, bytes.clone(), Some(&[])) else { return false };
    let about: &Metadata = &signals.metadata;
    let of_original = about.settings.get(Hashed::Original.column()).is_some();
    about.refuse_unless_for(target, shard, shard_bytes, None).is_ok()
        && shard_sha256.is_none_or(|sha256| about.refuse_unless_sha256(target, sha256).is_ok())
        // Those of the original images cannot be made again from the shard.
        && (of_original || about.settings == Hashed::Trimmed.settings())
}

/// The place of an extension among those of images.
fn is_image(extension: &str) -> Option<usize> {
    IMAGE_EXTENSIONS.iter().position(|image| *image == extension)
}

/// What is known of the sample whose members are being read.
struct Sample {
    key: String,
    /// The place of its image's extension, of which the first is the sample's, and the hash.
    image: Option<(usize, Option<u64>)>,
    language: Option<Language>,
}

/// The state of the pass over a shard.
struct Pass {
    columns: Columns,
    sample: Option<Sample>,
    /// Samples without a hash, and without a language.
    without: [u64; 2],
}

impl Pass {
    fn member(&mut self, member: &Visited<'_>) {
        if member.first {
            self.end();
            self.sample = Some(Sample { key: member.key.to_owned(), image: None, language: None });
        }
        let Some(sample) = &mut self.sample else { return };
        if let Some(place) = is_image(member.extension) {
            if sample.image.is_none_or(|(found, _)| place < found) {
                sample.image = Some((place, image::trimmed_phash(member.data).ok()));
            }
        } else if member.extension == CAPTION_EXTENSION {
            sample.language = Language::of(&String::from_utf8_lossy(member.data));
        }
    }

    /// Adds the row of a sample, all of whose members were read.
    fn end(&mut self) {
        let Some(Sample { key, image, language }) = self.sample.take() else { return };
        let phash = image.and_then(|(_, hash)| hash);
        self.without[0] += u64::from(phash.is_none());
        self.without[1] += u64::from(language.is_none());
        self.columns.push(&key, phash, language);
    }
}
