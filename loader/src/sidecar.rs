//! Opens the sidecar of a shard, on disk or in an object store.

use std::io;
use std::path::{Path, PathBuf};

use concepts::sidecar::{CaptionChecks, Metadata, OLDEST_VERSION, Sidecar};

use crate::index::{Caption, Index};
use crate::pipeline::for_each_shard;
use crate::source::Source;
use crate::tar::caption_checks;
use crate::{Error, shard, source};

/// Opens the sidecar of a shard, which may be remote ([`source`]), and checks that it was written for this shard: that
/// the shard's file size and its number of samples agree. Without `samples`, only the file size is compared.
///
/// # Errors
/// The sidecar does not exist or cannot be read, or it was written for another shard or for an older version of this
/// one.
pub fn open(path: &Path, samples: Option<u32>) -> Result<Sidecar, Error> {
    let wrap = |source| Error::Sidecar { shard: path.to_owned(), source };
    let sidecar_path = shard::sidecar_path(path);
    let bytes = source::read(&sidecar_path).map_err(|error| missing(path, error))?;
    let sidecar = Sidecar::from_bytes(&sidecar_path, bytes).map_err(wrap)?;
    // The size of the stored file; an open archive reports the size of the decompressed tar.
    let bytes = source::length(path)?;
    let samples = samples.unwrap_or(sidecar.metadata.samples);
    sidecar.refuse_unless_for(path, bytes, samples).map_err(wrap)?;
    Ok(sidecar)
}

fn missing(shard: &Path, error: Error) -> Error {
    match error {
        Error::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => {
            Error::NoSidecar { shard: shard.to_owned(), sidecar: shard::sidecar_path(shard) }
        }
        error => error,
    }
}

/// Reads the footers of all sidecars, so that outdated ones are found when a run starts and not when it reaches them.
/// Returns them in the order of the shards.
///
/// # Errors
/// Some of them count offsets in captions that another version of the rules has normalised
/// ([`concepts::CANONICAL_VERSION`]); or a sidecar does not exist or cannot be read.
pub fn footers(shards: &[PathBuf]) -> Result<Vec<Metadata>, Error> {
    let footers =
        for_each_shard(shards, READERS, "read its sidecar's footer", |shard| metadata(&shards[shard]))?;
    let outdated = |(_, footer): &(&PathBuf, &Metadata)| !footer.is_current();
    let outdated: Vec<PathBuf> =
        shards.iter().zip(&footers).filter(outdated).map(|(shard, _)| shard.clone()).collect();
    if outdated.is_empty() {
        Ok(footers)
    } else {
        Err(Error::Outdated { shards: outdated, of: shards.len() })
    }
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
/// where the loader would read them: from the shard's table if that has the positions of the images, otherwise from the tar.
/// A sidecar of version 1 cannot tell; nothing is then read.
///
/// # Errors
/// The captions have changed, or the shard cannot be read.
pub fn compare_captions(path: &Path, sidecar: &Path, metadata: &Metadata) -> Result<(), Error> {
    if metadata.captions.is_none() {
        return Ok(());
    }
    let found = match table_captions(path)? {
        Some(checks) => checks,
        None => caption_checks(path, |_, _| Ok::<_, Error>(()))?,
    };
    let wrap = |source| Error::Sidecar { shard: path.to_owned(), source };
    metadata.refuse_unless_captions(sidecar, &found).map_err(wrap)
}

/// The checks of the captions in a shard's table; `None` if the loader does not read captions from it.
///
/// # Errors
/// The table cannot be read, or does not match the shard.
pub fn table_captions(path: &Path) -> Result<Option<CaptionChecks>, Error> {
    let Some(index) = Index::from_its_table(path)? else { return Ok(None) };
    let mut checks = CaptionChecks::default();
    for sample in 0..index.len() as u32 {
        checks.push(match index.caption(sample) {
            Some(Caption::Text(text)) => text.as_bytes(),
            _ => b"",
        });
    }
    Ok(Some(checks))
}

/// Number of threads that read footers. They mostly wait.
const READERS: usize = 16;

/// Bytes at the end of a sidecar that are read for its footer, which has a few thousand.
const END: u64 = 64 << 10;

/// The metadata of a shard's sidecar, from its footer.
pub fn metadata(shard: &Path) -> Result<Metadata, Error> {
    let path = shard::sidecar_path(shard);
    let file = Source::open(&path).map_err(|error| missing(shard, error))?;
    let read = |bytes: u64| -> Result<Metadata, Error> {
        let end = file.read(file.len() - bytes, bytes)?;
        Sidecar::metadata_at_end(&path, &end, file.len())
            .map_err(|source| Error::Sidecar { shard: shard.to_owned(), source })
    };
    if file.len() <= END { read(file.len()) } else { read(END).or_else(|_| read(file.len())) }
}
