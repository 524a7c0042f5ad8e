//! Finds the samples of a tar in one pass over its headers, and groups members into samples as WebDataset does
//! ([`crate::shards`]).

mod captions;
mod compression;
mod members;
mod visit;

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Read, Seek, Write};

use disk::files::temporary_path;
use storage::{Cache, Location, PathWriter, Source};

pub use self::captions::{caption_checks, captions};
use self::compression::Compression;
pub use self::compression::most_decompressed;
use self::members::members;
pub use self::visit::{Visited, visit};
use crate::Error;
use crate::shards::caption::CAPTION_EXTENSION;

/// Bytes per block of a tar. A header takes one block; data are padded to whole blocks.
pub(crate) const BLOCK: u64 = 512;

/// Extensions of image members; if a sample has several, the first of this list is used.
pub const IMAGE_EXTENSIONS: [&str; 8] = ["jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff"];

/// One sample of a tar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// Key: the path of its members up to the first dot of the base name.
    pub key: String,
    /// Its members, in tar order.
    pub members: Vec<Member>,
}

/// One member of a sample.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The part of its name after the key's dot, in lower case.
    pub extension: String,
    /// Offset of its data in the tar, bytes.
    pub offset: u64,
    /// Length of its data, bytes.
    pub length: u64,
}

/// A member of a sample with its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberData {
    /// Its whole name in the tar.
    pub name: String,
    /// Key of its sample.
    pub key: String,
    /// The part of its name after the key's dot, in lower case.
    pub extension: String,
    /// Its bytes.
    pub data: Vec<u8>,
}

impl Sample {
    /// Where its last member ends in the tar, with its padding, bytes.
    pub fn end(&self) -> u64 {
        self.members.last().map_or(0, |member| (member.offset + member.length).next_multiple_of(BLOCK))
    }

    /// The member with this extension.
    pub fn member(&self, extension: &str) -> Option<&Member> {
        self.members.iter().find(|member| member.extension == extension)
    }

    /// The member that holds the image.
    pub fn image(&self) -> Option<&Member> {
        IMAGE_EXTENSIONS.iter().find_map(|extension| self.member(extension))
    }

    /// The member that holds the caption.
    pub fn caption(&self) -> Option<&Member> {
        self.member(CAPTION_EXTENSION)
    }
}

/// A shard opened for random access.
#[derive(Debug)]
pub struct Archive {
    /// The tar, decompressed if it was compressed.
    source: Source,
    /// Size of the file as stored, bytes.
    stored: u64,
}

impl Archive {
    /// Opens a shard. A compressed one (`.tar.zst`, `.tar.gz`) is first decompressed into an unnamed file in the system's
    /// temporary folder (`TMPDIR`); its space is freed when the archive is dropped or the process ends in any way.
    pub fn open(shard: impl Into<Location>) -> Result<Self, Error> {
        let source = Source::open(shard)?;
        if let Some(compression) = Compression::of(&source)? {
            let mut plain = unnamed_file()?;
            let to = &mut PathWriter { to: &mut plain, path: &std::env::temp_dir() };
            decompress(&source, compression, to)?;
            return Ok(Self { stored: source.len(), source: Source::copy_of(&source, plain)? });
        }
        Ok(Self { stored: source.len(), source })
    }

    /// The same with a cache: remote shards are downloaded as a whole and compressed shards are decompressed, once for
    /// all processes that share the cache.
    pub fn open_cached(shard: &Location, cache: &Cache) -> Result<Self, Error> {
        let source = Source::open(shard)?;
        let compression = Compression::of(&source)?;
        if compression.is_none() && !source.is_remote() {
            return Ok(Self { stored: source.len(), source });
        }
        let file = cache.get(shard, source.version(), source.len(), |mut to| {
            if let Some(compression) = compression {
                return decompress(&source, compression, &mut to);
            }
            let copied = io::copy(&mut source.reader(FETCH), &mut to).map_err(Error::io(shard, "copy"))?;
            if copied == source.len() {
                Ok(())
            } else {
                Err(Error::archive(shard, "it became shorter while it was being read"))
            }
        })?;
        Ok(Self { stored: source.len(), source: Source::copy_of(&source, file)? })
    }

    /// Where the shard is.
    pub fn location(&self) -> &Location {
        self.source.location()
    }

    /// Size of the tar, uncompressed, bytes.
    pub fn len(&self) -> u64 {
        self.source.len()
    }

    /// Size of the shard's file as stored, bytes.
    pub(crate) fn stored(&self) -> u64 {
        self.stored
    }

    /// A text that changes when the shard is written again.
    pub(crate) fn version(&self) -> &str {
        self.source.version()
    }

    /// Whether the tar has 0 bytes.
    pub fn is_empty(&self) -> bool {
        self.source.is_empty()
    }

