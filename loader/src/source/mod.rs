//! Access to files on local disks, on http(s) servers, in object stores (`s3://`, `gs://`, `az://`) and on the Hugging
//! Face Hub (`hf://datasets/OWNER/NAME/PATH`).
//!
//! A path that starts with one of these schemes is remote: `s3://bucket/shards/00000.tar` can be given wherever
//! `shards/00000.tar` can. Credentials and endpoints come from the environment variables of the providers' own tools:
//! `AWS_ACCESS_KEY_ID`, `AWS_ENDPOINT_URL`, `GOOGLE_SERVICE_ACCOUNT`, `AZURE_STORAGE_ACCOUNT_NAME` and so on. The hub's
//! are `HF_TOKEN` and `HF_ENDPOINT`; `LOADER_HTTP_TOKENS` has bearer tokens for other https servers, as `HOST=TOKEN`,
//! separated by commas. A token is sent to its host alone, also after a redirect.
//!
//! # Retries
//! Refused and dropped connections, timeouts, and the HTTP statuses 429 and 500 or higher are retried with growing
//! pauses, for [`RETRY_FOR`]. A server that sends nothing for [`SILENCE`] counts as dropped; a slow server does not. A
//! transfer that breaks off starts again at its first byte. A missing file or denied access is an error at once. A
//! range of bytes is returned in full or is an error. So is a file that is replaced between two reads, as far as the
//! server's entity tags, dates and lengths show it. When a server fails for more than two seconds, a line on standard
//! error says so, while the requests are repeated.
//!
//! All functions block. They can be called from any thread except the worker threads of an asynchronous runtime; a
//! runtime's blocking threads are fine.

mod connect;
mod copies;
mod folder;
mod hub;
mod remote;
mod token;
mod version;

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use concepts::foreign_files::without_byte_order_mark;

pub use self::copies::{forget_copies, local_copy};
pub use self::folder::{NewFolder, create_folder, entries, existing, is_folder, list_all};
use self::remote::Remote;
pub use self::token::authorization;
use self::version::Version as Opened;
use crate::Error;

/// How long a failing remote request is retried. The environment variable `LOADER_RETRY_SECONDS` overrides it.
pub const RETRY_FOR: Duration = Duration::from_mins(3);

/// How long a remote server may send nothing before the connection counts as dropped.
pub const SILENCE: Duration = Duration::from_secs(30);

/// Whether a path is the URL of a remote file.
pub fn is_remote(path: &Path) -> bool {
    scheme(path).is_some()
}

fn scheme(path: &Path) -> Option<&str> {
    let (scheme, _) = path.to_str()?.split_once("://")?;
    // Anything else before `://` is an unusual folder name.
    ["http", "https", "s3", "s3a", "gs", "az", "azure", "abfs", "abfss", "adl", "hf"]
        .into_iter()
        .find(|&known| known == scheme)
}

/// A file opened for random access; several threads may read it at the same time.
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
    /// With the version that was opened: another one is not read.
    Remote(Remote, Opened),
}

impl Source {
    /// Opens a file; sends one request if it is remote.
    pub fn open(path: &Path) -> Result<Self, Error> {
        if is_remote(path) {
            let remote = Remote::new(path)?;
            let opened = remote.version()?;
            let (length, version) = (opened.length(), opened.text());
            return Ok(Self { path: path.to_owned(), length, version, kind: Kind::Remote(remote, opened) });
        }
        Self::from_file(path, File::open(path).map_err(Error::read(path))?)
    }

    /// Wraps an open local file; `path` is its name in errors.
    pub(crate) fn from_file(path: &Path, file: File) -> Result<Self, Error> {
        let about = file.metadata().map_err(Error::read(path))?;
        let version = format!("{} {:?}", about.len(), about.modified().map_err(Error::read(path))?);
        Ok(Self { path: path.to_owned(), length: about.len(), version, kind: Kind::Local(file) })
    }

    /// Wraps an open local copy of another file, and keeps the original's path and version.
    pub(crate) fn copy_of(original: &Self, file: File) -> Result<Self, Error> {
        let version = original.version.clone();
        Ok(Self { version, ..Self::from_file(&original.path, file)? })
    }

    /// Path or URL of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Size, bytes.
    pub fn len(&self) -> u64 {
        self.length
    }

