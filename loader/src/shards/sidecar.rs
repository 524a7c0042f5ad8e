//! Opens the sidecar of a shard, on disk or in an object store.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

use concepts::sidecar::{CaptionChecks, ConceptReader, Metadata, OLDEST_VERSION, Sidecar};
use storage::{Location, Source, is_missing};

use crate::Error;
use crate::shards::each::MANY;
use crate::shards::index::Index;
use crate::shards::set_index::{Described, known};
use crate::shards::tar::caption_checks;
use crate::shards::{for_each_shard, sidecar_path};

/// Opens the sidecar of a shard, which may be remote, and checks that it was written for this shard: that
/// the shard's file size and its number of samples agree. Without `samples`, only the file size is compared.
///
/// # Errors
/// The sidecar does not exist or cannot be read, or it was written for another shard or for an older version of this
/// one.
pub fn open(shard: impl Into<Location>, samples: Option<u32>) -> Result<Sidecar, Error> {
    let shard = &shard.into();
    let wrap = |source| Error::Sidecar { shard: shard.clone(), source };
    let path = sidecar_path(shard);
    let bytes = storage::read(&path).map_err(|error| missing(shard, error))?;
    let sidecar = Sidecar::from_bytes(&path.as_name(), bytes).map_err(wrap)?;
    // The size of the stored file; an open archive reports the size of the decompressed tar.
    let bytes = storage::length(shard)?;
    let samples = samples.unwrap_or(sidecar.metadata.samples);
    sidecar.refuse_unless_for(&shard.as_name(), bytes, samples).map_err(wrap)?;
    Ok(sidecar)
}

/// The footers, for captions that are read from this field of the `.json` members, or from the `.txt` members. Those that are
/// `known` from an index are not read; `done` counts the shards.
///
/// # Errors
/// Those of [`footers`]; or a sidecar has the mentions of captions in another field; or, where `all` captions of the field must have
/// been tagged, those of the `.txt` members.
pub(crate) fn footers_for(
    shards: &[Location],
    known: &[Option<Described>],
    field: Option<&str>,
    all: bool,
    done: &AtomicU64,
) -> Result<Vec<Metadata>, Error> {
    let footers = footers_of(shards, known, done)?;
    for (shard, footer) in shards.iter().zip(&footers) {
        let path = sidecar_path(shard).as_name();
        if let Some(field) = field.filter(|_| all && footer.field.is_none()) {
            let problem = format!(
                "has the mentions of the .txt members, but those of all captions in the field {field:?} are needed; run `ingest tag \
                 --captions json:{field}` on the folder"
            );
            return Err(Error::companion(&sidecar_path(shard), problem));
        }
        footer
            .refuse_unless_field(&path, field)
            .map_err(|source| Error::Sidecar { shard: shard.clone(), source })?;
    }
    Ok(footers)
}

fn missing(shard: &Location, error: storage::Error) -> Error {
    if is_missing(&error) {
        Error::NoSidecar { shard: shard.clone(), sidecar: sidecar_path(shard) }
    } else {
        error.into()
    }
}

/// Reads the footers of all sidecars, so that outdated ones are found when a run starts and not when it reaches them; where the
/// [index](super::set_index) of a folder has them, from there. Returns them in the order of the shards.
///
/// # Errors
/// Some of them count offsets in captions that another version of the rules has normalised
/// ([`concepts::CANONICAL_VERSION`]); or a sidecar does not exist or cannot be read.
pub fn footers<L: Into<Location>>(shards: impl IntoIterator<Item = L>) -> Result<Vec<Metadata>, Error> {
    let shards: Vec<Location> = shards.into_iter().map(Into::into).collect();
    footers_of(&shards, &known(&shards)?, &AtomicU64::new(0))
}

fn footers_of(
    shards: &[Location],
    known: &[Option<Described>],
    done: &AtomicU64,
) -> Result<Vec<Metadata>, Error> {
    let footers = for_each_shard(shards, MANY, "read its sidecar's footer", |shard| {
        let described = known.get(shard).and_then(|known| known.as_ref()?.sidecar.clone());
        let footer = described.map_or_else(|| metadata(&shards[shard]), Ok);
        done.fetch_add(1, Ordering::Relaxed);
        footer
    })?;
    let outdated = |(_, footer): &(&Location, &Metadata)| !footer.is_current();
    let sidecars: Vec<Location> =
        shards.iter().zip(&footers).filter(outdated).map(|(shard, _)| sidecar_path(shard)).collect();
    if sidecars.is_empty() { Ok(footers) } else { Err(Error::Outdated { sidecars, of: shards.len() }) }
}

