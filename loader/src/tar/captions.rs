//! The captions of a shard, from one pass over it.

use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use super::members::{FoundMember, members};
use super::{CAPTION_EXTENSION, READ_AHEAD, refuse_nothing};
use crate::Error;
use crate::source::Source;

/// Hands over key and caption of every sample, in tar order, from one pass of large reads: nothing but the caption in
/// hand is in memory, and a `.tar.zst` is decoded on the way. Returns the number of samples.
///
/// # Errors
/// As [`Archive::samples`], and whatever `each` returns.
pub fn captions<E: From<Error>>(
    path: &Path,
    mut each: impl FnMut(&str, Option<&[u8]>) -> Result<(), E>,
) -> Result<u64, E> {
    let source = Source::open(path)?;
    refuse_nothing(source.len(), path)?;
    let file = BufReader::with_capacity(READ_AHEAD, source.reader(READ_AHEAD as u64));
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
        if member.extension == CAPTION_EXTENSION {
            captioned = true;
            caption.clear();
            let read = member.data.read_to_end(&mut caption);
            let read = read.map_err(|e| Error::archive(path, format!("damaged in {}: {e}", member.name)))?;
            if read as u64 != member.length {
                return Err(Error::archive(path, format!("ends inside {}", member.name)).into());
            }
        }
        Ok(())
    };
    if path.extension().is_some_and(|extension| extension == "zst") {
        let decoder = zstd::Decoder::with_buffer(file);
        let mut archive = ::tar::Archive::new(decoder.map_err(Error::io(path))?);
        members(archive.entries(), None, path, take)?;
        // A tar ends before its file does; damage after it is damage, too.
        let rest = io::copy(&mut archive.into_inner(), &mut io::sink());
        rest.map_err(|e| Error::archive(path, format!("cannot be decompressed: {e}")))?;
    } else {
        let mut archive = ::tar::Archive::new(Skipping(file));
        members(archive.entries_with_seek(), Some(source.len()), path, take)?;
    }
    if samples > 0 {
        each(&key, captioned.then_some(caption.as_slice()))?;
    }
    Ok(samples)
}

/// A buffered reader that keeps its buffer when it passes over less than is left in it.
struct Skipping<R>(BufReader<R>);

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
