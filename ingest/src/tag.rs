//! `ingest tag`: writes the sidecars of shards or of the captions in a table, or prints the mentions of captions as JSON.
//!
//! Each thread makes one sidecar at a time, from reading the captions to writing the file. A sidecar depends on its captions
//! alone, so the number of threads does not change the output, and no results have to be put back into order.

pub(crate) mod existing;
mod tables;
mod text;

use std::borrow::Cow;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use concepts::checksums::sha256_of;
use concepts::sidecar::{CaptionCheck, CaptionChecks, Metadata, Writer};
use concepts::{Extractor, canonical_into};
use loader::shards::set_index::SetIndex;
use loader::shards::{self, StoredCaptions};
use program::Progress;
use serde_json::{Value, json};
use storage::Location;

use self::existing::{Existing, compare, existing_sidecar};
pub(crate) use self::tables::SUMS;
pub use self::tables::{Tables, tag_tables};
pub use self::text::{open_text, tag_text};
use crate::dataset::staging::Staging;
use crate::dataset::{own_shards, sums};
use crate::error::Error;
use crate::messages::counted;
use crate::parallel::{StopFlag, run_parallel};

/// Counts of a run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Totals {
    /// Shards of this job, or sidecars of the table.
    pub shards: u64,
    /// Shards that this run tagged.
    pub tagged: u64,
    /// Tagged shards that had a sidecar of another shard, tagger or grammar.
    pub replaced: u64,
    /// Tagged shards whose sidecar was made from captions that an older version of the rules had normalised.
    pub renewed: u64,
    /// Shards that were skipped because they are incomplete.
    pub incomplete: u64,
    /// Captions, including empty ones and those of shards that were already tagged; samples, if captions are from a field.
    pub captions: u64,
    /// Mentions in these captions.
    pub mentions: u64,
    /// Captions without a mention, and so without a concept; samples, if captions are from a field.
    pub captions_without_mention: u64,
    /// Captions that are not UTF-8; invalid bytes were replaced by U+FFFD.
    pub captions_not_utf8: u64,
    /// Unreadable rows of tables; they were tagged as empty captions.
    pub unreadable_rows: u64,
    /// Samples without a text or a list of texts in the field of captions.
    pub without_field: u64,
    /// Sidecars of version 1 that were kept: they cannot tell whether all captions are those that were tagged.
    pub unchecked: u64,
}

impl Totals {
    /// Adds counts of captions.
    fn count(&mut self, more: &Self) {
        self.captions += more.captions;
        self.mentions += more.mentions;
        self.captions_without_mention += more.captions_without_mention;
        self.captions_not_utf8 += more.captions_not_utf8;
    }

    fn add(&mut self, metadata: &Metadata) {
        self.shards += 1;
        self.captions += u64::from(metadata.samples);
        self.mentions += metadata.mentions;
        self.captions_without_mention += u64::from(metadata.captions_without_mention);
    }

    /// For the progress line.
    pub fn message(&self) -> String {
        let mentions = counted(self.mentions, "mention");
        let without = counted(self.captions_without_mention, "caption");
        format!("{mentions}, {without} without a concept, {} written", counted(self.tagged, "sidecar"))
    }

    /// The summary object of `--json`.
    pub fn json(&self, seconds: f64) -> Value {
        json!({
            "shards": self.shards,
            "tagged": self.tagged,
            "replaced": self.replaced,
            "renewed": self.renewed,
            "incomplete": self.incomplete,
            "captions": self.captions,
            "mentions": self.mentions,
            "captions_without_mention": self.captions_without_mention,
            "captions_not_utf8": self.captions_not_utf8,
            "unreadable_rows": self.unreadable_rows,
            "without_field": self.without_field,
            "unchecked": self.unchecked,
            "seconds": seconds,
        })
    }
}

/// Writes the sidecars of the complete shards in `input` (a folder, a file or a brace list) for whose position in the list
/// `owns` is true. Captions are the `.txt` members, or those in a `field` of the `.json` members. Sidecars that match their shard,
/// its captions and the extractor are kept, unless `force` is true.
pub fn tag(
    input: &Location,
    field: Option<&str>,
    extractor: &Extractor,
    threads: usize,
    force: bool,
    owns: impl Fn(u32) -> bool,
) -> Result<Totals, Error> {
    let (shards, incomplete) = own_shards(input, owns)?;
    let progress = SharedProgress::new(Totals { incomplete, ..Totals::default() });
    let next = AtomicUsize::new(0);
    run_parallel(threads.min(shards.len()), |stop| {
        let mut captions = Captions::new(extractor);
        while let Some(path) = shards.get(next.fetch_add(1, Ordering::Relaxed)) {
            stop.check()?;
            tag_shard(path, field, &mut captions, force, stop, &progress)?;
        }
        Ok(())
    })?;
    Ok(progress.finish())
}

