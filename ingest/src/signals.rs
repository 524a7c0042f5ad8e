//! `NNNNN.hash.parquet` ([`loader::shards::signals`]): the perceptual hash of each image and the language of each caption, written
//! with the shards that `ingest` makes, and by `ingest hash` next to the shards that others made.

mod language;

use std::sync::Arc;

use arrow_array::builder::{Float32Builder, StringBuilder, UInt64Builder};
use arrow_array::{ArrayRef, RecordBatch};
use loader::shards::signals::{HASH, Metadata, Signals, VERSION};
use serde_json::{Value, json};
use storage::Location;

pub(crate) use self::language::Language;
use crate::error::Error;

/// Version of the perceptual hash.
const PHASH_VERSION: u32 = 1;

/// What was hashed, which is the name of the column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hashed {
    /// The original image, before it was resized.
    Original,
    /// The image in the shard without its white border.
    Trimmed,
}

impl Hashed {
    /// Name of the column.
    pub(crate) fn column(self) -> &'static str {
        match self {
            Self::Original => "phash",
            Self::Trimmed => "phash_trimmed",
        }
    }

    /// The settings in the footer.
    pub(crate) fn settings(self) -> Value {
        json!({ self.column(): PHASH_VERSION, "language": language::DETECTOR })
    }
}

/// The rows of one file, in the order of the tar.
pub(crate) struct Columns {
    hashed: Hashed,
    keys: Vec<String>,
    hashes: UInt64Builder,
    languages: StringBuilder,
    confidences: Float32Builder,
}

impl Columns {
    pub(crate) fn new(hashed: Hashed) -> Self {
        Self {
            hashed,
            keys: Vec::new(),
            hashes: UInt64Builder::new(),
            languages: StringBuilder::new(),
            confidences: Float32Builder::new(),
        }
    }

    /// Adds the next sample.
    pub(crate) fn push(&mut self, key: &str, phash: Option<u64>, language: Option<Language>) {
        self.keys.push(key.to_owned());
        self.hashes.append_option(phash);
        self.languages.append_option(language.map(Language::code));
        self.confidences.append_option(language.map(|language| language.confidence));
    }

    /// Number of samples so far.
    pub(crate) fn len(&self) -> usize {
        self.keys.len()
    }

    /// The file of the shard, whose file has this size in bytes and, if known, this SHA-256.
    pub(crate) fn finish(
        mut self,
        shard: &Location,
        shard_bytes: u64,
        shard_sha256: Option<String>,
    ) -> Result<Signals, Error> {
        let columns: [(&str, ArrayRef, bool); 3] = [
            (self.hashed.column(), Arc::new(self.hashes.finish()), true),
            ("language", Arc::new(self.languages.finish()), true),
            ("language_confidence", Arc::new(self.confidences.finish()), true),
        ];
        let columns =
            RecordBatch::try_from_iter_with_nullable(columns).map_err(Error::parquet("write", shard))?;
        let metadata = Metadata {
            version: VERSION,
            producer: HASH.to_owned(),
            program: concat!("ingest ", env!("CARGO_PKG_VERSION")).to_owned(),
            settings: self.hashed.settings(),
            shard: shard.file_name().into_owned(),
            shard_bytes,
            shard_sha256,
            samples: 0,
        };
        Ok(Signals::new(metadata, self.keys, columns)?)
    }
}
