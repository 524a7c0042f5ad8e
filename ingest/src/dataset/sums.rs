//! The checksums of a shard's files, `NNNNN.sha256` ([`concepts::checksums`]). `ingest download`, `shard` and `retry` write
//! them with the shard, `ingest tag` adds those of sidecars.
//!
//! A sidecar and its checksum cannot be replaced at once. So the checksum is removed first, then the sidecar is replaced, then
//! the new checksum is added: wherever a process is killed, no checksum is wrong, and the next `ingest tag` adds the missing
//! one.

use std::fmt::Display;

use concepts::checksums::{Checksums, sha256, sha256_of};
use storage::{Location, Source};

use crate::error::Error;

/// Bytes per request when a file is read from start to end.
const READ: u64 = 8 << 20;

/// The checksums in a file; `None` if it does not exist.
pub(crate) fn read(path: &Location) -> Result<Option<Checksums>, Error> {
    let bytes = match storage::read(path) {
        Ok(bytes) => bytes,
        Err(error) if storage::is_missing(&error) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let damaged = |problem: &dyn Display| {
        let fix = "make the shard again, or remove this file and run `ingest tag --force`";
        Error::input(path, format!("damaged: {problem}: {fix}"))
    };
    let text = std::str::from_utf8(&bytes).map_err(|error| damaged(&error))?;
    Checksums::parse(text).map(Some).map_err(|error| damaged(&error))
}

/// The SHA-256 of a file, local or not.
pub(crate) fn of_file(path: &Location) -> Result<String, Error> {
    let source = Source::open(path)?;
    sha256_of(source.reader(READ)).map_err(Error::file("read", path))
}

/// Removes the checksum of a file that will be replaced.
pub(crate) fn forget(sums_path: &Location, file: &Location) -> Result<(), Error> {
    let Some(mut sums) = read(sums_path)? else { return Ok(()) };
    if sums.remove(&name(file)) {
        write(sums_path, &sums)?;
    }
    Ok(())
}

/// Adds the checksum of a file that was written, unless it is there.
pub(crate) fn add(sums_path: &Location, file: &Location, sha256: String) -> Result<(), Error> {
    let mut sums = read(sums_path)?.unwrap_or_default();
    if sums.get(&name(file)) != Some(&sha256) {
        sums.set(&name(file), sha256);
        write(sums_path, &sums)?;
    }
    Ok(())
}

/// Whether the bytes of a file are those of its checksum; `None` if it has none.
pub(crate) fn agree(sums_path: &Location, file: &Location, bytes: &[u8]) -> Result<Option<bool>, Error> {
    Ok(read(sums_path)?.and_then(|sums| sums.get(&name(file)).map(|sum| *sum == sha256(bytes))))
}

/// Writes checksums; without any, removes the file.
pub(crate) fn write(path: &Location, sums: &Checksums) -> Result<(), Error> {
    if sums.is_empty() {
        storage::remove(path)?;
    } else {
        storage::write(path, sums.text())?;
    }
    Ok(())
}

fn name(file: &Location) -> String {
    file.file_name().into_owned()
}
