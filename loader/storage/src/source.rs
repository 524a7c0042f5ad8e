//! One file, opened for reading at any position.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::thread;
use std::time::Duration;

use bytes::Bytes;

use crate::remote::Remote;
use crate::remote::version::Version as Opened;
use crate::{Error, Location};

/// A file opened for random access; several threads may read it at the same time.
#[derive(Debug)]
pub struct Source {
    location: Location,
    length: u64,
    version: String,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Local(File),
    /// With the version that was opened: another one is not read.
    Remote(Remote, Opened),
}

impl Source {
    /// Opens a file; sends one request if it is remote.
    pub fn open(location: impl Into<Location>) -> Result<Self, Error> {
        let location = location.into();
        match &location {
            Location::Local(path) => {
                let file = File::open(path).map_err(Error::read(&location))?;
                Self::from_file(location, file)
            }
            Location::Remote(address) => {
                let remote = Remote::new(address)?;
                let opened = remote.version()?;
                let (length, version) = (opened.length(), opened.text());
                Ok(Self { location, length, version, kind: Kind::Remote(remote, opened) })
            }
        }
    }

    /// Wraps an open local file; `location` is its name in errors.
    fn from_file(location: Location, file: File) -> Result<Self, Error> {
        let about = file.metadata().map_err(Error::read(&location))?;
        let version = format!("{} {:?}", about.len(), about.modified().map_err(Error::read(&location))?);
        Ok(Self { location, length: about.len(), version, kind: Kind::Local(file) })
    }

    /// Wraps an open local copy of another file, and keeps the original's path and version.
    pub fn copy_of(original: &Self, file: File) -> Result<Self, Error> {
        let version = original.version.clone();
        Ok(Self { version, ..Self::from_file(original.location.clone(), file)? })
    }

    /// Where the file is.
    pub fn location(&self) -> &Location {
        &self.location
    }

    /// Size, bytes.
    pub fn len(&self) -> u64 {
        self.length
    }

    /// A text that changes when the file is written again: made of its length, date, and the store's entity tag.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Whether the file is empty.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Whether the file is remote, so that every read is a request.
    pub fn is_remote(&self) -> bool {
        matches!(self.kind, Kind::Remote(..))
    }

    /// Reads `length` bytes at `offset`.
    ///
    /// # Errors
    /// The range ends beyond the end of the file ([`Error::Truncated`]), reading fails after all retries, or a
    /// remote file was replaced since it was opened ([`Error::Changed`]).
    pub fn read(&self, offset: u64, length: u64) -> Result<Bytes, Error> {
        if let Kind::Remote(remote, opened) = &self.kind {
            self.check(offset, length)?;
            return remote.read(opened, offset..offset + length);
        }
        let mut bytes = Vec::new();
        self.read_into(offset, length, &mut bytes)?;
        Ok(bytes.into())
    }

    /// The same, into a buffer whose memory is reused.
    pub fn read_into(&self, offset: u64, length: u64, buffer: &mut Vec<u8>) -> Result<(), Error> {
        self.check(offset, length)?;
        match &self.kind {
            Kind::Remote(remote, opened) => *buffer = remote.read(opened, offset..offset + length)?.into(),
            Kind::Local(file) => {
                buffer.resize(length as usize, 0);
                again(|| file.read_exact_at(buffer, offset)).map_err(|e| match e.kind() {
                    // The file was longer when it was opened.
                    io::ErrorKind::UnexpectedEof => {
                        Error::truncated(&self.location, "it became shorter while it was being read")
                    }
                    _ => Error::read(&self.location)(e),
                })?;
            }
        }
        Ok(())
    }

    fn check(&self, offset: u64, length: u64) -> Result<(), Error> {
        if offset.checked_add(length).is_some_and(|end| end <= self.length) {
            return Ok(());
        }
        let end = offset.saturating_add(length);
        let problem =
            format!("it is truncated: it ends at byte {}, but a member reaches byte {end}", self.length);
        Err(Error::truncated(&self.location, problem))
    }

    /// A sequential reader from the start of the file. A remote file is fetched in chunks of `ahead` bytes.
    pub fn reader(&self, ahead: u64) -> Reader<'_> {
        Reader { source: self, position: 0, ahead, fetched: (0, Bytes::new()) }
    }
}

/// Network file systems fail now and then and recover within a moment: three more tries over about two seconds.
const READ_TRIES: u32 = 3;
const READ_PAUSE: Duration = Duration::from_millis(300);

fn again<T>(mut read: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    let mut tries = 0;
    loop {
        match read() {
            Err(e) if e.kind() != io::ErrorKind::UnexpectedEof && tries < READ_TRIES => {
                thread::sleep(READ_PAUSE * (1 << tries));
                tries += 1;
            }
            result => return result,
        }
    }
}

/// A sequential reader of a [`Source`], with its own position.
#[derive(Debug)]
pub struct Reader<'a> {
    source: &'a Source,
    position: u64,
    ahead: u64,
    /// The last chunk fetched of a remote file: its offset and its bytes.
    fetched: (u64, Bytes),
}

impl Read for Reader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = match &self.source.kind {
            Kind::Local(file) => again(|| file.read_at(buffer, self.position))?,
            Kind::Remote(..) => {
                let left = self.source.length.saturating_sub(self.position);
                if left == 0 || buffer.is_empty() {
                    return Ok(0);
                }
                let within =
                    |start: u64, chunk: &Bytes| (start..start + chunk.len() as u64).contains(&self.position);
                if !within(self.fetched.0, &self.fetched.1) {
                    let chunk =
                        self.source.read(self.position, left.min(self.ahead)).map_err(io::Error::other)?;
                    self.fetched = (self.position, chunk);
                }
                let from = &self.fetched.1[(self.position - self.fetched.0) as usize..];
                let count = from.len().min(buffer.len());
                buffer[..count].copy_from_slice(&from[..count]);
                count
            }
        };
        self.position += read as u64;
        Ok(read)
    }
}

impl Seek for Reader<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let position = match to {
            SeekFrom::Start(position) => Some(position),
            SeekFrom::Current(by) => self.position.checked_add_signed(by),
            SeekFrom::End(by) => self.source.length.checked_add_signed(by),
        };
        self.position = position.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.position)
    }
}
