//! Files wherever they are: on local disks, behind http(s), in object stores (`s3://`, `gs://`, `az://`).
//!
//! A file is named by a path; one that starts with a scheme is remote: `s3://bucket/shards/00000.tar` can be written
//! wherever `shards/00000.tar` can. Credentials and endpoints come from the environment, in the providers' own
//! variables: `AWS_ACCESS_KEY_ID`, `AWS_ENDPOINT_URL`, `GOOGLE_SERVICE_ACCOUNT`, `AZURE_STORAGE_ACCOUNT_NAME` ..
//!
//! # Failures
//! Refused connections, dropped ones, time-outs, answers of 500 and above and 429 are tried again, with growing pauses, for
//! [`RETRY_FOR`]; a server that sends nothing for [`SILENCE`] counts as dropped, one that is slow does not. A transfer
//! that broke off is taken up again at its first byte. What is missing or forbidden is an error at once. A range is
//! delivered whole or is an error.
//!
//! These calls wait; what runs underneath is asynchronous. They can be made from any thread, an asynchronous
//! runtime's blocking ones included.

mod remote;

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use bytes::Bytes;

use self::remote::Remote;
use crate::Error;

/// How long a remote request is tried; `LOADER_RETRY_SECONDS` in the environment changes it.
pub const RETRY_FOR: Duration = Duration::from_secs(180);

/// How long a remote server may send nothing.
pub const SILENCE: Duration = Duration::from_secs(30);

/// Whether a name stands for a file behind a network address.
pub fn is_remote(path: &Path) -> bool {
    scheme(path).is_some()
}

fn scheme(path: &Path) -> Option<&str> {
    let (scheme, _) = path.to_str()?.split_once("://")?;
    // Anything else before `://` is a folder with an odd name.
    ["http", "https", "s3", "s3a", "gs", "az", "azure", "abfs", "abfss", "adl"]
        .into_iter()
        .find(|&known| known == scheme)
}

/// A file opened for reading at any place, by several threads.
#[derive(Debug)]
pub struct Source {
    path: PathBuf,
    length: u64,
    version: String,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Local(File),
    Remote(Remote),
}

impl Source {
    /// Opens a file; one request for a remote one.
    pub fn open(path: &Path) -> Result<Self, Error> {
        if is_remote(path) {
            let remote = Remote::new(path)?;
            let (length, version) = remote.about()?;
            return Ok(Self { path: path.to_owned(), length, version, kind: Kind::Remote(remote) });
        }
        Self::from_file(path, File::open(path).map_err(Error::io(path))?)
    }

    /// An open local file; `path` names it in errors.
    pub(crate) fn from_file(path: &Path, file: File) -> Result<Self, Error> {
        let about = file.metadata().map_err(Error::io(path))?;
        let version = format!("{} {:?}", about.len(), about.modified().map_err(Error::io(path))?);
        Ok(Self { path: path.to_owned(), length: about.len(), version, kind: Kind::Local(file) })
    }

    /// The same, as a copy of another file.
    pub(crate) fn copy_of(original: &Self, file: File) -> Result<Self, Error> {
        let version = original.version.clone();
        Ok(Self { version, ..Self::from_file(&original.path, file)? })
    }

    /// Its name.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes.
    pub fn len(&self) -> u64 {
        self.length
    }

