//! Files and folders that appear whole or not at all: written under a temporary name beside the target,
//! synced, renamed. A process killed half-way leaves only names that start with [`TEMPORARY`].

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

/// Prefix of the names under which unfinished output is written.
pub const TEMPORARY: &str = ".tmp-";

/// Path beside `target`, on the same file system, under which it is written until it is whole.
///
/// The process id keeps two writers apart; a leftover of a killed process is overwritten or ignored.
pub fn temporary_path(target: &Path) -> PathBuf {
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    target.with_file_name(format!("{TEMPORARY}{}-{name}", std::process::id()))
}

/// Buffered writer of one file that exists under its name only after [`AtomicFile::commit`].
/// Dropped without a commit, it leaves nothing.
#[derive(Debug)]
pub struct AtomicFile {
    /// None once committed.
    file: Option<BufWriter<File>>,
    temporary: PathBuf,
    target: PathBuf,
}

impl AtomicFile {
    /// Opens the temporary file beside `target`; the folder must exist.
    pub fn create(target: &Path) -> io::Result<Self> {
        let temporary = temporary_path(target);
        let file = BufWriter::with_capacity(1 << 18, File::create(&temporary)?);
        Ok(Self { file: Some(file), temporary, target: target.to_owned() })
    }

    /// Flushes, syncs and renames into place; on error nothing appears under the target's name.
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
            None => Err(io::Error::other("written after commit")),
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

/// Writes `bytes` to `target`, whole or not at all.
pub fn write_atomic(target: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = AtomicFile::create(target)?;
    file.write_all(bytes)?;
    file.commit()
}

/// Makes the renames inside `path`'s folder durable.
pub fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => File::open(".")?.sync_all(),
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
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
