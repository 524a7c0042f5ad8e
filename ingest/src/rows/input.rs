//! The input of a run: tables, or a folder of images. All files are checked before the first sample is processed, then
//! opened one after another.

use concepts::checksums::hexadecimal;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use storage::Location;

use crate::error::Error;
use crate::rows::{self, Format, Rows, Wanted};

/// What the shards are made from.
#[derive(Debug, Clone)]
pub enum Input {
    /// Tables of one format, in order; each starts a new shard.
    Tables {
        /// The files and their formats.
        files: Vec<(Location, Format)>,
        /// Which columns are needed.
        wanted: Wanted,
    },
    /// A folder of images, each with its caption in a `.txt` file of the same name.
    Pairs {
        /// The folder; its subfolders are included.
        folder: Location,
        /// Whether the captions are read. Without them the samples have none.
        captioned: bool,
    },
}

/// What inspecting the input found.
pub(crate) struct Inspection {
    /// The description of the input for the manifest.
    pub(crate) description: Value,
    /// Number of rows, if all files declare it.
    pub(crate) rows: Option<u64>,
}

/// The inputs in order, each opened when the previous one has been read; each starts a new shard.
pub(crate) type Inputs<'a> = Box<dyn Iterator<Item = Result<Box<dyn Rows>, Error>> + 'a>;

impl Input {
    /// A table, or a folder of tables.
    pub fn tables(path: &Location, format: Option<Format>, wanted: Wanted) -> Result<Self, Error> {
        Ok(Self::Tables { files: rows::files(path, format)?, wanted })
    }

    /// Opens every file once, so that a wrong column in the last file is reported now and not hours later.
    pub(crate) fn inspect(&self) -> Result<Inspection, Error> {
        match self {
            Self::Tables { files, wanted } => {
                let mut total = Some(0);
                let mut described = Vec::new();
                for (path, format) in files {
                    let opened = rows::open(path, *format, wanted)?;
                    total = total.zip(opened.total()).map(|(total, rows)| total + rows);
                    described.push(describe(path)?);
                }
                let mut description = json!({
                    "files": described,
                    "url": wanted.url,
                    "caption": wanted.caption,
                    "no_captions": wanted.no_captions,
                    "additional": wanted.extra,
                    "hash": wanted.hash,
                });
                // Manifests of earlier versions do not have it.
                if !wanted.splits.is_empty() {
                    description["splits"] = json!(wanted.splits);
                }
                Ok(Inspection { description, rows: total })
            }
            Self::Pairs { folder, captioned } => {
                let mut rows = rows::open_pairs(folder, *captioned)?;
                let total = rows.total();
                let (mut names, mut captions) = (Sha256::new(), 0u64);
                while let Some(row) = rows.next_row()? {
                    names.update(row.url.as_bytes());
                    names.update([0]);
                    captions += u64::from(row.caption.is_some());
                }
                if *captioned && captions == 0 {
                    let problem = format!(
                        "none of its {} images has a caption file (.txt with the same name); add captions, pass a \
                         table of images and captions, or use --no-captions",
                        total.unwrap_or(0)
                    );
                    return Err(Error::input(folder, problem));
                }
                let hash = hexadecimal(&names.finalize()[..8]);
                // "pictures" is the key in manifests of earlier versions, whose runs can still be resumed.
                let mut description = json!({ "pictures": total, "hash_of_names": hash });
                if !captioned {
                    description["no_captions"] = true.into();
                }
                Ok(Inspection { description, rows: total })
            }
        }
    }

    /// The inputs, each opened when the previous one has been read.
    pub(crate) fn open(&self) -> Inputs<'_> {
        match self {
            Self::Tables { files, wanted } => {
                Box::new(files.iter().map(move |(path, format)| rows::open(path, *format, wanted)))
            }
            Self::Pairs { folder, captioned } => {
                Box::new(std::iter::once_with(|| rows::open_pairs(folder, *captioned)))
            }
        }
    }

    /// What errors name.
    pub(crate) fn path(&self) -> Location {
        match self {
            Self::Tables { files, .. } => files.first().map_or("input".into(), |(path, _)| path.clone()),
            Self::Pairs { folder, .. } => folder.clone(),
        }
    }
}

/// Identifies an input file by its name, size and a hash of its first and last bytes. (Hashing all of it could mean
/// terabytes, and its path may differ between machines.)
fn describe(path: &Location) -> Result<Value, Error> {
    const END: u64 = 64 << 10;
    let (ends, bytes) = rows::ends(path, END)?;
    let hash = hexadecimal(&Sha256::digest(&ends)[..8]);
    let name = path.file_name();
    Ok(json!({ "name": name, "bytes": bytes, "hash_of_ends": hash }))
}
