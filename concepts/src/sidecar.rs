//! The sidecar `NNNNN.concepts.parquet` beside a shard: one row a concept mention, in tar order.
//!
//! | column | type | |
//! |---|---|---|
//! | key | utf8 | key of the sample |
//! | sample | uint32 | position of the sample in the tar |
//! | phrase, concept, head | utf8, dictionary | the noun phrase as it stands in the canonical text; its concept; the lemma of its head |
//! | phrase_start, phrase_end, concept_start, concept_end | uint32 | bytes in the canonical text |
//! | tags | utf8 | Penn Treebank tags of the phrase's words |
//!
//! The footer's key `concepts` holds one JSON object, [`Metadata`].
//!
//! Captions that were tagged straight from a table have no shards; their sidecars are the numbered parts of a folder,
//! whose `captions.json` ([`Parts`]) they must match as others must match their shard.

mod concepts;
mod parts;
mod reader;
mod writer;

use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::Error;

pub use concepts::ConceptReader;
pub use parts::{PARTS, Parts, Table};
pub use reader::Sidecar;
pub use writer::Writer;

/// Version of the table's layout.
pub const VERSION: u32 = 1;

/// Footer key of the metadata.
pub const FOOTER_KEY: &str = "concepts";

/// What a sidecar was made from and by. The writer fills in the counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metadata {
    /// [`VERSION`] of the layout.
    pub version: u32,
    /// Name of the tagger.
    pub tagger: String,
    /// SHA-256 of the tagger's data, hexadecimal.
    pub tagger_hash: String,
    /// Version of the grammar and the concept rule.
    pub grammar: u32,
    /// File name of the shard, or of the table that the captions were read from.
    pub shard: String,
    /// Size of the shard or table, bytes.
    pub shard_bytes: u64,
    /// Of captions from tables: which rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<RowsOfTable>,
    /// Samples in the shard, those without a caption or a mention included.
    pub samples: u32,
    /// Captions (possibly empty) in which no mention was found.
    pub captions_without_mention: u32,
    /// Rows of the table.
    pub mentions: u64,
}

/// Where the captions of a part lie in its table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowsOfTable {
    /// Row of the input (all its tables, one after another, from 0) that is sample 0 of the part.
    pub first: u64,
    /// How they were read.
    #[serde(flatten)]
    pub cut: Cut,
}

/// How tables are read and cut into parts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cut {
    /// Rows of a part; the last part of a table may have fewer.
    pub part_size: u32,
    /// Column of captions; none when it was found by its name.
    pub caption: Option<String>,
    /// Column of keys; none where rows are counted.
    pub key: Option<String>,
}

impl Metadata {
    /// Metadata of a sidecar about to be written, counts at zero.
    pub fn new(tagger: &crate::TaggerDescription, shard: &Path, shard_bytes: u64) -> Self {
        Self {
            version: VERSION,
            tagger: tagger.name.clone(),
            tagger_hash: tagger.hash.clone(),
            grammar: tagger.grammar,
            shard: file_name(shard),
            shard_bytes,
            rows: None,
            samples: 0,
            captions_without_mention: 0,
            mentions: 0,
        }
    }

    /// The same with counts at zero: what two sidecars share that were made by the same tagger from the same captions.
    #[must_use]
    pub fn uncounted(&self) -> Self {
        Self { samples: 0, captions_without_mention: 0, mentions: 0, ..self.clone() }
    }

    /// Fails, by name, when the sidecar at `path` was not made from that shard as it is now.
    pub fn refuse_unless_for(
        &self,
        path: &Path,
        shard: &Path,
        shard_bytes: u64,
        samples: u32,
    ) -> Result<(), Error> {
        let name = file_name(shard);
        let what = if self.shard != name || self.rows.is_some() {
            format!("was made from {}, not from {name}", self.shard)
        } else if self.shard_bytes != shard_bytes {
            format!("was made from a shard of {} bytes, {name} has {shard_bytes}", self.shard_bytes)
        } else if self.samples != samples {
            format!("was made from {} samples, {name} has {samples}", self.samples)
        } else {
            return Ok(());
        };
        Err(Error::Stale { path: path.to_owned(), what })
    }
}

/// One mention as the sidecar holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MentionRow<'a> {
    /// Key of the sample.
    pub key: &'a str,
    /// Position of the sample in the tar.
    pub sample: u32,
    /// The noun phrase, as in the canonical text.
    pub phrase: &'a str,
    /// Last compound noun + lemma of the head.
    pub concept: &'a str,
    /// Lemma of the head.
    pub head: &'a str,
    /// Bytes of the phrase in the canonical text.
    pub phrase_span: Range<u32>,
    /// Bytes of the concept's words in the canonical text.
    pub concept_span: Range<u32>,
    /// Penn Treebank tags of the phrase's words, separated by spaces.
    pub tags: &'a str,
}

/// Where a shard's sidecar lies: `00000.tar` and `00000.tar.zst` have `00000.concepts.parquet`.
pub fn path_for(shard: &Path) -> PathBuf {
    let name = file_name(shard);
    let stem = [".tar", ".tar.zst"].iter().find_map(|suffix| name.strip_suffix(suffix)).unwrap_or(&name);
    shard.with_file_name(format!("{stem}.concepts.parquet"))
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
