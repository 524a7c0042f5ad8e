//! Opens the sidecar of a shard, on disk or in an object store.

use concepts::sidecar::{CaptionCheck, CaptionChecks, Metadata, OLDEST_VERSION, Sidecar};
use storage::{Location, Source, is_missing};

use crate::Error;
use crate::shards::index::{Caption, Index};
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

/// As [`footers`], for captions that are read from this field of the `.json` members, or from the `.txt` members.
///
/// # Errors
/// Those of [`footers`]; or a sidecar has the mentions of captions in another field; or, where `all` captions of the field must have
/// been tagged, those of the `.txt` members.
pub(crate) fn footers_for(
    shards: &[Location],
    field: Option<&str>,
    all: bool,
) -> Result<Vec<Metadata>, Error> {
    let footers = footers(shards)?;
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

/// Reads the footers of all sidecars, so that outdated ones are found when a run starts and not when it reaches them.
/// Returns them in the order of the shards.
///
/// # Errors
/// Some of them count offsets in captions that another version of the rules has normalised
/// ([`concepts::CANONICAL_VERSION`]); or a sidecar does not exist or cannot be read.
pub fn footers<L: Into<Location>>(shards: impl IntoIterator<Item = L>) -> Result<Vec<Metadata>, Error> {
    let shards: Vec<Location> = shards.into_iter().map(Into::into).collect();
    let footers =
        for_each_shard(&shards, READERS, "read its sidecar's footer", |shard| metadata(&shards[shard]))?;
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
    if metadata.captions.is_none() {
        return Ok(());
    }
    let field = metadata.field.as_deref();
    let table = if field.is_none() { table_captions(shard)? } else { None };
    let found = match table {
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
    let Some(index) = Index::from_its_table(shard)? else { return Ok(None) };
    let mut checks = CaptionChecks::default();
    for sample in 0..index.len() as u32 {
        checks.push(CaptionCheck::of(match index.caption(sample) {
            Some(Caption::Text(text)) => text.as_bytes(),
            _ => b"",
        }));
    }
    Ok(Some(checks))
}

/// Number of threads that read footers. They mostly wait.
const READERS: usize = 16;

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
