//! Whole files: read, written, copied and removed.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use bytes::Bytes;
use disk::files::{AtomicFile, write_atomic};
use disk::foreign_files::without_byte_order_mark;

use crate::remote::Remote;
use crate::{Error, Location, is_missing, is_unsupported};

/// Reads a whole file. If it does not exist, remote or not, the error is [`Error::Io`] with a source of kind
/// `NotFound`.
pub fn read(from: impl Into<Location>) -> Result<Bytes, Error> {
    match from.into() {
        Location::Remote(address) => Remote::new(&address)?.read_all(),
        Location::Local(path) => fs::read(&path).map(Bytes::from).map_err(Error::read(path)),
    }
}

/// Reads a whole file of UTF-8 text, without a byte order mark.
pub fn read_text(from: impl Into<Location>) -> Result<String, Error> {
    let from = from.into();
    let bytes = read(&from)?;
    let text = std::str::from_utf8(without_byte_order_mark(&bytes));
    let invalid = |_| io::Error::new(io::ErrorKind::InvalidData, "it is not valid UTF-8");
    Ok(text.map_err(|e| Error::read(from)(invalid(e)))?.to_owned())
}

/// Size of a file, bytes.
pub fn length(of: impl Into<Location>) -> Result<u64, Error> {
    match of.into() {
        Location::Remote(address) => Ok(Remote::new(&address)?.version()?.length()),
        Location::Local(path) => Ok(fs::metadata(&path).map_err(Error::read(path))?.len()),
    }
}

/// Whether a file exists, or a local folder. In a store, folders are only parts of names
/// ([`is_folder`](crate::is_folder)).
pub fn exists(at: impl Into<Location>) -> Result<bool, Error> {
    match length(at) {
        Ok(_) => Ok(true),
        Err(error) if is_missing(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Writes a file completely or not at all: on a local disk under a temporary name that is synced and renamed, in an
/// object store as one object.
pub fn write(to: impl Into<Location>, bytes: impl Into<Bytes>) -> Result<(), Error> {
    match to.into() {
        Location::Remote(address) => Remote::new(&address)?.write(bytes.into()),
        Location::Local(path) => write_atomic(&path, &bytes.into()).map_err(Error::write(path)),
    }
}

/// The same for a single output: on a local disk it also removes what killed processes left of earlier attempts, for which it
/// reads the whole folder.
pub fn replace(to: impl Into<Location>, bytes: impl Into<Bytes>) -> Result<(), Error> {
    match to.into() {
        Location::Local(path) => disk::files::replace(&path, &bytes.into()).map_err(Error::write(path)),
        remote @ Location::Remote(_) => write(remote, bytes),
    }
}

/// Writes a file unless it exists; `false` if it does. Of several processes that do this at the same time, one gets
/// `true`. Servers without conditional writes (plain http) cannot tell: there the file is written.
pub fn write_new(to: impl Into<Location>, bytes: impl Into<Bytes>) -> Result<bool, Error> {
    let (to, bytes) = (to.into(), bytes.into());
    let Location::Local(path) = &to else {
        return match write_if(&to, bytes.clone(), None) {
            Ok(written) => Ok(written.is_some()),
            Err(error) if is_unsupported(&error) => write(to, bytes).map(|()| true),
            Err(error) => Err(error),
        };
    };
    let write = || {
        let mut file = AtomicFile::create(path)?;
        file.write_all(&bytes)?;
        file.commit_new()
    };
    write().map_err(Error::write(path))
}

/// One state of an object in a store, for conditional writes.
#[derive(Debug, Clone)]
pub struct Version(object_store::UpdateVersion);

/// Reads an object of a store and its version; `None` if it does not exist.
///
/// # Errors
/// Besides the usual ones: local files have no versions ([`is_unsupported`]).
pub fn read_version(from: impl Into<Location>) -> Result<Option<(Bytes, Version)>, Error> {
    let from = from.into();
    match in_store(&from, "read")?.read_version() {
        Ok((bytes, version)) => Ok(Some((bytes, Version(version)))),
        Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Writes an object of a store if it still has this version, or does not exist if `version` is `None`. Returns its new
/// version, or `None` if the condition does not hold.
///
/// # Errors
/// Besides the usual ones: the store has no conditional writes, or the file is a local one ([`is_unsupported`]).
pub fn write_if(
    to: impl Into<Location>,
    bytes: impl Into<Bytes>,
    version: Option<&Version>,
) -> Result<Option<Version>, Error> {
    let to = to.into();
    let version = version.map(|version| version.0.clone());
    Ok(in_store(&to, "write")?.write_if(bytes.into(), version)?.map(Version))
}

fn in_store(location: &Location, doing: &'static str) -> Result<Remote, Error> {
    match location {
        Location::Remote(address) => Remote::new(address),
        Location::Local(path) => Err(Error::io(path, doing)(io::ErrorKind::Unsupported.into())),
    }
}

/// Copies a local file, completely or not at all, a few MiB at a time.
pub fn upload(file: &Path, to: impl Into<Location>) -> Result<(), Error> {
    match to.into() {
        Location::Remote(address) => Remote::new(&address)?.upload(file),
        Location::Local(path) => {
            let mut from = File::open(file).map_err(Error::read(file))?;
            let mut to = AtomicFile::create(&path).map_err(Error::write(&path))?;
            io::copy(&mut from, &mut to).map_err(Error::write(&path))?;
            to.commit().map_err(Error::write(path))
        }
    }
}

/// Removes a file. It is no error if the file does not exist.
pub fn remove(file: impl Into<Location>) -> Result<(), Error> {
    match file.into() {
        Location::Remote(address) => Remote::new(&address)?.remove(),
        Location::Local(path) => match fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::io(path, "remove")(e)),
            _ => Ok(()),
        },
    }
}
