//! Reads all members of a shard in one pass, to check them.

use std::io::{self, BufRead, BufReader};

use storage::{Location, Source};

use super::compression::Compression;
use super::members::{FoundMember, members};
use super::{BLOCK, READ_AHEAD, reject_empty};
use crate::Error;

/// A member of a sample.
#[derive(Debug)]
pub struct Visited<'a> {
    /// Key of its sample.
    pub key: &'a str,
    /// Whether it is the first member of its sample.
    pub first: bool,
    /// The part of its name after the key's dot, in lower case.
    pub extension: &'a str,
    /// Offset of its data in the uncompressed tar, bytes.
    pub offset: u64,
    /// Length of its data, bytes.
    pub length: u64,
    /// Its bytes; empty if they were not asked for.
    pub data: &'a [u8],
}

/// Calls `each` for every member of every sample, in tar order, with the data of those members for whose extension `wanted` is
/// true. A compressed shard is decompressed on the fly, and only one member is in memory at a time. The pass includes the end of
/// the file. Returns whether the tar has the mark of its end, as [`Archive::samples_and_end`](super::Archive::samples_and_end).
///
/// # Errors
/// As [`Archive::samples`](super::Archive::samples), and whatever `each` returns.
pub fn visit<E: From<Error>>(
    shard: impl Into<Location>,
    wanted: impl Fn(&str) -> bool,
    mut each: impl FnMut(Visited<'_>) -> Result<(), E>,
) -> Result<bool, E> {
    let shard = &shard.into();
    let source = Source::open(shard).map_err(Error::from)?;
    reject_empty(source.len(), shard)?;
    let mut file = BufReader::with_capacity(READ_AHEAD, source.reader(READ_AHEAD as u64));
    let compression = Compression::from_start(file.fill_buf().map_err(Error::read(shard))?);
    let mut data = Vec::new();
    let take = |member: FoundMember<'_, '_>| -> Result<(), E> {
        let FoundMember { name, key, first, extension, offset, length, data: from } = member;
        data.clear();
        if wanted(extension) {
            let read = from.read_to_end(&mut data);
            let damaged = |e| Error::archive(shard, format!("it is damaged in {name}: {e}"));
            let read = read.map_err(Error::own_or(damaged))?;
            if read as u64 != length {
                return Err(Error::archive(shard, format!("it is truncated inside {name}")).into());
            }
        }
        each(Visited { key, first, extension, offset, length, data: &data })
    };
    if let Some(compression) = compression {
        let mut archive = ::tar::Archive::new(compression.decoder(&source, file)?);
        let end = members(archive.entries(), None, shard, take)?;
        // The tar may end before its compressed file does; damage after it counts, too.
        let mut plain = archive.into_inner();
        let rest = io::copy(&mut plain, &mut io::sink());
        rest.map_err(Error::own_or(|e| Error::archive(shard, format!("it cannot be decompressed: {e}"))))?;
        Ok(plain.read >= end + BLOCK)
    } else {
        let mut archive = ::tar::Archive::new(super::captions::Skipping(file));
        let end = members(archive.entries_with_seek(), Some(source.len()), shard, take)?;
        Ok(source.len() >= end + BLOCK)
    }
}
