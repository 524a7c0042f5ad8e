//! The sidecars of a folder, and what each must have been made from: its shard, or the table that `captions.json`
//! lists.

use anyhow::{Context, Error, Result, anyhow, bail};
use bytes::Bytes;
use concepts::sidecar::{ConceptReader, Metadata, PARTS, Parts, Sidecar};
use loader::shards::set_index::Described;
use loader::shards::{self, Archive};
use storage::{Location, is_missing};

use crate::input;

/// A sidecar to count.
#[derive(Debug)]
pub(super) enum Source {
    /// Of a shard.
    Shard { shard: Location, sidecar: Location },
    /// Of a part of a table, with what the sidecar's footer must contain.
    Part { sidecar: Location, footer: Box<Metadata> },
}

/// The sidecars of a folder. When one is missing, the error has its path.
pub(super) fn list(folder: &Location) -> Result<Vec<Source>> {
    if let Some(parts) = parts(folder)? {
        let numbered = (0..).zip(parts.footers());
        let sources = numbered.map(|(number, footer)| {
            let sidecar = folder.join(Parts::path("".as_ref(), number));
            if !storage::exists(&sidecar)? {
                bail!("{sidecar} does not exist; run `ingest tag --table` again to write it");
            }
            Ok(Source::Part { sidecar, footer: Box::new(footer) })
        });
        return sources.collect();
    }
    let shards = input::shards(folder).map_err(|error| {
        let first = folder.join(Parts::path("".as_ref(), 0));
        if storage::exists(&first).unwrap_or(false) {
            anyhow!(
                "{first} has neither a shard nor {PARTS} next to it; run the same `ingest tag --table` command again, \
                 which finishes it"
            )
        } else {
            error
        }
    })?;
    shards.into_iter().map(|shard| Ok(Source::Shard { sidecar: existing_sidecar(&shard)?, shard })).collect()
}

/// `captions.json` of a folder; `None` if it has none.
fn parts(folder: &Location) -> Result<Option<Parts>> {
    if let Location::Local(folder) = folder {
        return Ok(Parts::read(folder)?);
    }
    let path = folder.join(PARTS);
    match storage::read(&path) {
        Ok(bytes) => Ok(Some(Parts::from_bytes(&path.as_name(), &bytes)?)),
        Err(error) if is_missing(&error) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

impl Source {
    /// All mentions.
    pub(super) fn open(&self) -> Result<Sidecar> {
        Ok(Sidecar::from_bytes(&self.sidecar().as_name(), self.read()?)?)
    }

    /// The concepts of the mentions, in pieces.
    pub(super) fn concepts(&self) -> Result<ConceptReader> {
        match self.sidecar() {
            Location::Local(path) => Ok(ConceptReader::open(path)?),
            remote @ Location::Remote(_) => Ok(ConceptReader::from_bytes(&remote.as_name(), self.read()?)?),
        }
    }

    fn read(&self) -> Result<Bytes> {
        match self {
            Self::Shard { shard, sidecar } => read(shard, sidecar),
            Self::Part { sidecar, .. } => Ok(storage::read(sidecar)?),
        }
    }

    pub(super) fn sidecar(&self) -> &Location {
        match self {
            Self::Shard { sidecar, .. } | Self::Part { sidecar, .. } => sidecar,
        }
    }

    /// Fails when the sidecar was made from another shard or table, or from an earlier state of it. All captions of a shard
    /// are compared; those of a table cannot be found. Returns the name of a shard, and what the index of its folder says of it.
    pub(super) fn check(&self, metadata: &Metadata) -> Result<Option<(String, Described)>> {
        let (shard, sidecar) = match self {
            Self::Shard { shard, sidecar } => (shard, sidecar),
            Self::Part { sidecar, footer } => {
                Parts::refuse_unless(footer, metadata, &sidecar.as_name())?;
                return Ok(None);
            }
        };
        let (described, captions) = shards::describe_without_sidecar(shard)?;
        let Described { bytes, samples, .. } = described;
        metadata.refuse_unless_for(&sidecar.as_name(), &shard.as_name(), bytes, samples)?;
        shards::sidecar::compare_captions_with(captions, shard, sidecar, metadata)
            .with_context(|| again(shard))?;
        let described = Described { sidecar: Some(metadata.clone()), ..described };
        Ok(Some((shard.file_name().into_owned(), described)))
    }
}

/// A shard's sidecar. Fails when it is missing or was made from another state of the shard.
pub(crate) fn sidecar_of(shard: &Location) -> Result<Sidecar> {
    let path = existing_sidecar(shard)?;
    let sidecar = Sidecar::from_bytes(&path.as_name(), read(shard, &path)?)?;
    refuse_unless_for(shard, &path, &sidecar.metadata)?;
    Ok(sidecar)
}

/// Fails when the captions of a shard are not those that were tagged.
pub(crate) fn compare_captions(shard: &Location, metadata: &Metadata) -> Result<()> {
    shards::sidecar::compare_captions(shard, &shards::sidecar_path(shard), metadata)
        .with_context(|| again(shard))
}

/// What to do about the sidecar of other captions.
fn again(shard: &Location) -> String {
    format!("run `ingest tag {}` again", input::folder_of(shard))
}

/// A shard's sidecar. A remote one is looked for when it is read, because every look is a request.
fn existing_sidecar(shard: &Location) -> Result<Location> {
    let sidecar = shards::sidecar_path(shard);
    if sidecar.is_remote() || sidecar.is_local_entry() { Ok(sidecar) } else { Err(untagged(shard, &sidecar)) }
}

/// The bytes of a shard's sidecar.
fn read(shard: &Location, sidecar: &Location) -> Result<Bytes> {
    storage::read(sidecar)
        .map_err(|error| if is_missing(&error) { untagged(shard, sidecar) } else { error.into() })
}

fn untagged(shard: &Location, sidecar: &Location) -> Error {
    let folder = input::folder_of(shard);
    anyhow!("{shard} has no sidecar {sidecar}; run `ingest tag {folder}` first")
}

fn refuse_unless_for(shard: &Location, sidecar: &Location, metadata: &Metadata) -> Result<()> {
    let bytes = storage::length(shard)?;
    let samples = match shards::count_from_stats(shard)? {
        Some(samples) => samples,
        None => Archive::open(shard)?.samples()?.len() as u32,
    };
    Ok(metadata.refuse_unless_for(&sidecar.as_name(), &shard.as_name(), bytes, samples)?)
}
