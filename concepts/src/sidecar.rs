//! The sidecar of a shard: the Parquet file `NNNNN.concepts.parquet` next to it, with one row per concept mention, in
//! tar order.
//!
//! | column | type | |
//! |---|---|---|
//! | key | utf8 | key of the sample |
//! | sample | uint32 | position of the sample in the tar, from 0 |
//! | phrase, concept, head | utf8, dictionary | the noun phrase as in the canonical text; its concept; the lemma of its head noun |
//! | phrase_start, phrase_end, concept_start, concept_end | uint32 | byte offsets into the canonical text, the end is exclusive |
//! | tags | utf8 | Penn Treebank tags of the phrase's words, separated by spaces |
//! | caption | uint32 | number of the caption in the sample, from 0; only if captions are from a field of the `.json` members |
//!
//! Canonical text is what [`canonical`](crate::canonical()) returns; a sidecar of another [version](CANONICAL_VERSION) is
//! refused, because its offsets count in another text. The footer's key `concepts` holds one JSON object,
//! [`Metadata`]. Between the rows and the footer is a hash of each sample's caption ([`Captions`]).
//!
//! Captions that were tagged directly from a table belong to no shard. Their sidecars are the numbered parts of a
//! folder. They must match the folder's `captions.json` ([`Parts`]), as other sidecars must match their shard.

mod captions;
mod concepts;
mod pages;
mod parts;
mod reader;
mod writer;

use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::tables::TableError;
use crate::{CANONICAL_VERSION, Error};

pub use captions::{CaptionCheck, CaptionChecks, Captions};
pub use concepts::ConceptReader;
pub use parts::{PARTS, Parts, Table};
pub use reader::Sidecar;
pub use writer::Writer;

/// Version of the sidecar's columns and metadata.
pub const VERSION: u32 = 2;

/// Version of sidecars of the captions in a field of the `.json` members, of which a sample may have several.
pub const FIELD_VERSION: u32 = 3;

/// Sidecars of this version are read too. They have no [`Captions`], so they know their source only by name, size and count.
pub const OLDEST_VERSION: u32 = 1;

/// Key of the metadata in the Parquet footer.
const FOOTER_KEY: &str = "concepts";

/// What a sidecar was made from, and with which tagger. The writer fills in the counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Metadata {
    /// [`VERSION`] of the columns and metadata, or [`FIELD_VERSION`] if there is a `field`.
    pub version: u32,
    /// Name of the tagger.
    pub tagger: String,
    /// SHA-256 of the tagger's model or data, hexadecimal.
    pub tagger_hash: String,
    /// Version of the grammar and of the rule for concepts.
    pub grammar: u32,
    /// [`CANONICAL_VERSION`] of the text that the offsets count in. Sidecars of version 1 do not have the field.
    #[serde(default = "first_version", skip_serializing_if = "is_first_version")]
    pub canonical: u32,
    /// File name of the shard, or of the table that the captions were read from.
    pub shard: String,
    /// Size of the shard or table, bytes.
    pub shard_bytes: u64,
    /// The field of the samples' `.json` members that the captions are from; `None` if they are the `.txt` members, or from a
    /// table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// Which rows of a table the captions are, if they come from a table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<RowsOfTable>,
    /// What the captions were; sidecars of version 1 do not have it. The writer fills it in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub captions: Option<Captions>,
    /// Number of samples in the shard, including those without a caption or a mention.
    pub samples: u32,
    /// Number of samples in whose captions no mention was found, or that have no caption.
    pub captions_without_mention: u32,
    /// Number of rows of the sidecar.
    pub mentions: u64,
}

/// Which rows of its table a part contains.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowsOfTable {
    /// Row of sample 0 of the part. Rows are counted from 0 over all tables of the input, in their order.
    pub first: u64,
    /// How the tables were read.
    #[serde(flatten)]
    pub cut: Cut,
}

/// How tables are read and split into parts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cut {
    /// Rows per part; the last part of a table may have fewer.
    pub part_size: u32,
    /// Column of the captions, if the user named it.
    pub caption: Option<String>,
    /// Column of the keys; `None` if keys are row numbers.
    pub key: Option<String>,
}

impl Metadata {
    /// Metadata for a new sidecar; the counts are 0.
    pub fn new(tagger: &crate::TaggerDescription, shard: &Path, shard_bytes: u64) -> Self {
        Self {
            version: VERSION,
            tagger: tagger.name.clone(),
            tagger_hash: tagger.hash.clone(),
            grammar: tagger.grammar,
            canonical: CANONICAL_VERSION,
            shard: file_name(shard),
            shard_bytes,
            field: None,
            rows: None,
            captions: None,
            samples: 0,
            captions_without_mention: 0,
            mentions: 0,
        }
    }

    /// From the JSON object in the footer of a sidecar.
    ///
    /// # Errors
    /// It is not one, or of a version that is not read.
    pub fn from_json(json: &str) -> Result<Self, TableError> {
        reader::metadata_from(json)
    }

