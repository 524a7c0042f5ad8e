//! The samples of a tar, found in one pass over its headers, grouped as WebDataset groups them.
//!
//! A sample is a run of neighbouring members with the same key. A member's key is its path up to the **first**
//! dot of the base name, the extension is what follows, lower-cased: `a/b.seg.PNG` has the key `a/b` and the
//! extension `seg.png`. Left out are members that are not regular files, names without a dot after the first
//! character of the base name, and names whose first folder (or the name itself) is framed by double
//! underscores. The same extension twice in a sample is an error, as it is there.

mod captions;
mod members;

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Read, Seek, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use concepts::files::TEMPORARY;

pub use self::captions::captions;
use self::members::members;
use crate::Error;
use crate::cache::{Cache, Placed};
use crate::source::Source;

/// A tar's block: headers take one, data whole ones.
pub const BLOCK: u64 = 512;

/// Extensions that hold a sample's image; the first one present counts.
pub const IMAGE_EXTENSIONS: [&str; 4] = ["jpg", "jpeg", "png", "webp"];

/// Extension that holds a sample's caption.
pub const CAPTION_EXTENSION: &str = "txt";

/// One sample of a tar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// Path of its members up to the first dot of the base name.
    pub key: String,
    /// Its members, in the order of the tar.
    pub members: Vec<Member>,
}

/// One member of a sample.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// What follows the key's dot, lower-cased.
    pub extension: String,
    /// Where its data start in the tar, bytes.
    pub offset: u64,
    /// Length of its data, bytes.
    pub length: u64,
}

impl Sample {
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

/// A shard opened for reading at any place.
#[derive(Debug)]
pub struct Archive(Source);

impl Archive {
    /// Opens a `.tar`, or a `.tar.zst`, which is decoded into a nameless file in the system's temporary folder
    /// (`TMPDIR`) first; the space is free again when the archive is dropped, or the process ends in any way.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let source = Source::open(path)?;
        if is_compressed(path) {
            let mut plain = nameless_file()?;
            decompress(&source, &mut Placed { to: &mut plain, place: &std::env::temp_dir() })?;
            return Ok(Self(Source::copy_of(&source, plain)?));
        }
        Ok(Self(source))
    }

    /// The same with a cache: remote shards are fetched whole, compressed ones decoded, once for all processes that
    /// share it.
    pub fn open_cached(path: &Path, cache: &Cache) -> Result<Self, Error> {
        let source = Source::open(path)?;
        let compressed = is_compressed(path);
        if !compressed && !source.is_remote() {
            return Ok(Self(source));
        }
        let file = cache.get(path, source.version(), source.len(), |mut to| {
            if compressed {
                return decompress(&source, &mut to);
            }
            let copied = io::copy(&mut source.reader(FETCH), &mut to).map_err(Error::io(path))?;
            if copied == source.len() {
                Ok(())
            } else {
                Err(Error::archive(path, "became shorter while it was read"))
            }
        })?;
        Ok(Self(Source::copy_of(&source, file)?))
    }

    /// Name of the shard.
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Bytes of the tar, uncompressed.
    pub fn len(&self) -> u64 {
        self.0.len()
    }

    /// What changes when the shard is written again.
    pub(crate) fn version(&self) -> &str {
        self.0.version()
    }

    /// Whether the tar has no bytes at all.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The samples in tar order, from one pass over the headers.
    ///
    /// # Errors
    /// A damaged header, a member that ends beyond the file, an extension twice in a sample.
    pub fn samples(&self) -> Result<Vec<Sample>, Error> {
        samples(self.0.reader(READ_AHEAD as u64), self.len(), self.path())
    }

    /// `length` bytes at `offset`.
    pub fn read(&self, offset: u64, length: u64) -> Result<Vec<u8>, Error> {
        Ok(self.0.read(offset, length)?.into())
    }

    /// The same into a buffer, whose memory is used again.
    pub fn read_into(&self, offset: u64, length: u64, buffer: &mut Vec<u8>) -> Result<(), Error> {
        self.0.read_into(offset, length, buffer)
    }
}

/// Bytes read at a time where a shard is read from its start to its end.
const READ_AHEAD: usize = 1 << 20;

/// Bytes of a remote shard in one request where all of it is fetched.
const FETCH: u64 = 16 << 20;

fn is_compressed(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "zst")
}

/// A file that has no name any more, so nothing is left behind however the process ends.
fn nameless_file() -> Result<File, Error> {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let name = format!("{TEMPORARY}{}-{number}.tar", std::process::id());
    let temporary = std::env::temp_dir().join(name);
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&temporary)
        .map_err(Error::io(&temporary))?;
    fs::remove_file(&temporary).map_err(Error::io(&temporary))?;
    Ok(file)
}

/// Decodes a `.tar.zst`.
fn decompress(source: &Source, plain: &mut dyn Write) -> Result<(), Error> {
    let path = source.path();
    let mut decoder = zstd::Decoder::new(source.reader(FETCH)).map_err(Error::io(path))?;
    let mut writer = BufWriter::with_capacity(1 << 18, plain);
    let mut buffer = vec![0; 1 << 17];
    loop {
        let read = decoder
            .read(&mut buffer)
            .map_err(|e| Error::archive(path, format!("cannot be decompressed: {e}")))?;
        if read == 0 {
            break;
        }
        writer.write_all(&buffer[..read]).map_err(Error::io(path))?;
    }
    writer.flush().map_err(Error::io(path))
}

/// Even a tar without members has bytes: a file without any is a download that did not begin.
fn refuse_nothing(length: u64, shard: &Path) -> Result<(), Error> {
    if length == 0 { Err(Error::archive(shard, "has no bytes")) } else { Ok(()) }
}

/// The samples of a tar of `length` bytes; `shard` names it in errors.
fn samples(tar: impl Read + Seek, length: u64, shard: &Path) -> Result<Vec<Sample>, Error> {
    refuse_nothing(length, shard)?;
    let mut archive = ::tar::Archive::new(tar);
    let mut samples: Vec<Sample> = Vec::new();
    members(archive.entries_with_seek(), Some(length), shard, |found| -> Result<(), Error> {
        let extension = found.extension.to_owned();
        let member = Member { extension, offset: found.offset, length: found.length };
        match samples.last_mut() {
            Some(sample) if !found.first => sample.members.push(member),
            _ => samples.push(Sample { key: found.key.to_owned(), members: vec![member] }),
        }
        Ok(())
    })?;
    if samples.len() > u32::MAX as usize {
        return Err(Error::archive(shard, "more than 4,294,967,295 samples"));
    }
    Ok(samples)
}