/// Writes the sidecar of a shard, unless it has a current one.
fn tag_shard(
    path: &Location,
    field: Option<&str>,
    captions: &mut Captions<'_>,
    force: bool,
    stop: &StopFlag,
    progress: &SharedProgress,
) -> Result<(), Error> {
    let mut metadata =
        Metadata::new(&captions.extractor.description(), &path.as_name(), storage::length(path)?);
    metadata.field = field.map(str::to_owned);
    let (target, sums_path) = (shards::sidecar_path(path), shards::sums_path(path));
    let before = match existing_sidecar(&target, &metadata)? {
        Existing::Current(_) if force => Existing::Forced,
        Existing::Current(found) => compare(path, &target, found, stop)?,
        other => other,
    };
    if let Existing::Current(metadata) = &before {
        progress.already_tagged(metadata);
        return Ok(());
    }
    let staging = Staging::new(path)?;
    let staged = staging.path(&target);
    let mut writer = Writer::create(&staged, metadata)?;
    let (mut without_field, mut reason) = (0, None);
    let samples = loader::shards::captions(path, field, |key, stored| {
        stop.check()?;
        if let StoredCaptions::Unreadable(problem) = stored {
            without_field += 1;
            reason.get_or_insert_with(|| format!("sample {key}: {problem}"));
        }
        captions.tag(&mut writer, key, stored)
    })?;
    if let (Some(field), Some(reason)) = (field, reason.filter(|_| without_field == samples)) {
        let problem = format!("no sample has captions in the field {field:?} of its .json member ({reason})");
        return Err(Error::input(path, problem));
    }
    // Before the new sidecar has its name, which it gets here in a folder of this machine, and in `deliver` elsewhere.
    if let Some(folder) = path.parent() {
        SetIndex::forget(&folder)?;
    }
    sums::forget(&sums_path, &target)?;
    let metadata = writer.finish()?;
    let file = std::fs::File::open(&staged).map_err(Error::file("read", &staged))?;
    let sha256 = sha256_of(file).map_err(Error::file("read", &staged))?;
    staging.deliver(&target)?;
    sums::add(&sums_path, &target, sha256)?;
    refuse_other_captions(path, &metadata)?;
    progress.tagged(&target, &metadata, &before, captions.take_not_utf8());
    progress.update(0, |totals| totals.without_field += without_field);
    Ok(())
}

/// The loader reads captions from the table of a shard where it can, so they must be those in the tar, which were tagged. Those in
/// a field are read from the tar.
fn refuse_other_captions(path: &Location, metadata: &Metadata) -> Result<(), Error> {
    if metadata.field.is_some() {
        return Ok(());
    }
    let same = |checks: CaptionChecks| {
        metadata.captions.as_ref().is_none_or(|captions| captions.sha256 == checks.sha256())
    };
    if loader::shards::sidecar::table_captions(path)?.is_none_or(same) {
        return Ok(());
    }
    let problem = format!(
        "its captions are not those in {}, and the loader reads those here: make the shard again, or remove this table",
        path.file_name()
    );
    Err(Error::input(shards::table_path(path), problem))
}

/// Tags captions one after another, with reused buffers.
struct Captions<'a> {
    extractor: &'a Extractor,
    /// Of one sample.
    canonical: Vec<String>,
    not_utf8: u64,
}

impl<'a> Captions<'a> {
    fn new(extractor: &'a Extractor) -> Self {
        Self { extractor, canonical: vec![String::new()], not_utf8: 0 }
    }

    /// As [`Captions::tag`], for a sample whose only caption is this text.
    fn tag_text(&mut self, writer: &mut Writer, key: &str, text: &str) -> Result<(), Error> {
        canonical_into(text, &mut self.canonical[0]);
        writer.check(writer.samples(), CaptionCheck::of(text.as_bytes()));
        writer.tag(writer.samples(), key, &self.canonical[..1], self.extractor)?;
        Ok(())
    }

    /// Normalises and tags the captions of a sample, and adds their mentions to the sidecar.
    fn tag(&mut self, writer: &mut Writer, key: &str, stored: StoredCaptions<'_>) -> Result<(), Error> {
        if let StoredCaptions::Text(Some(bytes)) = stored
            && let Ok(text) = std::str::from_utf8(bytes)
        {
            return self.tag_text(writer, key, text);
        }
        let texts = stored.texts();
        self.not_utf8 += texts.iter().filter(|text| matches!(text, Cow::Owned(_))).count() as u64;
        if self.canonical.len() < texts.len() {
            self.canonical.resize_with(texts.len(), String::new);
        }
        for (text, canonical) in texts.iter().zip(&mut self.canonical) {
            canonical_into(text, canonical);
        }
        writer.check(writer.samples(), stored.check());
        writer.tag(writer.samples(), key, &self.canonical[..texts.len()], self.extractor)?;
        Ok(())
    }

    fn take_not_utf8(&mut self) -> u64 {
        std::mem::take(&mut self.not_utf8)
    }
}

/// Counts and progress line, shared by the threads.
struct SharedProgress(Mutex<(Totals, Progress)>);

impl SharedProgress {
    fn new(totals: Totals) -> Self {
        Self(Mutex::new((totals, Progress::new("tagging", "captions", 0))))
    }

    fn update(&self, captions: u64, change: impl FnOnce(&mut Totals)) {
        let mut progress = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (totals, progress) = &mut *progress;
        change(totals);
        progress.advance(captions, || totals.message());
    }

    /// Counts a sidecar that is current.
    fn already_tagged(&self, metadata: &Metadata) {
        self.update(0, |totals| {
            totals.add(metadata);
            totals.unchecked += u64::from(metadata.captions.is_none());
        });
    }

    /// Counts a new sidecar.
    fn tagged(&self, path: &Location, metadata: &Metadata, before: &Existing, not_utf8: u64) {
        let stale = matches!(before, Existing::Stale);
        if stale {
            eprintln!(
                "{}: replaced, because it is damaged or was made from other captions or by another tagger",
                path.display()
            );
        }
        self.update(u64::from(metadata.samples), |totals| {
            totals.add(metadata);
            totals.captions_not_utf8 += not_utf8;
            totals.tagged += 1;
            totals.replaced += u64::from(stale);
            totals.renewed += u64::from(matches!(before, Existing::Older));
        });
    }

    fn finish(self) -> Totals {
        let (totals, progress) = self.0.into_inner().unwrap_or_else(PoisonError::into_inner);
        // A run that had nothing to do prints no counts and rates of nothing.
        if totals.tagged > 0 {
            progress.finish(&totals.message());
        }
        totals
    }
}
