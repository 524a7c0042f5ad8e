//! Copies of remote files on the local disk, for files that other libraries open by their paths. A file is fetched once
//! per process; the copies are removed at its end, and those of killed processes by the next one that makes any.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use concepts::files;

use super::{Source, is_remote};
use crate::Error;
use crate::program::interrupted;

/// Bytes per request.
const PIECE: u64 = 16 << 20;
/// Ending of the folders' names, in the folder for temporary files.
const NAME: &str = "simzss-copies";

/// The folder of this process's copies.
struct Copies {
    folder: PathBuf,
    /// Its lock, by which other processes see that it is in use.
    _held: File,
    by_address: HashMap<PathBuf, PathBuf>,
}

static COPIES: Mutex<Option<Copies>> = Mutex::new(None);

/// The path of a file's copy on a local disk; of a local file its own.
pub fn local_copy(path: &Path) -> Result<PathBuf, Error> {
    if !is_remote(path) {
        return Ok(path.to_owned());
    }
    // Held during the transfer, so that threads that need the same file wait for it.
    let mut copies = COPIES.lock().unwrap_or_else(PoisonError::into_inner);
    let copies = match &mut *copies {
        Some(copies) => copies,
        none => {
            let place = std::env::temp_dir().join(NAME);
            files::clear_leftovers_of(&place);
            let (folder, held) = files::temporary_folder(&place).map_err(Error::io(&place, "create"))?;
            none.insert(Copies { folder, _held: held, by_address: HashMap::new() })
        }
    };
    if let Some(copy) = copies.by_address.get(path) {
        return Ok(copy.clone());
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let copy = copies.folder.join(format!("{}-{name}", copies.by_address.len()));
    fetch(path, &copy)?;
    copies.by_address.insert(path.to_owned(), copy.clone());
    Ok(copy)
}

/// Copies a file, remote or not, to a local path that is not yet its final name.
pub(super) fn fetch(path: &Path, to: &Path) -> Result<(), Error> {
    let from = Source::open(path)?;
    let mut reader = from.reader(PIECE);
    let mut file = File::create(to).map_err(Error::write(to))?;
    let mut buffer = vec![0; 1 << 20];
    loop {
        if interrupted() {
            return Err(Error::read(path)(io::Error::new(
                io::ErrorKind::Interrupted,
                "the program was asked to stop",
            )));
        }
        let read = reader.read(&mut buffer).map_err(|error| readable(path, error))?;
        if read == 0 {
            return Ok(());
        }
        file.write_all(&buffer[..read]).map_err(Error::write(to))?;
    }
}

/// The loader's own error inside an I/O error, which has the path already.
fn readable(path: &Path, error: io::Error) -> Error {
    match error.downcast::<Error>() {
        Ok(error) => error,
        Err(error) => Error::read(path)(error),
    }
}

/// Removes the copies of this process; [`crate::program::run`] does it at the end.
pub fn forget_copies() {
    if let Some(copies) = COPIES.lock().unwrap_or_else(PoisonError::into_inner).take() {
        let _ = fs::remove_dir_all(copies.folder);
    }
}
