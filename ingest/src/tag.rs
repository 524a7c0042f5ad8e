//! `ingest tag`: the sidecars of a folder's shards, on all cores; or the mentions of captions from a file, as JSON.

use std::fs;
use std::io::{BufRead, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use concepts::sidecar::{self, Metadata, Sidecar};
use concepts::{Extractor, canonical};
use loader::program::{Progress, interrupted};
use loader::shard;
use loader::tar::Archive;
use serde_json::{Value, json};

use crate::error::Error;

/// Captions tagged at a time by one thread: small enough that all cores share a single shard, too.
const CHUNK: usize = 512;

/// Counts of a run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Totals {
    /// Shards in the folder.
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
}

impl Totals {
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
    let mut totals = Totals { incomplete: shard::incomplete(&input)?.len() as u64, ..Totals::default() };
    let mut progress = Progress::new("tagging", "captions", 0);
    for (_, path) in (0..).zip(&shards).filter(|(place, _)| owns(*place)) {
        if interrupted() {
            return Err(Error::Interrupted);
        }
        let captions = match found(path, extractor) {
            Found::Current(metadata) => {
                totals.add(&metadata);
                0
            }
            other => {
                let (metadata, not_utf8) = tag_shard(path, extractor, threads)?;
                totals.add(&metadata);
                totals.captions_not_utf8 += not_utf8;
                totals.tagged += 1;
                totals.replaced += u64::from(matches!(other, Found::Stale));
                u64::from(metadata.samples)
            }
        };
        progress.advance(captions, || totals.message());
    }
    progress.finish(&totals.message());
    Ok(totals)
}

enum Found {
    Nothing,
    Stale,
    Current(Metadata),
}

/// The shard's sidecar, judged by its footer: size and name of the shard, tagger, grammar, layout.
fn found(path: &Path, extractor: &Extractor) -> Found {
    let sidecar = sidecar::path_for(path);
    if !sidecar.exists() {
        return Found::Nothing;
    }
    let Ok(metadata) = Sidecar::read_metadata(&sidecar) else { return Found::Stale };
    let Ok(bytes) = fs::metadata(path).map(|meta| meta.len()) else { return Found::Stale };
    let counts = |made: Metadata| Metadata { samples: 0, captions_without_mention: 0, mentions: 0, ..made };
    let fresh = Metadata::new(&extractor.description(), path, bytes);
    if counts(metadata.clone()) == counts(fresh) { Found::Current(metadata) } else { Found::Stale }
}

/// Tags one shard; also returns the number of captions that are not UTF-8.
fn tag_shard(path: &Path, extractor: &Extractor, threads: usize) -> Result<(Metadata, u64), Error> {
    let archive = Archive::open(path)?;
    let bytes = fs::metadata(path).map_err(Error::file("read", path))?.len();
    let samples = archive.samples()?;
    let mut not_utf8 = 0;
    let mut captions = Vec::with_capacity(samples.len());
    for sample in &samples {
        captions.push(match sample.caption() {
            Some(member) => {
                let raw = archive.read(member.offset, member.length)?;
                let text = String::from_utf8(raw).unwrap_or_else(|error| {
                    not_utf8 += 1;
                    String::from_utf8_lossy(error.as_bytes()).into_owned()
                });
                canonical(&text)
            }
            None => String::new(),
        });
    }
    let mentions = all_mentions(&captions, extractor, threads).ok_or(Error::Interrupted)?;
    let metadata = Metadata::new(&extractor.description(), path, bytes);
    let mut writer = sidecar::Writer::create(&sidecar::path_for(path), metadata)?;
    for (place, ((sample, caption), mentions)) in (0..).zip(samples.iter().zip(&captions).zip(&mentions)) {
        writer.push(place, &sample.key, caption, mentions)?;
    }
    Ok((writer.finish()?, not_utf8))
}

/// The mentions of each caption, in order. None when the run was stopped.
fn all_mentions(
    captions: &[String],
    extractor: &Extractor,
    threads: usize,
) -> Option<Vec<Vec<concepts::Mention>>> {
    let chunks: Vec<&[String]> = captions.chunks(CHUNK).collect();
    let next = AtomicUsize::new(0);
    let stopped = AtomicBool::new(false);
    let done = Mutex::new(vec![Vec::new(); chunks.len()]);
    let work = || {
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(chunk) = chunks.get(index) else { return };
            if interrupted() {
                stopped.store(true, Ordering::Relaxed);
                return;
            }
            let mentions: Vec<_> = chunk.iter().map(|caption| extractor.mentions(caption)).collect();
            done.lock().unwrap_or_else(PoisonError::into_inner)[index] = mentions;
        }
    };
    thread::scope(|scope| {
        for _ in 1..threads.min(chunks.len()) {
            scope.spawn(work);
        }
        work();
    });
    let done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    (!stopped.into_inner()).then(|| done.into_iter().flatten().collect())
}

/// Reads one caption a line and writes one JSON object a line: the canonical text and its mentions. Offsets are
/// characters (Unicode scalar values) of the canonical text, those of `start`, `end` the phrase's.
pub fn tag_text(
    path: &Path,
    mut from: impl BufRead,
    mut to: impl Write,
    extractor: &Extractor,
) -> Result<Totals, Error> {
    let mut totals = Totals::default();
    let mut line = Vec::new();
    loop {
        if interrupted() {
            return Err(Error::Interrupted);
        }
        line.clear();
        if from.read_until(b'\n', &mut line).map_err(Error::file("read", path))? == 0 {
            to.flush().map_err(Error::file("write", Path::new("standard output")))?;
            return Ok(totals);
        }
        let raw = String::from_utf8_lossy(&line);
        totals.captions_not_utf8 += u64::from(matches!(raw, std::borrow::Cow::Owned(_)));
        let text = canonical(&raw);
        let mentions = extractor.mentions(&text);
        totals.captions += 1;
        totals.mentions += mentions.len() as u64;
        totals.captions_without_mention += u64::from(mentions.is_empty());
        let object = text_json(&text, &mentions);
        writeln!(to, "{object}").map_err(Error::file("write", Path::new("standard output")))?;
    }
}

fn text_json(text: &str, mentions: &[concepts::Mention]) -> Value {
    let characters = |byte: usize| text.get(..byte).map_or(0, |before| before.chars().count());
    let mentions: Vec<Value> = mentions
        .iter()
        .map(|mention| {
            json!({
                "phrase": text.get(mention.phrase.clone()).unwrap_or_default(),
                "concept": mention.concept,
                "head": mention.head,
                "start": characters(mention.phrase.start),
                "end": characters(mention.phrase.end),
                "concept_start": characters(mention.concept_span.start),
                "concept_end": characters(mention.concept_span.end),
                "head_start": characters(mention.head_span.start),
                "head_end": characters(mention.head_span.end),
            })
        })
        .collect();
    json!({ "text": text, "mentions": mentions })
}

/// What `--text` names: a file, or standard input for "-".
pub fn open_text(path: &Path) -> Result<Box<dyn BufRead>, Error> {
    if path == Path::new("-") {
        return Ok(Box::new(std::io::stdin().lock()));
    }
    let file = fs::File::open(path).map_err(Error::file("read", path))?;
    Ok(Box::new(std::io::BufReader::new(file)))
}
