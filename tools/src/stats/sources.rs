//! Which sidecars a folder has, and what each must have been made from: its shard, or the table that `captions.json`
//! names.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use concepts::sidecar::{Metadata, PARTS, Parts, Sidecar};
use loader::{shard, tar};

/// A sidecar to count.
#[derive(Debug)]
pub(super) enum Source {
    /// Of a shard.
    Shard { shard: PathBuf, sidecar: PathBuf },
    /// Of a part of a table; with what its footer must say.
    Part { sidecar: PathBuf, footer: Metadata },
}

/// The sidecars of a folder; fails, by name, when one is missing.
pub(super) fn list(folder: &Path) -> Result<Vec<Source>> {
    if let Some(parts) = Parts::read(folder)? {
        let numbered = (0..).zip(parts.footers());
        let sources = numbered.map(|(number, footer)| {
            let sidecar = Parts::path(folder, number);
            if !sidecar.exists() {
                bail!("{} is missing; run `ingest tag --table` again to make it", sidecar.display());
            }
            Ok(Source::Part { sidecar, footer })
        });
        return sources.collect();
    }
    let inputs = [folder.to_owned()];
    let shards = shard::list(&inputs).map_err(|error| {
        let parts = Parts::path(folder, 0);
        if parts.exists() {
            let first = parts.display();
            anyhow::anyhow!(
                "{first} has neither a shard nor {PARTS} beside it: run `ingest tag --table` to its end"
            )
        } else {
            error.into()
        }
    })?;
    for unfinished in shard::incomplete(&inputs)? {
        eprintln!("left out: {} is not complete", unfinished.display());
    }
    shards.into_iter().map(|shard| Ok(Source::Shard { sidecar: existing_sidecar(&shard)?, shard })).collect()
}

impl Source {
    pub(super) fn sidecar(&self) -> &Path {
        match self {
            Self::Shard { sidecar, .. } | Self::Part { sidecar, .. } => sidecar,
        }
    }

    /// Fails, by name, when the sidecar was made from something else, or another state of it.
    pub(super) fn refuse_unless_it_is_its(&self, metadata: &Metadata) -> Result<()> {
        match self {
            Self::Shard { shard, sidecar } => refuse_unless_for(shard, sidecar, metadata),
            Self::Part { sidecar, footer } => Ok(Parts::refuse_unless(footer, metadata, sidecar)?),
        }
    }
}

/// A shard's sidecar; refused, by name, when it is missing or was made from another state of the shard.
pub(crate) fn sidecar_of(shard: &Path) -> Result<Sidecar> {
    let path = existing_sidecar(shard)?;
    let sidecar = Sidecar::open(&path)?;
    refuse_unless_for(shard, &path, &sidecar.metadata)?;
    Ok(sidecar)
}

fn existing_sidecar(path: &Path) -> Result<PathBuf> {
    let sidecar = shard::sidecar_path(path);
    if !sidecar.exists() {
        let (shard, sidecar) = (path.display(), sidecar.display());
        bail!("{shard} has no sidecar {sidecar}; run `ingest tag` on its folder first");
    }
    Ok(sidecar)
}

fn refuse_unless_for(shard: &Path, sidecar: &Path, metadata: &Metadata) -> Result<()> {
    let bytes = fs::metadata(shard).with_context(|| format!("cannot read {}", shard.display()))?.len();
    let samples = match loader::index::count_from_stats(shard)? {
        Some(samples) => samples,
        None => tar::Archive::open(shard)?.samples()?.len() as u32,
    };
    Ok(metadata.refuse_unless_for(sidecar, shard, bytes, samples)?)
}
