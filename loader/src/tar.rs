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
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use concepts::files::TEMPORARY;

pub use self::captions::captions;
use self::members::members;
use crate::Error;

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
pub struct Archive {
    path: PathBuf,
    file: File,
    length: u64,
}

impl Archive {
    /// Opens a `.tar`, or a `.tar.zst`, which is decoded into a nameless file in the system's temporary folder
    /// (`TMPDIR`) first; the space is free again when the archive is dropped, or the process ends in any way.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let mut file = File::open(path).map_err(Error::io(path))?;
        if path.extension().is_some_and(|extension| extension == "zst") {
            file = decompressed(file, path)?;
        }
        let length = file.metadata().map_err(Error::io(path))?.len();
        Ok(Self { path: path.to_owned(), file, length })
    }

    /// Name of the shard.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes of the tar, uncompressed.
    pub fn len(&self) -> u64 {
        self.length
    }

    /// Whether the tar has no bytes at all.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// The samples in tar order, from one pass over the headers.
    ///
    /// # Errors
    /// A damaged header, a member that ends beyond the file, an extension twice in a sample.
    pub fn samples(&self) -> Result<Vec<Sample>, Error> {
        samples(Positioned { file: &self.file, position: 0 }, self.length, &self.path)
    }

    /// `length` bytes at `offset`.
    pub fn read(&self, offset: u64, length: u64) -> Result<Vec<u8>, Error> {
        if offset.checked_add(length).is_none_or(|end| end > self.length) {
            let problem = format!(
                "ends at byte {} but a member should reach {}",
                self.length,
                offset.saturating_add(length)
            );
            return Err(Error::archive(&self.path, problem));
        }
        let mut bytes = vec![0; length as usize];
        let mut tries = 0;
        loop {
            match self.file.read_exact_at(&mut bytes, offset) {
                Ok(()) => return Ok(bytes),
                // The file was longer when it was opened.
                Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => {
                    return Err(Error::archive(&self.path, "became shorter while it was read"));
                }
                Err(e) if tries == READ_TRIES => return Err(Error::io(&self.path)(e)),
                Err(_) => std::thread::sleep(READ_PAUSE * (1 << tries)),
            }
            tries += 1;
        }
    }
}

/// Network file systems fail now and then and are well a moment later: three more tries over about two seconds.
const READ_TRIES: u32 = 3;
const READ_PAUSE: Duration = Duration::from_millis(300);

/// Decodes into a file that has no name any more, so nothing is left behind however the process ends.
fn decompressed(file: File, path: &Path) -> Result<File, Error> {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let name = format!("{TEMPORARY}{}-{number}.tar", std::process::id());
    let temporary = std::env::temp_dir().join(name);
    let plain = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&temporary)
        .map_err(Error::io(&temporary))?;
    fs::remove_file(&temporary).map_err(Error::io(&temporary))?;

    let mut decoder = zstd::Decoder::new(file).map_err(Error::io(path))?;
    let mut writer = BufWriter::with_capacity(1 << 18, plain);
    let mut buffer = vec![0; 1 << 17];
    loop {
        let read = decoder
            .read(&mut buffer)
            .map_err(|e| Error::archive(path, format!("cannot be decompressed: {e}")))?;
        if read == 0 {
            break;
        }
        writer.write_all(&buffer[..read]).map_err(Error::io(&temporary))?;
    }
    writer.into_inner().map_err(|e| Error::io(&temporary)(e.into_error()))
}

/// A file read from a place of its own, so that several threads can share it.
struct Positioned<'a> {
    file: &'a File,
    position: u64,
}

impl Read for Positioned<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut tries = 0;
        loop {
            match self.file.read_at(buffer, self.position) {
                Ok(read) => {
                    self.position += read as u64;
                    return Ok(read);
                }
                Err(e) if tries == READ_TRIES => return Err(e),
                Err(_) => std::thread::sleep(READ_PAUSE * (1 << tries)),
            }
            tries += 1;
        }
    }
}

impl Seek for Positioned<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let position = match to {
            SeekFrom::Start(position) => Some(position),
            SeekFrom::Current(by) => self.position.checked_add_signed(by),
            SeekFrom::End(_) => None,
        };
        self.position = position.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.position)
    }
}

/// The samples of a tar of `length` bytes; `shard` names it in errors.
fn samples(tar: impl Read + Seek, length: u64, shard: &Path) -> Result<Vec<Sample>, Error> {
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
