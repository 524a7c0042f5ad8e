//! Reads the captions of a shard in one pass.

use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};

use concepts::sidecar::CaptionChecks;
use storage::{Location, Source};

use crate::error::SampleError;
use crate::shards::caption::{CAPTION_EXTENSION, FIELDS_EXTENSION, StoredCaptions, field_captions};

use super::compression::Compression;
use super::members::{FoundMember, members};
use super::{READ_AHEAD, reject_empty};
use crate::Error;

/// Larger `.txt` and `.json` members are not read, bytes: in a compressed shard a few bytes could claim to be gigabytes.
const MAX_CAPTION_BYTES: u64 = 256 << 20;

/// Calls `each` with the key and the captions of every sample, in tar order, in one pass of large reads: of a `field` of the
/// `.json` members, or the `.txt` members. Only the captions of one sample are in memory at a time, and a compressed shard is
/// decompressed on the fly. Returns the number of samples.
///
/// # Errors
/// As [`Archive::samples`](super::Archive::samples), and whatever `each` returns.
pub fn captions<E: From<Error>>(
    shard: impl Into<Location>,
    field: Option<&str>,
    each: impl FnMut(&str, StoredCaptions<'_>) -> Result<(), E>,
) -> Result<u64, E> {
    captions_by(&shard.into(), field, READ_AHEAD, each)
}

/// Bytes per read of a local tar of which only headers and captions are wanted: those of a sample follow one another, and
/// images are skipped.
const READ_LITTLE: usize = 8 << 10;

/// The checks of a shard's captions, to compare them with a sidecar ([`concepts::sidecar::Metadata`]). `each` is called for
/// every sample, too.
///
/// # Errors
/// As [`captions`].
pub fn caption_checks<E: From<Error>>(
    shard: impl Into<Location>,
    field: Option<&str>,
    mut each: impl FnMut(&str, StoredCaptions<'_>) -> Result<(), E>,
) -> Result<CaptionChecks, E> {
    let shard = shard.into();
    let ahead = if shard.is_remote() { READ_AHEAD } else { READ_LITTLE };
    let mut checks = CaptionChecks::default();
    captions_by(&shard, field, ahead, |key, captions| {
        checks.push(captions.check());
        each(key, captions)
    })?;
    Ok(checks)
}

/// With reads of `ahead` bytes.
fn captions_by<E: From<Error>>(
    shard: &Location,
    field: Option<&str>,
    ahead: usize,
    mut each: impl FnMut(&str, StoredCaptions<'_>) -> Result<(), E>,
) -> Result<u64, E> {
    members_by(
        shard,
        if field.is_some() { FIELDS_EXTENSION } else { CAPTION_EXTENSION },
        ahead,
        |key, member| {
            let Some(field) = field else { return each(key, StoredCaptions::Text(member)) };
            let none = SampleError::NoCaption { extension: FIELDS_EXTENSION };
            match member.ok_or(none).and_then(|json| field_captions(json, field)) {
                Ok(texts) => each(key, StoredCaptions::Field(&texts)),
                Err(problem) => each(key, StoredCaptions::Unreadable(&problem)),
            }
        },
    )
}

/// Calls `each` with the key of every sample, and with its member of this extension.
fn members_by<E: From<Error>>(
    shard: &Location,
    extension: &str,
    ahead: usize,
    mut each: impl FnMut(&str, Option<&[u8]>) -> Result<(), E>,
) -> Result<u64, E> {
    let source = Source::open(shard).map_err(Error::from)?;
    reject_empty(source.len(), shard)?;
    let mut file = BufReader::with_capacity(ahead, source.reader(READ_AHEAD as u64));
    let compression = Compression::from_start(file.fill_buf().map_err(Error::read(shard))?);
    let mut key = String::new();
    let mut caption = Vec::new();
    let (mut samples, mut captioned) = (0, false);
    let take = |member: FoundMember<'_, '_>| -> Result<(), E> {
        if member.first {
            if samples > 0 {
                each(&key, captioned.then_some(caption.as_slice()))?;
            }
            samples += 1;
            captioned = false;
            member.key.clone_into(&mut key);
        }
        if member.extension == extension {
            if member.length > MAX_CAPTION_BYTES {
                let problem =
                    format!("{} has {} bytes, which is too much for captions", member.name, member.length);
                return Err(Error::archive(shard, problem).into());
            }
            captioned = true;
            caption.clear();
            let read = member.data.read_to_end(&mut caption);
            let damaged = |e| Error::archive(shard, format!("it is damaged in {}: {e}", member.name));
            let read = read.map_err(Error::own_or(damaged))?;
            if read as u64 != member.length {
                return Err(Error::archive(shard, format!("it is truncated inside {}", member.name)).into());
            }
        }
        Ok(())
    };
    if let Some(compression) = compression {
        let mut archive = ::tar::Archive::new(compression.decoder(&source, file)?);
        members(archive.entries(), None, shard, take)?;
        // The tar may end before its compressed file does; damage after it counts, too.
        let rest = io::copy(&mut archive.into_inner(), &mut io::sink());
        rest.map_err(Error::own_or(|e| Error::archive(shard, format!("it cannot be decompressed: {e}"))))?;
    } else {
        let mut archive = ::tar::Archive::new(Skipping(file));
        members(archive.entries_with_seek(), Some(source.len()), shard, take)?;
    }
    if samples > 0 {
        each(&key, captioned.then_some(caption.as_slice()))?;
    }
    Ok(samples)
}

/// A buffered reader that keeps its buffer when it skips to a position inside the buffer.
pub(super) struct Skipping<R>(pub(super) BufReader<R>);

impl<R: Read> Read for Skipping<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl<R: Read + Seek> Seek for Skipping<R> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        match to {
            SeekFrom::Current(by) => self.0.seek_relative(by).and_then(|()| self.0.stream_position()),
            to => self.0.seek(to),
        }
    }
}