/// A warning if `unchecked` of `all` sidecars have version 1.
pub fn unchecked_warning(unchecked: usize, all: usize) -> Option<String> {
    (unchecked > 0).then(|| {
        format!(
            "{unchecked} of {all} sidecars have version {OLDEST_VERSION}, which cannot tell whether captions have changed \
             since they were tagged; `ingest tag --force` makes them again"
        )
    })
}

/// Compares all captions of a shard with what a sidecar of it, whose footer is `metadata`, was made from. They are read from
/// where the loader would read them: from the shard's table if that has the positions of the images and they are no field of the
/// `.json` members, otherwise from the tar.
/// A sidecar of version 1 cannot tell; nothing is then read.
///
/// # Errors
/// The captions have changed, or the shard cannot be read.
pub fn compare_captions(shard: &Location, sidecar: &Location, metadata: &Metadata) -> Result<(), Error> {
    let needed = metadata.captions.is_some() && metadata.field.is_none();
    let table = if needed { table_captions(shard)? } else { None };
    compare_captions_with(table, shard, sidecar, metadata)
}

/// The same with what [`table_captions`] gives for the shard.
///
/// # Errors
/// As [`compare_captions`].
pub fn compare_captions_with(
    table: Option<CaptionChecks>,
    shard: &Location,
    sidecar: &Location,
    metadata: &Metadata,
) -> Result<(), Error> {
    if metadata.captions.is_none() {
        return Ok(());
    }
    let field = metadata.field.as_deref();
    let found = match table.filter(|_| field.is_none()) {
        Some(checks) => checks,
        None => caption_checks(shard, field, |_, _| Ok::<_, Error>(()))?,
    };
    let wrap = |source| Error::Sidecar { shard: shard.clone(), source };
    metadata.refuse_unless_captions(&sidecar.as_name(), &found).map_err(wrap)
}

/// The checks of the captions in a shard's table; `None` if the loader does not read captions from it.
///
/// # Errors
/// The table cannot be read, or does not match the shard.
pub fn table_captions(shard: &Location) -> Result<Option<CaptionChecks>, Error> {
    Ok(Index::from_its_table(shard)?.and_then(|index| index.caption_checks()))
}

/// How often each concept is mentioned in a shard's sidecar, which must have been made for it, as [`open`] says.
///
/// # Errors
/// As [`open`].
pub fn concept_counts(shard: &Location) -> Result<HashMap<String, u64>, Error> {
    let wrap = |source| Error::Sidecar { shard: shard.clone(), source };
    let path = sidecar_path(shard);
    let bytes = storage::read(&path).map_err(|error| missing(shard, error))?;
    let sidecar = ConceptReader::from_bytes(&path.as_name(), bytes).map_err(wrap)?;
    let about = &sidecar.metadata;
    about
        .refuse_unless_for(&path.as_name(), &shard.as_name(), storage::length(shard)?, about.samples)
        .map_err(wrap)?;
    sidecar.counts().map_err(wrap)
}

/// Bytes at the end of a sidecar that are read for its footer, which has a few thousand.
const END: u64 = 64 << 10;

/// The metadata of a shard's sidecar, from its footer.
pub fn metadata(shard: impl Into<Location>) -> Result<Metadata, Error> {
    let shard = &shard.into();
    let path = sidecar_path(shard);
    let file = Source::open(&path).map_err(|error| missing(shard, error))?;
    let read = |bytes: u64| -> Result<Metadata, Error> {
        let end = file.read(file.len() - bytes, bytes)?;
        Sidecar::metadata_at_end(&path.as_name(), &end, file.len())
            .map_err(|source| Error::Sidecar { shard: shard.clone(), source })
    };
    if file.len() <= END { read(file.len()) } else { read(END).or_else(|_| read(file.len())) }
}
