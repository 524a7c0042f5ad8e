//! Compressed shards.

use std::io::{self, BufRead, Read};

use storage::{Location, Source};

use crate::Error;

/// How a shard is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Compression {
    Gzip,
    Zstd,
}

impl Compression {
    /// The compression of a shard; `None` if it is a plain tar. A local file's first bytes decide, because many programs
    /// accept a compressed tar whose name ends in `.tar`; for a remote file, where reading them would cost a request, its
    /// name does.
    pub(super) fn of(source: &Source) -> Result<Option<Self>, Error> {
        if source.is_remote() {
            return Ok(Self::from_extension(source.location()));
        }
        Ok(Self::from_start(&source.read(0, source.len().min(4))?))
    }

    fn from_extension(shard: &Location) -> Option<Self> {
        match shard.extension()? {
            "zst" => Some(Self::Zstd),
            "gz" | "tgz" => Some(Self::Gzip),
            _ => None,
        }
    }

    /// From the first bytes of a file. They cannot begin a tar: its first byte is the first letter of a member's name.
    pub(super) fn from_start(bytes: &[u8]) -> Option<Self> {
        match bytes {
            [0x1F, 0x8B, ..] => Some(Self::Gzip),
            [0x28, 0xB5, 0x2F, 0xFD, ..] => Some(Self::Zstd),
            _ => None,
        }
    }

    /// The decompressed bytes of `from`, the contents of a shard's file.
    pub(super) fn decoder<'a>(
        self,
        source: &Source,
        from: impl BufRead + 'a,
    ) -> Result<Decompressed<'a>, Error> {
        let plain: Box<dyn Read + 'a> = match self {
            // Some programs write one gzip member after another.
            Self::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(from)),
            Self::Zstd => Box::new(zstd::Decoder::with_buffer(from).map_err(Error::read(source.location()))?),
        };
        let most = most_decompressed(source.len());
        Ok(Decompressed { plain, shard: source.location().clone(), read: 0, most })
    }
}

/// How many times larger than its file decompressed data may be, and what is always allowed, bytes: a small malicious file could
/// otherwise fill the disk. Headers of a tar and captions become some twenty times smaller.
const MAX_RATIO: u64 = 200;
const MIN_DECOMPRESSED: u64 = 256 << 20;

/// Maximum size of the contents of a compressed file of this length, bytes.
pub fn most_decompressed(length: u64) -> u64 {
    length.saturating_mul(MAX_RATIO).saturating_add(MIN_DECOMPRESSED)
}

/// The decompressed bytes of a shard, which end with an error after [`most_decompressed`].
pub(super) struct Decompressed<'a> {
    plain: Box<dyn Read + 'a>,
    shard: Location,
    /// Number of bytes read so far.
    pub(super) read: u64,
    most: u64,
}

impl Read for Decompressed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.plain.read(buffer)?;
        self.read += read as u64;
        if self.read > self.most {
            let problem = format!(
                "decompressing it takes more than {} bytes, {MAX_RATIO} times its size and {} MiB, which no shard of images does",
                self.most,
                MIN_DECOMPRESSED >> 20
            );
            return Err(io::Error::other(Error::archive(&self.shard, problem)));
        }
        Ok(read)
    }
}
