//! Input files on disk or at http(s), s3 and gs addresses, which are read in pieces.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bytes::Bytes;
use loader::shards::most_decompressed;
use parquet::errors::{ParquetError, Result as ParquetResult};
use parquet::file::reader::{ChunkReader, Length};
use storage::{Location, Source};

use crate::error::Error;

/// Bytes per request when a remote file is read from start to end.
const PIECE: u64 = 4 << 20;

/// Opens a file for sequential reading.
pub(crate) fn stream(file: &Location) -> Result<Box<dyn Read + Send>, Error> {
    match file {
        Location::Local(path) => Ok(Box::new(File::open(path).map_err(Error::file("read", path))?)),
        Location::Remote(_) => {
            Ok(Box::new(Stream { source: Source::open(file)?, position: 0, piece: Bytes::new() }))
        }
    }
}

struct Stream {
    source: Source,
    /// Position in the file where the current piece ends.
    position: u64,
    /// The unread rest of the current piece.
    piece: Bytes,
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.piece.is_empty() {
            let length = (self.source.len() - self.position).min(PIECE);
            self.piece = self.source.read(self.position, length).map_err(io::Error::other)?;
            self.position += length;
        }
        let count = self.piece.len().min(buffer.len());
        buffer[..count].copy_from_slice(&self.piece.split_to(count));
        Ok(count)
    }
}

/// A parquet file with random access.
#[derive(Clone)]
pub(super) enum Table {
    /// An uncompressed file.
    Source(Arc<Source>),
    /// Decompressed into an unnamed temporary file, which disappears when it is closed, and its length.
    Unpacked(Arc<File>, u64),
}

impl Table {
    /// A compressed table is first decompressed into the system's temporary folder.
    pub(super) fn open(path: &Location) -> Result<Self, Error> {
        let extension = path.extension().unwrap_or_default().to_ascii_lowercase();
        if extension != "gz" && extension != "zst" {
            return Ok(Self::Source(Arc::new(Source::open(path)?)));
        }
        let mut file = tempfile::tempfile().map_err(Error::file("write", std::env::temp_dir()))?;
        let most = most_decompressed(Source::open(path)?.len());
        let length =
            io::copy(&mut super::reader(path)?.take(most.saturating_add(1)), &mut file).and_then(|length| {
                file.flush()?;
                Ok(length)
            });
        let length = length.map_err(Error::file("decompress", path))?;
        if length > most {
            return Err(Error::input(path, format!("decompressing it takes more than {most} bytes")));
        }
        Ok(Self::Unpacked(Arc::new(file), length))
    }
}

impl Length for Table {
    fn len(&self) -> u64 {
        match self {
            Self::Source(source) => source.len(),
            Self::Unpacked(_, length) => *length,
        }
    }
}

impl ChunkReader for Table {
    type T = Chunk;

    fn get_read(&self, start: u64) -> ParquetResult<Chunk> {
        Ok(Chunk { table: self.clone(), position: start, piece: Bytes::new() })
    }

    fn get_bytes(&self, start: u64, length: usize) -> ParquetResult<Bytes> {
        match self {
            Self::Source(source) => {
                source.read(start, length as u64).map_err(|error| ParquetError::External(Box::new(error)))
            }
            Self::Unpacked(file, _) => {
                let mut bytes = vec![0; length];
                file.read_exact_at(&mut bytes, start)?;
                Ok(bytes.into())
            }
        }
    }
}

/// Reads a table from a given position.
pub(super) struct Chunk {
    table: Table,
    position: u64,
    piece: Bytes,
}

/// Bytes per read: page headers are read this way, and they have only a few dozen bytes.
const CHUNK: u64 = 64 << 10;

impl Read for Chunk {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.piece.is_empty() {
            let length = self.table.len().saturating_sub(self.position).min(CHUNK);
            let piece = self.table.get_bytes(self.position, length as usize);
            self.piece = piece.map_err(io::Error::other)?;
            self.position += length;
        }
        let count = self.piece.len().min(buffer.len());
        buffer[..count].copy_from_slice(&self.piece.split_to(count));
        Ok(count)
    }
}

/// The first and last bytes of a file, at most `limit` of each, and its length.
pub(crate) fn ends(path: &Location, limit: u64) -> Result<(Vec<u8>, u64), Error> {
    let Location::Local(path) = path else {
        let source = Source::open(path)?;
        let length = source.len();
        let mut bytes = source.read(0, length.min(limit))?.to_vec();
        if length > limit {
            let start = (length - limit).max(limit);
            bytes.extend_from_slice(&source.read(start, length - start)?);
        }
        return Ok((bytes, length));
    };
    let failed = || Error::file("read", path);
    let mut file = File::open(path).map_err(failed())?;
    let length = file.metadata().map_err(failed())?.len();
    let mut bytes = Vec::new();
    Read::by_ref(&mut file).take(limit).read_to_end(&mut bytes).map_err(failed())?;
    if length > limit {
        file.seek(SeekFrom::Start((length - limit).max(limit))).map_err(failed())?;
        file.take(limit).read_to_end(&mut bytes).map_err(failed())?;
    }
    Ok((bytes, length))
}
