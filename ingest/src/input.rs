//! The input of a run: tables or a folder of pairs, checked before anything is fetched, opened one after another.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::error::Error;
use crate::image::hexadecimal;
use crate::rows::{self, Format, Rows, Wanted};
use crate::set::describe;

/// What the shards of a set are made from.
#[derive(Debug, Clone)]
pub enum Input {
    /// Tables of one format, in order; each starts a new shard.
    Tables {
        /// The files and how they are written.
        files: Vec<(PathBuf, Format)>,
        /// Which columns matter.
        wanted: Wanted,
    },
    /// A folder of pictures with a `.txt` beside each.
    Pairs(PathBuf),
}

/// What a first look at the input told.
pub(crate) struct Looked {
    /// What the manifest says of it.
    pub(crate) description: Value,
    /// Number of rows, where all files tell.
    pub(crate) rows: Option<u64>,
}

impl Input {
    /// A table, or a folder of tables.
    pub fn tables(path: &Path, format: Option<Format>, wanted: Wanted) -> Result<Self, Error> {
        Ok(Self::Tables { files: rows::files(path, format)?, wanted })
    }

    /// Opens every file once: a wrong column in the last of them must not come to light a day later.
    pub(crate) fn look(&self) -> Result<Looked, Error> {
        match self {
            Self::Tables { files, wanted } => {
                let mut total = Some(0);
                let mut described = Vec::new();
                for (path, format) in files {
                    let opened = rows::open(path, *format, wanted)?;
                    total = total.zip(opened.total()).map(|(total, rows)| total + rows);
                    described.push(describe(path)?);
                }
                let description = json!({
                    "files": described,
                    "url": wanted.url,
                    "caption": wanted.caption,
                    "no_captions": wanted.no_captions,
                    "additional": wanted.extra,
                    "hash": wanted.hash,
                });
                Ok(Looked { description, rows: total })
            }
            Self::Pairs(folder) => {
                let mut rows = rows::open_pairs(folder)?;
                let total = rows.total();
                let mut names = Sha256::new();
                while let Some(row) = rows.next_row()? {
                    names.update(row.url.as_bytes());
                    names.update([0]);
                }
                let hash = hexadecimal(&names.finalize()[..8]);
                Ok(Looked { description: json!({ "pictures": total, "hash_of_names": hash }), rows: total })
            }
        }
    }

    /// The inputs, opened when their turn comes.
    pub(crate) fn open(&self) -> Box<dyn Iterator<Item = Result<Box<dyn Rows>, Error>> + '_> {
        match self {
            Self::Tables { files, wanted } => {
                Box::new(files.iter().map(move |(path, format)| rows::open(path, *format, wanted)))
            }
            Self::Pairs(folder) => Box::new(std::iter::once_with(|| rows::open_pairs(folder))),
        }
    }

    /// Name for errors.
    pub(crate) fn path(&self) -> &Path {
        match self {
            Self::Tables { files, .. } => files.first().map_or(Path::new("input"), |(path, _)| path),
            Self::Pairs(folder) => folder,
        }
    }
}
