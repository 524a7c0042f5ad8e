//! The sidecars of a folder, and what each must have been made from: its shard, or the table that `captions.json`
//! lists.

use std::path::{Path, PathBuf};

use anyhow::{Context, Error, Result, anyhow, bail};
use bytes::Bytes;
use concepts::sidecar::{ConceptReader, Metadata, PARTS, Parts, Sidecar};
use loader::{shard, source, tar};

use crate::input;

/// A sidecar to count.
#[derive(Debug)]
pub(super) enum Source {
    /// Of a shard.
    Shard { shard: PathBuf, sidecar: PathBuf },
    /// Of a part of a table, with what the sidecar's footer must contain.
    Part { sidecar: PathBuf, footer: Box<Metadata> },
}

/// The sidecars of a folder. When one is missing, the error has its path.
pub(super) fn list(folder: &Path) -> Result<Vec<Source>> {
    if let Some(parts) = parts(folder)? {
        let numbered = (0..).zip(parts.footers());
        let sources = numbered.map(|(number, footer)| {
            let sidecar = Parts::path(folder, number);
            if !source::exists(&sidecar)? {
                bail!("{} does not exist; run `ingest tag --table` again to write it", sidecar.display());
            }
            Ok(Source::Part { sidecar, footer: Box::new(footer) })
        });
        return sources.collect();
    }
    let shards = input::shards(folder).map_err(|error| {
        let first = Parts::path(folder, 0);
        if source::exists(&first).unwrap_or(false) {
            anyhow!(
                "{} has neither a shard nor {PARTS} next to it; run the same `ingest tag --table` command again, \
                 which finishes it",
                first.display()
            )
        } else {
            error
        }
    })?;
    shards.into_iter().map(|shard| Ok(Source::Shard { sidecar: existing_sidecar(&shard)?, shard })).collect()
}

/// `captions.json` of a folder; `None` if it has none.
fn parts(folder: &Path) -> Result<Option<Parts>> {
    if !source::is_remote(folder) {
        return Ok(Parts::read(folder)?);
    }
    let path = folder.join(PARTS);
    match source::read(&path) {
        Ok(bytes) => Ok(Some(Parts::from_bytes(&path, &bytes)?)),
        Err(error) if source::is_missing(&error) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

impl Source {
    /// All mentions.
    pub(super) fn open(&self) -> Result<Sidecar> {
        Ok(Sidecar::from_bytes(self.sidecar(), self.read()?)?)
    }

    /// The concepts of the mentions, in pieces.
    pub(super) fn concepts(&self) -> Result<ConceptReader> {
        let path = self.sidecar();
        if source::is_remote(path) {
            Ok(ConceptReader::from_bytes(path, self.read()?)?)
        } else {
            Ok(ConceptReader::open(path)?)
        }
    }

    fn read(&self) -> Result<Bytes> {
        match self {
            Self::Shard { shard, sidecar } => read(shard, sidecar),
            Self::Part { sidecar, .. } => Ok(source::read(sidecar)?),
        }
    }

    pub(super) fn sidecar(&self) -> &Path {
        match self {
            Self::Shard { sidecar, .. } | Self::Part { sidecar, .. } => sidecar,
        }
    }

    /// Fails when the sidecar was made from another shard or table, or from an earlier state of it. All captions of a shard
    /// are compared; those of a table cannot be found.
    pub(super) fn check(&self, metadata: &Metadata) -> Result<()> {
        match self {
            Self::Shard { shard, sidecar } => {
                refuse_unless_for(shard, sidecar, metadata)?;
                compare_captions(shard, metadata)
            }
            Self::Part { sidecar, footer } => Ok(Parts::refuse_unless(footer, metadata, sidecar)?),
        }
    }
}

/// A shard's sidecar. Fails when it is missing or was made from another state of the shard.
pub(crate) fn sidecar_of(shard: &Path) -> Result<Sidecar> {
    let path = existing_sidecar(shard)?;
    let sidecar = Sidecar::from_bytes(&path, read(shard, &path)?)?;
    refuse_unless_for(shard, &path, &sidecar.metadata)?;
    Ok(sidecar)
}

/// Fails when the captions of a shard are not those that were tagged.
pub(crate) fn compare_captions(path: &Path, metadata: &Metadata) -> Result<()> {
    let again = || format!("run `ingest tag {}` again", input::folder_of(path).display());
    loader::sidecar::compare_captions(path, &shard::sidecar_path(path), metadata).with_context(again)
}

/// The path of a shard's sidecar. A remote one is looked for when it is read, because every look is a request.
fn existing_sidecar(path: &Path) -> Result<PathBuf> {
    let sidecar = shard::sidecar_path(path);
    if source::is_remote(path) || sidecar.exists() { Ok(sidecar) } else { Err(untagged(path, &sidecar)) }
}

/// The bytes of a shard's sidecar.
fn read(shard: &Path, sidecar: &Path) -> Result<Bytes> {
    source::read(sidecar)
        .map_err(|error| if source::is_missing(&error) { untagged(shard, sidecar) } else { error.into() })
}

fn untagged(shard: &Path, sidecar: &Path) -> Error {
    let folder = input::folder_of(shard).display();
    anyhow!("{} has no sidecar {}; run `ingest tag {folder}` first", shard.display(), sidecar.display())
}

fn refuse_unless_for(shard: &Path, sidecar: &Path, metadata: &Metadata) -> Result<()> {
    let bytes = source::length(shard)?;
    let samples = match loader::index::count_from_stats(shard)? {
        Some(samples) => samples,
        None => tar::Archive::open(shard)?.samples()?.len() as u32,
    };
    Ok(metadata.refuse_unless_for(sidecar, shard, bytes, samples)?)
}