    /// What changes when the file is written again: its length, its date, a store's tag.
    pub(crate) fn version(&self) -> &str {
        &self.version
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Whether every read is a request.
    pub fn is_remote(&self) -> bool {
        matches!(self.kind, Kind::Remote(_))
    }

    /// `length` bytes at `offset`.
    ///
    /// # Errors
    /// A range beyond the end, named as damage of the file; whatever reading gives, after retries.
    pub fn read(&self, offset: u64, length: u64) -> Result<Bytes, Error> {
        if let Kind::Remote(remote) = &self.kind {
            self.check(offset, length)?;
            return remote.read(offset..offset + length);
        }
        let mut bytes = Vec::new();
        self.read_into(offset, length, &mut bytes)?;
        Ok(bytes.into())
    }

    /// The same into a buffer, whose memory is used again.
    pub fn read_into(&self, offset: u64, length: u64, buffer: &mut Vec<u8>) -> Result<(), Error> {
        self.check(offset, length)?;
        match &self.kind {
            Kind::Remote(remote) => *buffer = remote.read(offset..offset + length)?.into(),
            Kind::Local(file) => {
                buffer.resize(length as usize, 0);
                again(|| file.read_exact_at(buffer, offset)).map_err(|e| match e.kind() {
                    // The file was longer when it was opened.
                    io::ErrorKind::UnexpectedEof => {
                        Error::archive(&self.path, "became shorter while it was read")
                    }
                    _ => Error::io(&self.path)(e),
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
        let problem = format!("ends at byte {} but a member should reach {end}", self.length);
        Err(Error::archive(&self.path, problem))
    }

    /// A reader from its start, for one pass. A remote file is fetched in pieces of `ahead` bytes.
    pub fn reader(&self, ahead: u64) -> Reader<'_> {
        Reader { source: self, position: 0, ahead, fetched: (0, Bytes::new()) }
    }
}

/// Network file systems fail now and then and are well a moment later: three more tries over about two seconds.
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

/// Reads a [`Source`] from a place of its own.
#[derive(Debug)]
pub struct Reader<'a> {
    source: &'a Source,
    position: u64,
    ahead: u64,
    /// The piece in hand of a remote file, and where it starts.
    fetched: (u64, Bytes),
}

impl Read for Reader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = match &self.source.kind {
            Kind::Local(file) => again(|| file.read_at(buffer, self.position))?,
            Kind::Remote(_) => {
                let left = self.source.length.saturating_sub(self.position);
                if left == 0 || buffer.is_empty() {
                    return Ok(0);
                }
                let within =
                    |start: u64, piece: &Bytes| (start..start + piece.len() as u64).contains(&self.position);
                if !within(self.fetched.0, &self.fetched.1) {
                    let piece =
                        self.source.read(self.position, left.min(self.ahead)).map_err(io::Error::other)?;
                    self.fetched = (self.position, piece);
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

/// All bytes of a file. A missing one is an [`Error::Io`] of the kind `NotFound`, remote or not.
pub fn read(path: &Path) -> Result<Bytes, Error> {
    if is_remote(path) {
        Remote::new(path)?.read_all()
    } else {
        fs::read(path).map(Bytes::from).map_err(Error::io(path))
    }
}

/// Bytes of a file.
pub fn length(path: &Path) -> Result<u64, Error> {
    if is_remote(path) {
        Remote::new(path)?.length()
    } else {
        Ok(fs::metadata(path).map_err(Error::io(path))?.len())
    }
}

/// Paths of the files (not folders) in a folder, sorted by name. Plain http servers have no lists; WebDAV ones do.
pub fn list(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    if is_remote(folder) {
        return Remote::new(folder)?.list();
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(Error::io(folder))? {
        let path = entry.map_err(Error::io(folder))?.path();
        if !path.is_dir() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// Writes a file, whole or not at all: aside, synced and renamed on a local disk, as one object in a store.
pub fn write(path: &Path, bytes: impl Into<Bytes>) -> Result<(), Error> {
    if is_remote(path) {
        Remote::new(path)?.write(bytes.into())
    } else {
        concepts::files::write_atomic(path, &bytes.into()).map_err(Error::io(path))
    }
}

/// Copies a local file to `path`, whole or not at all, without holding more of it than a few pieces.
pub fn upload(file: &Path, path: &Path) -> Result<(), Error> {
    if is_remote(path) {
        return Remote::new(path)?.upload(file);
    }
    let mut from = File::open(file).map_err(Error::io(file))?;
    let mut to = concepts::files::AtomicFile::create(path).map_err(Error::io(path))?;
    io::copy(&mut from, &mut to).map_err(Error::io(path))?;
    to.commit().map_err(Error::io(path))
}

/// Removes a file; one that is not there is no error.
pub fn remove(path: &Path) -> Result<(), Error> {
    if is_remote(path) {
        return Remote::new(path)?.remove();
    }
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::io(path)(e)),
        _ => Ok(()),
    }
}
