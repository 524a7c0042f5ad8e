//! The sidecars of captions that lie in tables: `00000.concepts.parquet`, `00001.concepts.parquet`, .. with a fixed number
//! of rows each, every table starting a new one. `captions.json` beside them, written last, says what all of them are
//! made from: it stands where the shards stand for other sidecars.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Cut, Metadata, RowsOfTable, VERSION};
use crate::files::write_atomic;
use crate::{Error, TaggerDescription};

/// File name of [`Parts`].
pub const PARTS: &str = "captions.json";

/// What the parts of a folder were made from and by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parts {
    /// [`VERSION`] of the layout.
    pub version: u32,
    /// Name of the tagger.
    pub tagger: String,
    /// SHA-256 of the tagger's data, hexadecimal.
    pub tagger_hash: String,
    /// Version of the grammar and the concept rule.
    pub grammar: u32,
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
    /// Size, bytes.
    pub bytes: u64,
    /// Rows.
    pub rows: u64,
}

impl Parts {
    /// No table yet.
    pub fn new(tagger: &TaggerDescription, cut: Cut) -> Self {
        Self {
            version: VERSION,
            tagger: tagger.name.clone(),
            tagger_hash: tagger.hash.clone(),
            grammar: tagger.grammar,
            cut,
            tables: Vec::new(),
        }
    }

    /// Reads a folder's `captions.json`; none when it has no such file, or is no folder.
    pub fn read(folder: &Path) -> Result<Option<Self>, Error> {
        let path = folder.join(PARTS);
        let json = match fs::read(&path) {
            Ok(json) => json,
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                return Ok(None);
            }
            Err(error) => return Err(Error::io(&path, "read")(error)),
        };
        let parts: Self = serde_json::from_slice(&json)
            .map_err(|e| Error::table(&path, format!("not a list of tagged tables: {e}")))?;
        if parts.version != VERSION || parts.cut.part_size == 0 {
            let what = format!("has version {}, this program reads {VERSION}; tag again", parts.version);
            return Err(Error::table(&path, what));
        }
        Ok(Some(parts))
    }

    /// Writes the folder's `captions.json`.
    pub fn write(&self, folder: &Path) -> Result<(), Error> {
        let path = folder.join(PARTS);
        let json = serde_json::to_string_pretty(self).map_err(|e| Error::table(&path, e))?;
        write_atomic(&path, (json + "\n").as_bytes()).map_err(Error::io(&path, "write"))
    }

    /// Where a part lies.
    pub fn path(folder: &Path, number: u32) -> PathBuf {
        folder.join(format!("{number:05}.concepts.parquet"))
    }

    /// What the parts' footers must say, in order; the counts of mentions are left at zero.
    pub fn footers(&self) -> impl Iterator<Item = Metadata> {
        let size = u64::from(self.cut.part_size.max(1));
        let mut first = 0;
        self.tables.iter().flat_map(move |table| {
            let start = first;
            first += table.rows;
            (0..table.rows.div_ceil(size)).map(move |part| Metadata {
                version: self.version,
                tagger: self.tagger.clone(),
                tagger_hash: self.tagger_hash.clone(),
                grammar: self.grammar,
                shard: table.name.clone(),
                shard_bytes: table.bytes,
                rows: Some(RowsOfTable { first: start + part * size, cut: self.cut.clone() }),
                samples: (table.rows - part * size).min(size) as u32,
                captions_without_mention: 0,
                mentions: 0,
            })
        })
    }

    /// Fails, by name, when the part at `path`, whose footer is `found`, is not the one that `footer` describes.
    pub fn refuse_unless(footer: &Metadata, found: &Metadata, path: &Path) -> Result<(), Error> {
        if footer.uncounted() == found.uncounted() && footer.samples == found.samples {
            return Ok(());
        }
        let said = |it: &Metadata| {
            let first = it.rows.as_ref().map_or(String::new(), |rows| format!(" from row {} on", rows.first));
            let Metadata { samples, shard, shard_bytes, tagger, .. } = it;
            format!("{samples} captions of {shard} ({shard_bytes} bytes){first}, tagger {tagger}")
        };
        let what = format!("was made from {}, {PARTS} beside it speaks of {}", said(found), said(footer));
        Err(Error::Stale { path: path.to_owned(), what })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_table_starts_a_part() {
        let tagger = TaggerDescription { name: "hand".into(), hash: "00".into(), grammar: 7 };
        let mut parts = Parts::new(&tagger, Cut { part_size: 10, caption: None, key: None });
        for (name, rows) in [("a.csv", 25), ("empty.csv", 0), ("b.csv", 10)] {
            parts.tables.push(Table { name: name.into(), bytes: 1, rows });
        }
        let footers: Vec<_> =
            parts.footers().map(|it| (it.shard.clone(), it.rows.unwrap().first, it.samples)).collect();
        let expected = [("a.csv", 0, 10), ("a.csv", 10, 10), ("a.csv", 20, 5), ("b.csv", 25, 10)];
        assert_eq!(footers, expected.map(|(name, first, samples)| (name.to_owned(), first, samples)));
    }
}
