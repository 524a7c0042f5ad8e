//! Where the files of a shard are written: in the dataset's folder if that is local, else in a temporary folder of this
//! machine, from which complete files are uploaded.

use std::fs::File;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::Arc;

use disk::files::{TEMPORARY, clear_leftovers_of};
use storage::{Location, Source};
use tempfile::TempDir;

use crate::error::Error;

/// Ending of the temporary folders' names.
const NAME: &str = "ingest";

/// The local temporary folder of a remote dataset; none for a local dataset.
#[derive(Debug, Clone)]
pub(crate) struct Staging {
    local: Option<Arc<Folder>>,
}

#[derive(Debug)]
struct Folder {
    folder: TempDir,
    /// Its lock, by which other processes see that it is in use.
    _held: File,
}

impl Folder {
    fn create() -> std::io::Result<Self> {
        loop {
            let folder = tempfile::Builder::new().prefix(TEMPORARY).suffix(&format!("-{NAME}")).tempdir()?;
            // Until it is locked, another process may take it for a leftover and remove it.
            let held = match File::open(folder.path()) {
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                held => held?,
            };
            // An error means that this file system has no locks, so that nobody removes leftovers.
            let _ = held.lock();
            if folder.path().exists() {
                return Ok(Self { folder, _held: held });
            }
        }
    }
}

impl Staging {
    /// For a dataset in `folder`.
    pub(crate) fn new(folder: &Location) -> Result<Self, Error> {
        let local = if folder.is_remote() {
            Some(Arc::new(Folder::create().map_err(Error::file("create", std::env::temp_dir()))?))
        } else {
            None
        };
        Ok(Self { local })
    }

    /// Removes the temporary folders of killed processes.
    pub(crate) fn clear_leftovers() {
        clear_leftovers_of(&std::env::temp_dir().join(NAME));
    }

    /// The folder for temporary files: `dataset` itself if it is local.
    pub(crate) fn folder(&self, dataset: &Location) -> PathBuf {
        self.local.as_ref().map_or_else(|| dataset.as_name(), |local| local.folder.path().to_owned())
    }

    /// The path under which to write the file that will become `target`.
    pub(crate) fn path(&self, target: &Location) -> PathBuf {
        let staged = |local: &Arc<Folder>| local.folder.path().join(&*target.file_name());
        self.local.as_ref().map_or_else(|| target.as_name(), staged)
    }

    /// Uploads the complete file to its target, if the target is remote.
    pub(crate) fn deliver(&self, target: &Location) -> Result<(), Error> {
        if self.local.is_some() {
            let made = self.path(target);
            storage::upload(&made, target)?;
            std::fs::remove_file(&made).map_err(Error::file("remove", &made))?;
        }
        Ok(())
    }

    /// A local copy of a dataset's file; the file itself if it is local.
    pub(crate) fn fetch(&self, file: &Location) -> Result<PathBuf, Error> {
        const PIECE: u64 = 8 << 20;
        let Some(local) = &self.local else { return Ok(file.as_name()) };
        // The copy's name ends with the name of the file, because its extension says whether it is compressed.
        let copy = local.folder.path().join(format!("copy-{}", file.file_name()));
        let from = Source::open(file)?;
        let copied =
            std::fs::File::create(&copy).and_then(|mut to| std::io::copy(&mut from.reader(PIECE), &mut to));
        copied.map_err(Error::file("write", &copy))?;
        Ok(copy)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[test]
    fn a_folder_is_made_while_others_remove_leftovers() {
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    Staging::clear_leftovers();
                }
            });
            let made: Vec<_> =
                (0..2000).map(|_| Folder::create().map(|made| made.folder.path().exists())).collect();
            done.store(true, Ordering::Relaxed);
            assert!(made.into_iter().all(|exists| exists.unwrap()));
        });
    }
}
