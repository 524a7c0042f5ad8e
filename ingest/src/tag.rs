//! `ingest tag`: the sidecars of a folder's shards, or of the captions in a table, or the mentions of captions from a
//! file as JSON.
//!
//! A thread makes one sidecar at a time, from reading to the last byte written. Sidecars depend on their captions alone,
//! so the number of threads changes nothing, and nothing has to be put in order again.

mod tables;
mod text;

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use concepts::sidecar::{self, Metadata, Sidecar, Writer};
use concepts::{Extractor, canonical_into};
use loader::program::{Progress, interrupted};
use loader::{shard, source};
use serde_json::{Value, json};

pub use self::tables::{Tables, tag_tables};
pub use self::text::{open_text, tag_text};
use crate::error::Error;
use crate::set::is_missing;
use crate::staging::Staging;

/// Counts of a run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Totals {
    /// Shards in the folder, or parts of the table.
    pub shards: u64,
    /// Of these, tagged now.
    pub tagged: u64,
    /// Of those, replaced a sidecar of another shard, tagger or grammar.
    pub replaced: u64,
    /// Shards left out because they are not complete.
    pub incomplete: u64,
    /// Captions, empty ones included; of shards found tagged, too.
    pub captions: u64,
    /// Mentions.
    pub mentions: u64,
    /// Captions in which no mention was found.
    pub captions_without_mention: u64,
    /// Captions that are not UTF-8: read with replacement characters.
    pub captions_not_utf8: u64,
    /// Rows of tables that cannot be read: they count as captions without text.
    pub unreadable_rows: u64,
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

    /// The counts that matter while it runs.
    pub fn message(&self) -> String {
        let without = self.captions_without_mention;
        format!("{} mentions, {without} captions without any, {} shards tagged", self.mentions, self.tagged)
    }

    /// The summary object of `--json`.
    pub fn json(&self, seconds: f64) -> Value {
        json!({
            "shards": self.shards,
            "tagged": self.tagged,
            "replaced": self.replaced,
            "incomplete": self.incomplete,
            "captions": self.captions,
            "mentions": self.mentions,
            "captions_without_mention": self.captions_without_mention,
            "captions_not_utf8": self.captions_not_utf8,
            "unreadable_rows": self.unreadable_rows,
            "seconds": seconds,
        })
    }
}

/// Writes the sidecars of all complete shards that `input` names (a folder, a file, a brace list) and that `owns`, by
/// their place in the list. Sidecars that match their shard and the extractor are left alone.
pub fn tag(
    input: &Path,
    extractor: &Extractor,
    threads: usize,
    owns: impl Fn(u32) -> bool,
) -> Result<Totals, Error> {
    let input = [input.to_owned()];
    let shards = shard::list(&input)?;
    let incomplete = shard::incomplete(&input)?.len() as u64;
    let shards: Vec<PathBuf> =
        (0..).zip(shards).filter(|(place, _)| owns(*place)).map(|(_, path)| path).collect();
    let board = Board::new(Totals { incomplete, ..Totals::default() });
    let next = AtomicUsize::new(0);
    together(threads.min(shards.len()), |stop| {
        let mut captions = Captions::new(extractor);
        while let Some(path) = shards.get(next.fetch_add(1, Ordering::Relaxed)) {
            stop.check()?;
            let metadata = Metadata::new(&extractor.description(), path, source::length(path)?);
            let target = sidecar::path_for(path);
            match found(&target, &metadata)? {
                Found::Current(metadata) => board.found(&metadata),
                other => {
                    let staging = Staging::new(path)?;
                    let mut writer = Writer::create(&staging.path(&target), metadata)?;
                    loader::tar::captions(path, |key, caption| {
                        stop.check()?;
                        captions.tag(&mut writer, key, caption.unwrap_or_default())
                    })?;
                    let metadata = writer.finish()?;
                    staging.deliver(&target)?;
                    board.tagged(&target, &metadata, &other, captions.take_not_utf8());
                }
            }
        }
        Ok(())
    })?;
    Ok(board.finish())
}

