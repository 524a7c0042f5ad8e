//! Copies of remote files on the local disk, for files that other libraries open by their paths. A file is fetched once
//! per process; the copies are removed at its end, and those of killed processes by the next one that makes any.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use disk::files::{self, AtomicFile};

use crate::process::{Copies, process};
use crate::{Error, Location, Source, interrupted};

/// Bytes per request.
const PIECE: u64 = 16 << 20;
/// Ending of the folders' names, in the folder for temporary files.
const NAME: &str = "simzss-copies";

/// The path of a file's copy on a local disk; of a local file its own.
pub fn local_copy(of: impl Into<Location>) -> Result<PathBuf, Error> {
    let location = match of.into() {
        Location::Local(path) => return Ok(path),
        remote @ Location::Remote(_) => remote,
    };
    // Held during the transfer, so that threads that need the same file wait for it.
    let mut copies = process().copies();
    let copies = match &mut *copies {
        Some(copies) => copies,
        none => {
            let place = std::env::temp_dir().join(NAME);
            files::clear_leftovers_of(&place);
            let (folder, held) = files::temporary_folder(&place).map_err(Error::io(&place, "create"))?;
            none.insert(Copies { folder, held, by_location: HashMap::new() })
        }
    };
    if let Some(copy) = copies.by_location.get(&location) {
        return Ok(copy.clone());
    }
    let copy = copies.folder.join(format!("{}-{}", copies.by_location.len(), location.file_name()));
    let mut file = File::create(&copy).map_err(Error::write(&copy))?;
    fetch(&location, &mut file, &copy)?;
    copies.by_location.insert(location, copy.clone());
    Ok(copy)
}

/// Copies a file, remote or not, to a local path, completely or not at all.
pub fn download(from: impl Into<Location>, to: &Path) -> Result<(), Error> {
    let mut file = AtomicFile::create(to).map_err(Error::write(to))?;
    fetch(&from.into(), &mut file, to)?;
    file.commit().map_err(Error::write(to))
}

/// Copies a file, remote or not, into an open file; `to` is for errors.
fn fetch(location: &Location, file: &mut dyn Write, to: &Path) -> Result<(), Error> {
    let from = Source::open(location)?;
    let mut reader = from.reader(PIECE);
    let mut buffer = vec![0; 1 << 20];
    loop {
        if interrupted() {
            return Err(Error::read(location)(io::Error::new(
                io::ErrorKind::Interrupted,
                "the program was asked to stop",
            )));
        }
        let read = reader.read(&mut buffer).map_err(Error::read(location))?;
        if read == 0 {
            return Ok(());
        }
        file.write_all(&buffer[..read]).map_err(Error::write(to))?;
    }
}

/// Removes the copies of this process; to be called at its end.
pub fn forget_copies() {
    if let Some(copies) = process().copies().take() {
        let _ = fs::remove_dir_all(copies.folder);
    }
}
