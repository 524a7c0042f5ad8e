//! Where the files of a shard are made: in the set's folder itself when that is local, else in a temporary folder of this
//! machine, from which they are sent when they are whole.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use loader::source;
use tempfile::TempDir;

use crate::error::Error;

/// A set's folder, and the local one beside it where it is remote.
#[derive(Debug, Clone)]
pub(crate) struct Staging {
    local: Option<Arc<TempDir>>,
}

impl Staging {
    /// For a set in `folder`.
    pub(crate) fn new(folder: &Path) -> Result<Self, Error> {
        let local = if source::is_remote(folder) {
            let made = tempfile::Builder::new().prefix("ingest-").tempdir();
            Some(Arc::new(made.map_err(Error::file("create", &std::env::temp_dir()))?))
        } else {
            None
        };
        Ok(Self { local })
    }

    /// Where the file that is to become `target` is made.
    pub(crate) fn path(&self, target: &Path) -> PathBuf {
        match (&self.local, target.file_name()) {
            (Some(local), Some(name)) => local.path().join(name),
            _ => target.to_owned(),
        }
    }

    /// Sends the finished file to its target, if it is not there already.
    pub(crate) fn deliver(&self, target: &Path) -> Result<(), Error> {
        if self.local.is_some() {
            let made = self.path(target);
            source::upload(&made, target)?;
            std::fs::remove_file(&made).map_err(Error::file("remove", &made))?;
        }
        Ok(())
    }

    /// A copy of a set's file on this machine; the file itself where it is.
    pub(crate) fn fetch(&self, path: &Path) -> Result<PathBuf, Error> {
        const PIECE: u64 = 8 << 20;
        if self.local.is_none() {
            return Ok(path.to_owned());
        }
        // With the file's own name at its end: a shard's says whether it is compressed.
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let copy = self.path(path).with_file_name(format!("copy-{name}"));
        let from = source::Source::open(path)?;
        let copied =
            std::fs::File::create(&copy).and_then(|mut to| std::io::copy(&mut from.reader(PIECE), &mut to));
        copied.map_err(Error::file("write", &copy))?;
        Ok(copy)
    }
}