    /// A text that changes when the file is written again: made of its length, date, and the store's entity tag.
    pub(crate) fn version(&self) -> &str {
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
    /// The range ends beyond the end of the file (reported as a damaged archive), reading fails after all retries, or a
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
                        Error::archive(&self.path, "it became shorter while it was being read")
                    }
                    _ => Error::read(&self.path)(e),
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
        Err(Error::archive(&self.path, problem))
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

/// Reads a whole file. If it does not exist, remote or not, the error is [`Error::Io`] with a source of kind
/// `NotFound`.
pub fn read(path: &Path) -> Result<Bytes, Error> {
    if is_remote(path) {
        Remote::new(path)?.read_all()
    } else {
        fs::read(path).map(Bytes::from).map_err(Error::read(path))
    }
}

/// Size of a file, bytes.
pub fn length(path: &Path) -> Result<u64, Error> {
    if is_remote(path) {
        Ok(Remote::new(path)?.version()?.length())
    } else {
        Ok(fs::metadata(path).map_err(Error::read(path))?.len())
    }
}

/// Reads a whole file of UTF-8 text, without a byte order mark.
pub fn read_text(path: &Path) -> Result<String, Error> {
    let bytes = read(path)?;
    let text = std::str::from_utf8(without_byte_order_mark(&bytes));
    let invalid = |_| io::Error::new(io::ErrorKind::InvalidData, "it is not valid UTF-8");
    Ok(text.map_err(|e| Error::read(path)(invalid(e)))?.to_owned())
}

/// Whether a file exists, or a local folder. In a store, folders are only parts of names ([`is_folder`]).
pub fn exists(path: &Path) -> Result<bool, Error> {
    match length(path) {
        Ok(_) => Ok(true),
        Err(error) if is_missing(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether an operation failed because there is no such file.
pub fn is_missing(error: &Error) -> bool {
    use io::ErrorKind::{NotADirectory, NotFound};
    matches!(error, Error::Io { source, .. } if matches!(source.kind(), NotFound | NotADirectory))
}

/// Paths of the files (not folders) in a folder, sorted by name. Plain http servers cannot list folders; WebDAV servers
/// can.
pub fn list(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let entries = entries(folder)?.into_iter();
    Ok(entries.filter(|(_, is_folder)| !is_folder).map(|(path, _)| path).collect())
}

/// Writes a file completely or not at all: on a local disk under a temporary name that is synced and renamed, in an
/// object store as one object.
pub fn write(path: &Path, bytes: impl Into<Bytes>) -> Result<(), Error> {
    if is_remote(path) {
        Remote::new(path)?.write(bytes.into())
    } else {
        concepts::files::write_atomic(path, &bytes.into()).map_err(Error::write(path))
    }
}

/// The same for a single output: on a local disk it also removes what killed processes left of earlier attempts, for which it
/// reads the whole folder.
pub fn replace(path: &Path, bytes: impl Into<Bytes>) -> Result<(), Error> {
    if is_remote(path) {
        return write(path, bytes);
    }
    concepts::files::replace(path, &bytes.into()).map_err(Error::write(path))
}

/// Writes a file unless it exists; `false` if it does. Of several processes that do this at the same time, one gets
/// `true`. Servers without conditional writes (plain http) cannot tell: there the file is written.
pub fn write_new(path: &Path, bytes: impl Into<Bytes>) -> Result<bool, Error> {
    let bytes = bytes.into();
    if is_remote(path) {
        return match write_if(path, bytes.clone(), None) {
            Ok(written) => Ok(written.is_some()),
            Err(error) if is_unsupported(&error) => write(path, bytes).map(|()| true),
            Err(error) => Err(error),
        };
    }
    let write = || {
        let mut file = concepts::files::AtomicFile::create(path)?;
        io::Write::write_all(&mut file, &bytes)?;
        file.commit_new()
    };
    write().map_err(Error::write(path))
}

/// One state of an object in a store, for conditional writes.
#[derive(Debug, Clone)]
pub struct Version(object_store::UpdateVersion);

/// Reads an object and its version; `None` if it does not exist.
pub fn read_version(path: &Path) -> Result<Option<(Bytes, Version)>, Error> {
    match Remote::new(path)?.read_version() {
        Ok((bytes, version)) => Ok(Some((bytes, Version(version)))),
        Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Writes an object of a store if it still has this version, or does not exist if `version` is `None`. Returns its new
/// version, or `None` if the condition does not hold.
///
/// # Errors
/// Besides the usual ones: the store has no conditional writes ([`is_unsupported`]).
pub fn write_if(
    path: &Path,
    bytes: impl Into<Bytes>,
    version: Option<&Version>,
) -> Result<Option<Version>, Error> {
    let written = Remote::new(path)?.write_if(bytes.into(), version.map(|version| version.0.clone()))?;
    Ok(written.map(Version))
}

/// Whether an operation failed because the server or the file system does not have it.
pub fn is_unsupported(error: &Error) -> bool {
    matches!(error, Error::Io { source, .. } if source.kind() == io::ErrorKind::Unsupported)
}

/// From now on, requests that are still under way three seconds after the program was asked to stop
/// ([`interrupted`](crate::program::interrupted)) end with an error. Without this call they run to their end, for
/// programs that save their work then.
pub fn stop_when_interrupted() {
    remote::STOP_WHEN_INTERRUPTED.store(true, std::sync::atomic::Ordering::Relaxed);
}

/// Copies a local file to `path`, completely or not at all, a few MiB at a time.
pub fn upload(file: &Path, path: &Path) -> Result<(), Error> {
    if is_remote(path) {
        return Remote::new(path)?.upload(file);
    }
    let mut from = File::open(file).map_err(Error::read(file))?;
    let mut to = concepts::files::AtomicFile::create(path).map_err(Error::write(path))?;
    io::copy(&mut from, &mut to).map_err(Error::write(path))?;
    to.commit().map_err(Error::write(path))
}

/// Copies a file, remote or not, to a local path, completely or not at all.
pub fn download(path: &Path, to: &Path) -> Result<(), Error> {
    let temporary = concepts::files::temporary_path(to);
    let done = copies::fetch(path, &temporary).and_then(|()| {
        File::open(&temporary)
            .and_then(|file| file.sync_all())
            .and_then(|()| fs::rename(&temporary, to))
            .map_err(Error::write(to))
    });
    if done.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    done
}

/// Removes a file. It is no error if the file does not exist.
pub fn remove(path: &Path) -> Result<(), Error> {
    if is_remote(path) {
        return Remote::new(path)?.remove();
    }
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::io(path, "remove")(e)),
        _ => Ok(()),
    }
}
