//! Opens the sidecar of a shard, on disk or in an object store.

use std::io;
use std::path::Path;

use concepts::sidecar::Sidecar;

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
    let bytes = source::read(&sidecar_path).map_err(|error| match error {
        Error::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => {
            Error::NoSidecar { shard: path.to_owned(), sidecar: sidecar_path.clone() }
        }
        error => error,
    })?;
    let sidecar = Sidecar::from_bytes(&sidecar_path, bytes).map_err(wrap)?;
    // The size of the stored file; an open archive reports the size of the decompressed tar.
    let bytes = source::length(path)?;
    let samples = samples.unwrap_or(sidecar.metadata.samples);
    sidecar.refuse_unless_for(path, bytes, samples).map_err(wrap)?;
    Ok(sidecar)
}
