//! Compressed shards.

use std::io::{self, BufRead, Read};
use std::path::Path;

use crate::Error;
use crate::source::Source;

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
            return Ok(Self::from_name(source.path()));
        }
        Ok(Self::from_start(&source.read(0, source.len().min(4))?))
    }

    fn from_name(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()? {
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

    /// The decompressed bytes of `from`.
    pub(super) fn decoder<'a>(self, from: impl BufRead + 'a) -> io::Result<Box<dyn Read + 'a>> {
        Ok(match self {
            // Some programs write one gzip member after another.
            Self::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(from)),
            Self::Zstd => Box::new(zstd::Decoder::with_buffer(from)?),
        })
    }
}