    /// A copy without what only reading the captions tells: counts, and checks. Two sidecars from the same tagger and of
    /// shards with the same name and size agree in it.
    #[must_use]
    pub fn uncounted(&self) -> Self {
        Self {
            version: self.expected_version(),
            captions: None,
            samples: 0,
            captions_without_mention: 0,
            mentions: 0,
            ..self.clone()
        }
    }

    /// The version of sidecars of such captions that have checks.
    fn expected_version(&self) -> u32 {
        if self.field.is_some() { FIELD_VERSION } else { VERSION }
    }

    /// A number for what the mentions are of: the shard's name, the rows of a table, the tagger, and the captions. `None` if the
    /// sidecar has version 1, which does not know its captions.
    pub fn identity(&self) -> Option<u128> {
        let captions = self.captions.as_ref()?;
        let first = self.rows.as_ref().map(|rows| rows.first);
        let of = format!(
            "{}\n{first:?}\n{}\n{}\n{}\n{}",
            self.shard, self.tagger_hash, self.grammar, self.canonical, captions.sha256
        );
        let hash = Sha256::digest(of);
        hash.first_chunk().map(|bytes| u128::from_le_bytes(*bytes))
    }

    /// Whether the offsets count in canonical text of this program's version.
    pub fn is_current(&self) -> bool {
        self.canonical == CANONICAL_VERSION
    }

    /// Returns an error if the sidecar at `path` was not made from this shard, with this size and number of samples, or if
    /// its offsets count in canonical text of another version.
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
            format!("was made from a shard of {} bytes, but {name} has {shard_bytes} bytes", self.shard_bytes)
        } else if self.samples != samples {
            format!("was made from {} samples, but {name} has {samples}", self.samples)
        } else {
            return self.refuse_unless_current(path);
        };
        Err(Error::Stale { path: path.to_owned(), what })
    }

    /// Returns an error if the captions are not those that were tagged. A sidecar of version 1 cannot tell.
    pub fn refuse_unless_captions(&self, path: &Path, found: &CaptionChecks) -> Result<(), Error> {
        let same = |captions: &Captions| {
            found.samples() == u64::from(self.samples) && found.sha256() == captions.sha256
        };
        if self.captions.as_ref().is_none_or(same) {
            return Ok(());
        }
        let what = format!("was made from other captions than those that {} has now", self.shard);
        Err(Error::Stale { path: path.to_owned(), what })
    }

    /// Returns an error if the sidecar at `path` has the mentions of captions in another field of the `.json` members than
    /// `field`, the one that captions are read from (`None`: the `.txt` members). Mentions of `.txt` members fit any field:
    /// captions that are not the tagged one then have none.
    pub fn refuse_unless_field(&self, path: &Path, field: Option<&str>) -> Result<(), Error> {
        let Some(tagged) = self.field.as_deref().filter(|tagged| Some(*tagged) != field) else {
            return Ok(());
        };
        let read = field.map_or("the .txt members".to_owned(), |field| format!("the field {field:?}"));
        let what = format!(
            "was made from the captions in the field {tagged:?} of the .json members, but captions are read from {read}"
        );
        Err(Error::Stale { path: path.to_owned(), what })
    }

    fn refuse_unless_current(&self, path: &Path) -> Result<(), Error> {
        if self.is_current() {
            return Ok(());
        }
        let what = format!(
            "its offsets count in captions that were normalised by version {} of the rules, but this program has \
             version {CANONICAL_VERSION}",
            self.canonical
        );
        Err(Error::Stale { path: path.to_owned(), what })
    }
}

fn first_version() -> u32 {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
fn is_first_version(version: &u32) -> bool {
    *version == first_version()
}

/// One mention, as a row of the sidecar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MentionRow<'a> {
    /// Key of the sample.
    pub key: &'a str,
    /// Position of the sample in the tar, from 0.
    pub sample: u32,
    /// Number of the caption in the sample, from 0.
    pub caption: u32,
    /// The noun phrase, as in the canonical text.
    pub phrase: &'a str,
    /// The concept: the noun before the head, if there is one, and the lemma of the head.
    pub concept: &'a str,
    /// Lemma of the head.
    pub head: &'a str,
    /// Byte range of the phrase in the canonical text.
    pub phrase_span: Range<u32>,
    /// Byte range of the concept's words in the canonical text.
    pub concept_span: Range<u32>,
    /// Penn Treebank tags of the phrase's words, separated by spaces.
    pub tags: &'a str,
}

/// File name suffixes of shards.
pub const SHARD_SUFFIXES: [&str; 4] = [".tar", ".tar.zst", ".tar.gz", ".tgz"];

/// Path of a shard's sidecar: `00000.concepts.parquet` for `00000.tar` and `00000.tar.zst`.
pub fn path_for(shard: &Path) -> PathBuf {
    let name = file_name(shard);
    let stem = SHARD_SUFFIXES.iter().find_map(|suffix| name.strip_suffix(suffix)).unwrap_or(&name);
    shard.with_file_name(format!("{stem}.concepts.parquet"))
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
