//! Writes a tar whose bytes depend on its members alone: USTAR headers, time 0, a fixed owner, mode 0444. The file, compressed
//! or not as its name says, appears under its name only when it is complete.

use std::ffi::OsStr;
use std::io::{self, Write};
use std::path::Path;

use concepts::checksums::Hashing;
use disk::files::AtomicFile;
use flate2::write::GzEncoder;
use tar::{EntryType, Header};

/// Compression level of zstd. Images are compressed already, so a higher level would gain nothing.
const LEVEL: i32 = 3;
/// Members are padded to a multiple of this.
const BLOCK: u64 = 512;

enum Sink {
    Plain(Hashing<AtomicFile>),
    Compressed(Box<zstd::Encoder<'static, Hashing<AtomicFile>>>),
    Gzip(Box<GzEncoder<Hashing<AtomicFile>>>),
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(file) => file.write(bytes),
            Self::Compressed(file) => file.write(bytes),
            Self::Gzip(file) => file.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(file) => file.flush(),
            Self::Compressed(file) => file.flush(),
            Self::Gzip(file) => file.flush(),
        }
    }
}

pub(crate) struct TarWriter {
    sink: Sink,
    /// Bytes of the tar so far, before compression.
    position: u64,
}

impl TarWriter {
    /// Compressed if the name ends in `.tar.zst`, `.tar.gz` or `.tgz`.
    pub(crate) fn create(path: &Path) -> io::Result<Self> {
        let file = Hashing::new(AtomicFile::create(path)?);
        let sink = match path.extension().and_then(OsStr::to_str) {
            Some("zst") => {
                let mut encoder = zstd::Encoder::new(file, LEVEL)?;
                encoder.include_checksum(true)?;
                Sink::Compressed(Box::new(encoder))
            }
            Some("gz" | "tgz") => Sink::Gzip(Box::new(GzEncoder::new(file, flate2::Compression::default()))),
            _ => Sink::Plain(file),
        };
        Ok(Self { sink, position: 0 })
    }

    /// Adds a member; returns the offset of its bytes in the (uncompressed) tar.
    pub(crate) fn add(&mut self, name: &str, bytes: &[u8]) -> io::Result<u64> {
        let mut header = Header::new_ustar();
        header.set_path(name)?;
        header.set_entry_type(EntryType::Regular);
        header.set_size(bytes.len() as u64);
        header.set_mode(0o444);
        header.set_mtime(0);
        header.set_uid(0);
        header.set_gid(0);
        header.set_username("bigdata")?;
        header.set_groupname("bigdata")?;
        header.set_cksum();
        self.write(header.as_bytes())?;
        let start = self.position;
        self.write(bytes)?;
        let padding = (BLOCK - self.position % BLOCK) % BLOCK;
        self.write(&[0; BLOCK as usize][..padding as usize])?;
        Ok(start)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.position += bytes.len() as u64;
        self.sink.write_all(bytes)
    }

    /// Completes the tar and renames it to its final name. Returns the file's SHA-256.
    pub(crate) fn commit(mut self) -> io::Result<String> {
        self.write(&[0; 2 * BLOCK as usize])?;
        let file = match self.sink {
            Sink::Plain(file) => file,
            Sink::Compressed(encoder) => encoder.finish()?,
            Sink::Gzip(encoder) => encoder.finish()?,
        };
        let (file, sha256) = file.finish();
        file.commit()?;
        Ok(sha256)
    }
}