/// Tags captions one after another, with buffers of its own.
struct Captions<'a> {
    extractor: &'a Extractor,
    canonical: String,
    not_utf8: u64,
}

impl<'a> Captions<'a> {
    fn new(extractor: &'a Extractor) -> Self {
        Self { extractor, canonical: String::new(), not_utf8: 0 }
    }

    /// The way of every caption into a sidecar.
    fn tag(&mut self, writer: &mut Writer, key: &str, raw: &[u8]) -> Result<(), Error> {
        let raw = String::from_utf8_lossy(raw);
        self.not_utf8 += u64::from(matches!(raw, Cow::Owned(_)));
        canonical_into(&raw, &mut self.canonical);
        writer.tag(writer.samples(), key, &self.canonical, self.extractor)?;
        Ok(())
    }

    fn take_not_utf8(&mut self) -> u64 {
        std::mem::take(&mut self.not_utf8)
    }
}

enum Found {
    Nothing,
    Stale,
    Current(Metadata),
}

/// The sidecar at `path`, judged by its footer, which must say what `metadata` says: origin, tagger, grammar, layout.
fn found(path: &Path, metadata: &Metadata) -> Result<Found, Error> {
    let footer = if source::is_remote(path) {
        match source::read(path) {
            Ok(bytes) => Sidecar::from_bytes(path, bytes).map(|sidecar| sidecar.metadata),
            Err(error) if is_missing(&error) => return Ok(Found::Nothing),
            Err(error) => return Err(error.into()),
        }
    } else if path.exists() {
        Sidecar::read_metadata(path)
    } else {
        return Ok(Found::Nothing);
    };
    match footer {
        Ok(found) if found.uncounted() == metadata.uncounted() => Ok(Found::Current(found)),
        _ => Ok(Found::Stale),
    }
}

/// Counts and progress, shared by the threads.
struct Board(Mutex<(Totals, Progress)>);

impl Board {
    fn new(totals: Totals) -> Self {
        Self(Mutex::new((totals, Progress::new("tagging", "captions", 0))))
    }

    fn update(&self, captions: u64, change: impl FnOnce(&mut Totals)) {
        let mut board = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (totals, progress) = &mut *board;
        change(totals);
        progress.advance(captions, || totals.message());
    }

    /// A sidecar that needs no work.
    fn found(&self, metadata: &Metadata) {
        self.update(0, |totals| totals.add(metadata));
    }

    /// A new sidecar.
    fn tagged(&self, path: &Path, metadata: &Metadata, before: &Found, not_utf8: u64) {
        let stale = matches!(before, Found::Stale);
        if stale {
            eprintln!(
                "{}: made anew, the old one was made from other captions or by another tagger",
                path.display()
            );
        }
        self.update(u64::from(metadata.samples), |totals| {
            totals.add(metadata);
            totals.captions_not_utf8 += not_utf8;
            totals.tagged += 1;
            totals.replaced += u64::from(stale);
        });
    }

    fn finish(self) -> Totals {
        let (totals, progress) = self.0.into_inner().unwrap_or_else(PoisonError::into_inner);
        progress.finish(&totals.message());
        totals
    }
}

/// Tells threads that one of them has failed, or the user wants an end.
#[derive(Default)]
struct Stop(AtomicBool);

impl Stop {
    fn check(&self) -> Result<(), Error> {
        if interrupted() || self.0.load(Ordering::Relaxed) { Err(Error::Interrupted) } else { Ok(()) }
    }
}

/// Does `work` on several threads, this one among them; returns the error that stopped them, if one did.
fn together(threads: usize, work: impl Fn(&Stop) -> Result<(), Error> + Sync) -> Result<(), Error> {
    let stop = Stop::default();
    let first = Mutex::new(None);
    let one = || {
        if let Err(error) = work(&stop) {
            stop.0.store(true, Ordering::Relaxed);
            first.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        }
    };
    thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(one);
        }
        one();
    });
    first.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
}
