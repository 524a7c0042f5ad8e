//! The sidecars of captions that were tagged directly from tables: `00000.concepts.parquet`, `00001.concepts.parquet`
//! and so on, with a fixed number of rows each; every table starts a new part. `captions.json` next to them is written
//! last and says what they were made from, as the shards do for other sidecars.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Cut, Metadata, RowsOfTable, first_version, is_first_version};
use crate::{CANONICAL_VERSION, Error, TaggerDescription};
use disk::files::write_atomic;

/// File name of [`Parts`] in its folder.
pub const PARTS: &str = "captions.json";

/// Version of `captions.json`.
const VERSION: u32 = 1;

/// What the parts of a folder were made from, and with which tagger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parts {
    /// Version of this file.
    pub version: u32,
    /// Name of the tagger.
    pub tagger: String,
    /// SHA-256 of the tagger's model or data, hexadecimal.
    pub tagger_hash: String,
    /// Version of the grammar and of the rule for concepts.
    pub grammar: u32,
    /// [`CANONICAL_VERSION`] of the text that the offsets count in, as in [`Metadata`].
    #[serde(default = "first_version", skip_serializing_if = "is_first_version")]
    pub canonical: u32,
    /// How the tables were read.
    #[serde(flatten)]
    pub cut: Cut,
    /// The tables, in the order in which they were read.
    pub tables: Vec<Table>,
}

/// One table of the input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    /// File name.
    pub name: String,
    /// File size, bytes.
    pub bytes: u64,
    /// Number of rows.
    pub rows: u64,
}

impl Parts {
    /// A description without tables.
    pub fn new(tagger: &TaggerDescription, cut: Cut) -> Self {
        Self {
            version: VERSION,
            tagger: tagger.name.clone(),
            tagger_hash: tagger.hash.clone(),
            grammar: tagger.grammar,
            canonical: CANONICAL_VERSION,
            cut,
            tables: Vec::new(),
        }
    }

    /// Reads `captions.json` of a folder; `None` if it does not exist or if `folder` is not a folder.
    pub fn read(folder: &Path) -> Result<Option<Self>, Error> {
        let path = folder.join(PARTS);
        match fs::read(&path) {
            Ok(json) => Self::from_bytes(&path, &json).map(Some),
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
            Err(error) => Err(Error::io(&path, "read")(error)),
        }
    }

    /// The same from the bytes of the file; `path` is its name in errors.
    pub fn from_bytes(path: &Path, json: &[u8]) -> Result<Self, Error> {
        let parts: Self = serde_json::from_slice(json)
            .map_err(|e| Error::table(path, format!("it is not a list of tagged tables: {e}")))?;
        if parts.version != VERSION || parts.cut.part_size == 0 {
            let what = format!(
                "it has version {}, but this program reads version {VERSION}; tag again",
                parts.version
            );
            return Err(Error::table(path, what));
        }
        Ok(parts)
    }

    /// Writes `captions.json` into a folder.
    pub fn write(&self, folder: &Path) -> Result<(), Error> {
        let path = folder.join(PARTS);
        write_atomic(&path, &self.to_bytes(&path)?).map_err(Error::io(&path, "write"))
    }

    /// The content of `captions.json`; `path` is its name in errors.
    pub fn to_bytes(&self, path: &Path) -> Result<Vec<u8>, Error> {
        let json = serde_json::to_string_pretty(self).map_err(|e| Error::write(path, e))?;
        Ok((json + "\n").into_bytes())
    }

    /// Path of a part.
    pub fn path(folder: &Path, number: u32) -> PathBuf {
        folder.join(format!("{number:05}.concepts.parquet"))
    }

    /// The metadata that the parts' footers must have, in order; their counts of mentions are 0.
    pub fn footers(&self) -> impl Iterator<Item = Metadata> {
        let size = u64::from(self.cut.part_size.max(1));
        let mut first = 0;
        self.tables.iter().flat_map(move |table| {
            let start = first;
            first += table.rows;
            (0..table.rows.div_ceil(size)).map(move |part| {
                let samples = (table.rows - part * size).min(size) as u32;
                Metadata { samples, ..self.footer(table, start + part * size) }
            })
        })
    }

    /// The metadata of the part of a table that begins with the row `first`; the counts are 0.
    pub fn footer(&self, table: &Table, first: u64) -> Metadata {
        Metadata {
            version: super::VERSION,
            tagger: self.tagger.clone(),
            tagger_hash: self.tagger_hash.clone(),
            grammar: self.grammar,
            canonical: self.canonical,
            shard: table.name.clone(),
            shard_bytes: table.bytes,
            field: None,
            rows: Some(RowsOfTable { first, cut: self.cut.clone() }),
            captions: None,
            samples: 0,
            captions_without_mention: 0,
            mentions: 0,
        }
    }

    /// Returns an error if the part at `path`, whose footer is `found`, is not the one that `footer` describes, or if its
    /// offsets count in canonical text of another version.
    pub fn refuse_unless(footer: &Metadata, found: &Metadata, path: &Path) -> Result<(), Error> {
        found.refuse_unless_current(path)?;
        if footer.uncounted() == found.uncounted() && footer.samples == found.samples {
            return Ok(());
        }
        let said = |it: &Metadata| {
            let first = it.rows.as_ref().map_or(String::new(), |rows| format!(" from row {} on", rows.first));
            let Metadata { samples, shard, shard_bytes, tagger, .. } = it;
            format!("{samples} captions of {shard} ({shard_bytes} bytes){first}, with the tagger {tagger}")
        };
        let what = format!("was made from {}, but {PARTS} describes {}", said(found), said(footer));
        Err(Error::Stale { path: path.to_owned(), what })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_table_starts_a_new_part() {
        let tagger = TaggerDescription { name: "hand".into(), hash: "00".into(), grammar: 7 };
        let mut parts = Parts::new(&tagger, Cut { part_size: 10, caption: None, key: None });
        for (name, rows) in [("a.csv", 25), ("empty.csv", 0), ("b.csv", 10)] {
            parts.tables.push(Table { name: name.into(), bytes: 1, rows });
        }
        let footers: Vec<_> =
            parts.footers().map(|it| (it.shard.clone(), it.rows.unwrap().first, it.samples)).collect();
        let expected = [("a.csv", 0, 10), ("a.csv", 10, 10), ("a.csv", 20, 5), ("b.csv", 25, 10)];
        assert_eq!(footers, expected.map(|(name, first, samples)| (name.to_owned(), first, samples)));

        // Parts of an older version are refused, also if captions.json is of the same version.
        let current = parts.footers().next().unwrap();
        Parts::refuse_unless(&current, &current, Path::new("00000.concepts.parquet")).unwrap();
        parts.canonical = 1;
        let older = parts.footers().next().unwrap();
        let error = Parts::refuse_unless(&older, &older, Path::new("00000.concepts.parquet")).unwrap_err();
        assert!(error.to_string().contains("version 1 of the rules"), "{error}");
    }
}