    /// The samples in tar order, found in one pass over the headers.
    ///
    /// # Errors
    /// A header is damaged, a member ends beyond the end of the file, or a sample has an extension twice.
    pub fn samples(&self) -> Result<Vec<Sample>, Error> {
        Ok(self.samples_and_end()?.0)
    }

    /// The same, and whether the tar has the mark of its end, a block of zeros. One without it may have been cut between two
    /// members, which nothing else in a tar shows; but some programs never write the mark.
    pub fn samples_and_end(&self) -> Result<(Vec<Sample>, bool), Error> {
        samples(self.source.reader(READ_AHEAD as u64), self.len(), self.location())
    }

    /// The members of samples between two places of the tar, bytes, both of which are the start or the end of a member with its
    /// header and its padding.
    ///
    /// # Errors
    /// As [`Archive::samples`].
    pub fn members(&self, from: u64, to: u64) -> Result<Vec<MemberData>, Error> {
        let bytes = self.source.read(from, to.saturating_sub(from))?;
        let mut archive = ::tar::Archive::new(&bytes[..]);
        let mut found = Vec::new();
        let length = Some(bytes.len() as u64);
        members(archive.entries(), length, self.location(), |member| -> Result<(), Error> {
            let (name, key, extension) =
                (member.name.to_owned(), member.key.to_owned(), member.extension.to_owned());
            let mut data = Vec::new();
            member.data.read_to_end(&mut data).map_err(Error::read(self.location()))?;
            found.push(MemberData { name, key, extension, data });
            Ok(())
        })?;
        Ok(found)
    }

    /// Reads `length` bytes at `offset`.
    pub fn read(&self, offset: u64, length: u64) -> Result<Vec<u8>, Error> {
        Ok(self.source.read(offset, length)?.into())
    }

    /// The same, into a buffer whose memory is reused.
    pub fn read_into(&self, offset: u64, length: u64, buffer: &mut Vec<u8>) -> Result<(), Error> {
        Ok(self.source.read_into(offset, length, buffer)?)
    }
}

/// Bytes per read when a shard is read from start to end.
const READ_AHEAD: usize = 1 << 20;

/// Bytes per request when a remote shard is downloaded as a whole.
const FETCH: u64 = 16 << 20;

/// A temporary file whose name is already removed, so that nothing is left behind however the process ends.
fn unnamed_file() -> Result<File, Error> {
    let temporary = temporary_path(&std::env::temp_dir().join("shard.tar"));
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&temporary)
        .map_err(Error::io(&temporary, "write"))?;
    fs::remove_file(&temporary).map_err(Error::io(&temporary, "write"))?;
    Ok(file)
}

/// Decompresses a whole shard.
fn decompress(source: &Source, compression: Compression, plain: &mut dyn Write) -> Result<(), Error> {
    let shard = source.location();
    let from = BufReader::with_capacity(READ_AHEAD, source.reader(FETCH));
    let mut decoder = compression.decoder(source, from)?;
    let mut writer = BufWriter::with_capacity(1 << 18, plain);
    let mut buffer = vec![0; 1 << 17];
    loop {
        let read = decoder
            .read(&mut buffer)
            .map_err(Error::own_or(|e| Error::archive(shard, format!("it cannot be decompressed: {e}"))))?;
        if read == 0 {
            break;
        }
        writer.write_all(&buffer[..read]).map_err(Error::io(shard, "decompress"))?;
    }
    writer.flush().map_err(Error::io(shard, "decompress"))
}

/// Rejects an empty file. Even a tar without members has bytes; an empty file is a download that did not begin.
fn reject_empty(length: u64, shard: &Location) -> Result<(), Error> {
    if length == 0 { Err(Error::archive(shard, "it is empty (0 bytes)")) } else { Ok(()) }
}

/// The samples of a tar of `length` bytes, and whether it has the mark of its end; `shard` is its path in errors.
fn samples(tar: impl Read + Seek, length: u64, shard: &Location) -> Result<(Vec<Sample>, bool), Error> {
    reject_empty(length, shard)?;
    let mut archive = ::tar::Archive::new(tar);
    let mut samples: Vec<Sample> = Vec::new();
    let end = members(archive.entries_with_seek(), Some(length), shard, |found| -> Result<(), Error> {
        let extension = found.extension.to_owned();
        let member = Member { extension, offset: found.offset, length: found.length };
        match samples.last_mut() {
            Some(sample) if !found.first => sample.members.push(member),
            _ => samples.push(Sample { key: found.key.to_owned(), members: vec![member] }),
        }
        Ok(())
    })?;
    if samples.len() > u32::MAX as usize {
        return Err(Error::archive(shard, "it has more than 4,294,967,295 samples"));
    }
    Ok((samples, length >= end + BLOCK))
}
