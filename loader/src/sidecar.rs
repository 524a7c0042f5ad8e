//! The sidecar of a shard, wherever the two lie.

use std::io;
use std::path::Path;

use concepts::sidecar::Sidecar;

use crate::{Error, shard, source};

/// Opens the sidecar of a shard, which may be remote ([`source`]), and checks that it was written for it: by the
/// shard's length in bytes and its number of samples; without `samples`, by the length alone.
///
/// # Errors
/// No sidecar; one that cannot be read; one of another shard, or of this shard before it was written again.
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
    // Of the file as it is stored: an archive's length is that of the decompressed tar.
    let bytes = source::length(path)?;
    let samples = samples.unwrap_or(sidecar.metadata.samples);
    sidecar.refuse_unless_for(path, bytes, samples).map_err(wrap)?;
    Ok(sidecar)
}
