//! The sidecars of a folder, and what each must have been made from: its shard, or the table that `captions.json`
//! lists.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use concepts::sidecar::{Metadata, PARTS, Parts, Sidecar};
use loader::{shard, tar};

use crate::input::{self, unreadable};

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
    if let Some(parts) = Parts::read(folder)? {
        let numbered = (0..).zip(parts.footers());
        let sources = numbered.map(|(number, footer)| {
            let sidecar = Parts::path(folder, number);
            if !sidecar.exists() {
                bail!("{} does not exist; run `ingest tag --table` again to write it", sidecar.display());
            }
            Ok(Source::Part { sidecar, footer: Box::new(footer) })
        });
        return sources.collect();
    }
    let shards = input::shards(folder).map_err(|error| {
        let first = Parts::path(folder, 0);
        if first.exists() {
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

impl Source {
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
    let sidecar = Sidecar::open(&path)?;
    refuse_unless_for(shard, &path, &sidecar.metadata)?;
    Ok(sidecar)
}

/// Fails when the captions of a shard are not those that were tagged.
pub(crate) fn compare_captions(path: &Path, metadata: &Metadata) -> Result<()> {
    let again = || format!("run `ingest tag {}` again", input::folder_of(path).display());
    loader::sidecar::compare_captions(path, &shard::sidecar_path(path), metadata).with_context(again)
}

fn existing_sidecar(path: &Path) -> Result<PathBuf> {
    let sidecar = shard::sidecar_path(path);
    if !sidecar.exists() {
        let (shard, sidecar, folder) = (path.display(), sidecar.display(), input::folder_of(path).display());
        bail!("{shard} has no sidecar {sidecar}; run `ingest tag {folder}` first");
    }
    Ok(sidecar)
}

fn refuse_unless_for(shard: &Path, sidecar: &Path, metadata: &Metadata) -> Result<()> {
    let bytes = fs::metadata(shard).map_err(|error| unreadable(shard, error))?.len();
    let samples = match loader::index::count_from_stats(shard)? {
        Some(samples) => samples,
        None => tar::Archive::open(shard)?.samples()?.len() as u32,
    };
    Ok(metadata.refuse_unless_for(sidecar, shard, bytes, samples)?)
}
