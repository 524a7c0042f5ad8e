//! The mentions of samples on their way from one sidecar into another.

use std::ops::Range;

use bytes::Bytes;
use concepts::sidecar::{CaptionCheck, MentionRow, Metadata, Writer};
use loader::shards::sidecar as sidecars;
use storage::Location;

use crate::error::Error;
use crate::rewrite::tables::Origin;

/// The mentions of some samples of a shard.
pub(crate) struct Mentions {
    /// Of the sidecar that they are from.
    metadata: Metadata,
    samples: Vec<OfSample>,
}

struct OfSample {
    mentions: Vec<Mention>,
    /// The check of its captions; `None` in sidecars of version 1.
    check: Option<CaptionCheck>,
}

struct Mention {
    caption: u32,
    phrase: Box<str>,
    concept: Box<str>,
    head: Box<str>,
    phrase_span: Range<u32>,
    concept_span: Range<u32>,
    tags: Box<str>,
}

impl Mentions {
    /// Those of the samples at these positions of a shard with `count` samples.
    ///
    /// # Errors
    /// The sidecar is missing or damaged, or was made from another state of the shard.
    pub(crate) fn read(shard: &Location, count: u32, positions: &[u32]) -> Result<Self, Error> {
        let sidecar = sidecars::open(shard, Some(count))?;
        let samples = positions.iter().map(|&sample| OfSample {
            mentions: sidecar.mentions(sample).map(|row| Mention::of(&row)).collect(),
            check: sidecar.check(sample),
        });
        Ok(Self { samples: samples.collect(), metadata: sidecar.metadata.clone() })
    }
}

impl Mention {
    fn of(row: &MentionRow<'_>) -> Self {
        Self {
            caption: row.caption,
            phrase: row.phrase.into(),
            concept: row.concept.into(),
            head: row.head.into(),
            phrase_span: row.phrase_span.clone(),
            concept_span: row.concept_span.clone(),
            tags: row.tags.into(),
        }
    }

    fn row<'a>(&'a self, key: &'a str, sample: u32) -> MentionRow<'a> {
        MentionRow {
            key,
            sample,
            caption: self.caption,
            phrase: &self.phrase,
            concept: &self.concept,
            head: &self.head,
            phrase_span: self.phrase_span.clone(),
            concept_span: self.concept_span.clone(),
            tags: &self.tags,
        }
    }
}

/// The sidecar at `path` of the shard `shard`, whose file has `shard_bytes` bytes: the mentions of the samples in this order, which
/// have these keys. All sources are from sidecars of the same kind.
pub(super) fn sidecar<'a>(
    path: &Location,
    shard: &Location,
    shard_bytes: u64,
    sources: &[&Mentions],
    order: &[Origin],
    keys: impl Iterator<Item = &'a str>,
) -> Result<Bytes, Error> {
    let Some(source) = sources.first() else { return Ok(Bytes::new()) };
    let mut metadata = source.metadata.clone();
    metadata.shard = shard.file_name().into_owned();
    metadata.shard_bytes = shard_bytes;
    let mut writer = Writer::in_memory(&path.as_name(), metadata)?;
    for ((number, &(source, sample)), key) in (0..).zip(order).zip(keys) {
        let OfSample { mentions, check } = &sources[source].samples[sample];
        writer.copy(number, key, mentions.iter().map(|mention| mention.row(key, number)))?;
        if let Some(check) = check {
            writer.check(number, *check);
        }
    }
    Ok(writer.into_bytes()?.0.into())
}
