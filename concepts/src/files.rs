//! Files that are written completely or not at all: under a temporary name in the same folder, which is then synced to
//! disk and renamed. A process that is killed leaves only files whose names start with [`TEMPORARY`].

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

/// Prefix of temporary file names.
pub const TEMPORARY: &str = ".tmp-";

/// The temporary path in the folder of `target`, under which it is written until it is complete.
///
/// It contains the process id, so two processes on one machine do not write to the same file. A file left over from a
/// killed process is overwritten or ignored.
pub fn temporary_path(target: &Path) -> PathBuf {
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    target.with_file_name(format!("{TEMPORARY}{}-{name}", std::process::id()))
}

/// A buffered writer of a file that appears under its name only when [`AtomicFile::commit`] is called. Dropping it
/// without a commit removes the temporary file.
#[derive(Debug)]
pub struct AtomicFile {
    /// `None` after the commit.
    file: Option<BufWriter<File>>,
    temporary: PathBuf,
    target: PathBuf,
}

impl AtomicFile {
    /// Creates the temporary file in the folder of `target`, which must exist.
    pub fn create(target: &Path) -> io::Result<Self> {
        let temporary = temporary_path(target);
        let file = BufWriter::with_capacity(1 << 18, File::create(&temporary)?);
        Ok(Self { file: Some(file), temporary, target: target.to_owned() })
    }

    /// Flushes, syncs and renames the file. On error, no file appears under the target's name.
    pub fn commit(mut self) -> io::Result<()> {
        if let Some(file) = self.file.take() {
            let file = file.into_inner().map_err(io::IntoInnerError::into_error);
            let done =
                file.and_then(|f| f.sync_all()).and_then(|()| fs::rename(&self.temporary, &self.target));
            if done.is_err() {
                let _ = fs::remove_file(&self.temporary);
            }
            done?;
            sync_parent(&self.target)?;
        }
        Ok(())
    }
}

impl Write for AtomicFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.file {
            Some(file) => file.write(bytes),
            None => Err(io::Error::other("write after commit")),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.as_mut().map_or(Ok(()), Write::flush)
    }
}

impl Drop for AtomicFile {
    fn drop(&mut self) {
        if self.file.take().is_some() {
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

/// Writes `bytes` to `target`, completely or not at all.
pub fn write_atomic(target: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = AtomicFile::create(target)?;
    file.write_all(bytes)?;
    file.commit()
}

/// Syncs the folder of `path` to disk, so that renames inside it survive a crash.
pub fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => File::open(".")?.sync_all(),
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

/// The message of a failed file operation, in the one wording that this project uses: "PATH does not exist" if `path`
/// was to be read and is missing, otherwise "cannot DOING PATH: REASON". `doing` is a verb, such as "read" or "write".
///
/// ```
/// # use std::{io, path::Path};
/// # use concepts::files::io_message;
/// let missing = io::Error::from(io::ErrorKind::NotFound);
/// assert_eq!(io_message(Path::new("a.tar"), "read", &missing), "a.tar does not exist");
/// let full = io::Error::other("disk full");
/// assert_eq!(io_message(Path::new("a.tar"), "write", &full), "cannot write a.tar: disk full");
/// ```
pub fn io_message(path: &Path, doing: &str, error: &io::Error) -> String {
    let path = path.display();
    match (doing, error.kind()) {
        ("read", io::ErrorKind::NotFound) => format!("{path} does not exist"),
        ("write", io::ErrorKind::NotFound) => format!("cannot write {path}: its folder does not exist"),
        _ => format!("cannot {doing} {path}: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_appears_only_when_committed() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("table.parquet");
        let mut file = AtomicFile::create(&target).unwrap();
        file.write_all(b"half").unwrap();
        file.flush().unwrap();
        assert!(!target.exists());
        drop(file);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "a dropped writer leaves nothing");

        fs::write(&target, b"old").unwrap();
        write_atomic(&target, b"new").unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"new");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
