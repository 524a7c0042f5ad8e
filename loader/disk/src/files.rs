//! Files that are written completely or not at all: under a temporary name in the same folder, which is then synced to
//! disk and renamed. A process that is killed leaves only files whose names start with [`TEMPORARY`].
//!
//! A temporary name is random, and its file is created by an exclusive open, so no other process has the same one and no
//! link can lead elsewhere. Its writer holds the file's lock (`flock`) as long as it lives, by which
//! [`clear_leftovers`] recognises the files that nobody will complete. Where a file system has no locks, leftovers stay.

use std::fmt::Display;
use std::fs::{self, File};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Prefix of temporary file names.
pub const TEMPORARY: &str = ".tmp-";

/// A temporary path in the folder of `target`, under which it is written until it is complete. Every call gives
/// another one: the keys of [`RandomState`] come from the system's random numbers, so nobody can guess it.
pub fn temporary_path(target: &Path) -> PathBuf {
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    let random = RandomState::new().hash_one(std::process::id());
    target.with_file_name(format!("{TEMPORARY}{random:016x}-{name}"))
}

/// The name of the file that is written under this temporary name; `None` if the name is not a temporary one.
pub fn target_name(temporary: &str) -> Option<&str> {
    Some(temporary.strip_prefix(TEMPORARY)?.split_once('-')?.1)
}

/// Creates and locks the file or folder at a temporary path next to `target`. `create` must fail if the path exists.
fn create_locked(
    target: &Path,
    mut create: impl FnMut(&Path) -> io::Result<File>,
) -> io::Result<(PathBuf, File)> {
    loop {
        let path = temporary_path(target);
        let file = create(&path)?;
        // Only another process's `clear_leftovers` can hold it, and for a moment. An error means that this file system
        // has no locks.
        while matches!(file.lock(), Err(error) if error.kind() == io::ErrorKind::Interrupted) {}
        // Unless it was removed between its creation and its locking.
        if file.metadata()?.nlink() > 0 {
            return Ok((path, file));
        }
    }
}

/// Creates a temporary folder next to `target`, and the folders above it. It counts as in use until the returned handle
/// is dropped.
pub fn temporary_folder(target: &Path) -> io::Result<(PathBuf, File)> {
    if let Some(above) = target.parent() {
        fs::create_dir_all(above)?;
    }
    loop {
        let mut created = false;
        let locked = create_locked(target, |path| {
            fs::create_dir(path)?;
            created = true;
            File::open(path)
        });
        match locked {
            // Until it is locked, another process may take it for a leftover and remove it.
            Err(error) if created && error.kind() == io::ErrorKind::NotFound => {}
            locked => return locked,
        }
    }
}

/// Locks a temporary file or folder whose writer no longer lives. `None` if it is in use or gone, or if this file system
/// has no locks.
pub fn lock_leftover(path: &Path) -> Option<File> {
    let kind = fs::symlink_metadata(path).ok()?.file_type();
    let file = if kind.is_dir() {
        File::open(path)
    } else if kind.is_file() {
        // Some network file systems lock only what is open for writing.
        File::options().read(true).write(true).open(path)
    } else {
        return None;
    };
    file.ok().filter(|file| file.try_lock().is_ok())
}

/// Removes the temporary files and folders in `folder` whose writers no longer live, among those for whose names `of` is
/// true.
pub fn clear_leftovers(folder: &Path, of: impl Fn(&str) -> bool) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if !name.starts_with(TEMPORARY) || !of(&name) {
            continue;
        }
        // It is held until the file is removed. Another process may remove it first, and a file of another user may
        // stay.
        if let Some(_held) = lock_leftover(&path) {
            let _ = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        }
    }
    Ok(())
}

/// Removes what killed processes left of earlier attempts to write `target`.
pub fn clear_leftovers_of(target: &Path) {
    let Some(name) = target.file_name().and_then(|name| name.to_str()) else { return };
    let folder = target.parent().filter(|folder| !folder.as_os_str().is_empty());
    // Writing the target will report a folder that does not exist.
    let _ = clear_leftovers(folder.unwrap_or(Path::new(".")), |left| target_name(left) == Some(name));
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
        let create = |path: &Path| File::options().read(true).write(true).create_new(true).open(path);
        let (temporary, file) = create_locked(target, create)?;
        let file = BufWriter::with_capacity(1 << 18, file);
        Ok(Self { file: Some(file), temporary, target: target.to_owned() })
    }

    /// The file that is written, for code that writes to a path only. It must not remove or replace it.
    pub fn path(&self) -> &Path {
        &self.temporary
    }

    /// Flushes, syncs and renames the file. On error, no file appears under the target's name.
    pub fn commit(self) -> io::Result<()> {
        self.finish(|temporary, target| fs::rename(temporary, target))
    }

    /// The same, unless the target exists: then it stays as it is, and the result is `false`. Of several processes that
    /// do this at the same time, one gets `true`.
    pub fn commit_new(self) -> io::Result<bool> {
        let mut new = true;
        self.finish(|temporary, target| {
            match fs::hard_link(temporary, target) {
                Ok(()) => fs::remove_file(temporary),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists || target.exists() => {
                    new = false;
                    fs::remove_file(temporary)
                }
                // Not every file system has hard links.
                Err(_) => fs::rename(temporary, target),
            }
        })?;
        Ok(new)
    }

    fn finish(mut self, publish: impl FnOnce(&Path, &Path) -> io::Result<()>) -> io::Result<()> {
        let Some(file) = self.file.take() else { return Ok(()) };
        // The file stays open, and so locked, until it has its final name.
        let done = file.into_inner().map_err(io::IntoInnerError::into_error).and_then(|file| {
            file.sync_all()?;
            publish(&self.temporary, &self.target)
        });
        if done.is_err() {
            let _ = fs::remove_file(&self.temporary);
        }
        done?;
        sync_parent(&self.target)
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
        if self.file.is_some() {
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

/// The same, after removing what killed processes left of earlier attempts. It reads the whole folder: for a single output,
/// not for one of many.
pub fn replace(target: &Path, bytes: &[u8]) -> io::Result<()> {
    clear_leftovers_of(target);
    write_atomic(target, bytes)
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
/// # use disk::files::io_message;
/// let missing = io::Error::from(io::ErrorKind::NotFound);
/// assert_eq!(io_message(Path::new("a.tar").display(), "read", &missing), "a.tar does not exist");
/// let full = io::Error::other("disk full");
/// assert_eq!(io_message("s3://bucket/a.tar", "write", &full), "cannot write s3://bucket/a.tar: disk full");
/// ```
pub fn io_message(path: impl Display, doing: &str, error: &io::Error) -> String {
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

    #[test]
    fn a_new_file_never_replaces_another() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("manifest");
        let write = |bytes: &[u8]| {
            let mut file = AtomicFile::create(&target).unwrap();
            file.write_all(bytes).unwrap();
            file.commit_new().unwrap()
        };
        assert!(write(b"first"));
        assert!(!write(b"second"));
        assert_eq!(fs::read(&target).unwrap(), b"first");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn temporary_names_differ_also_within_a_process() {
        let names: std::collections::HashSet<_> =
            (0..1000).map(|_| temporary_path(Path::new("a/b.tar"))).collect();
        assert_eq!(names.len(), 1000);
        let name = names.iter().next().unwrap();
        assert_eq!(name.parent(), Some(Path::new("a")));
        assert_eq!(target_name(name.file_name().unwrap().to_str().unwrap()), Some("b.tar"));
        assert_eq!(target_name("b.tar"), None);
    }

    #[test]
    fn a_folder_is_made_while_others_remove_leftovers() {
        let place = tempfile::tempdir().unwrap();
        let target = place.path().join("set");
        let done = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    clear_leftovers_of(&target);
                }
            });
            let made: Vec<_> =
                (0..2000).map(|_| temporary_folder(&target).map(|(path, _held)| path.exists())).collect();
            done.store(true, std::sync::atomic::Ordering::Relaxed);
            assert!(made.into_iter().all(|exists| exists.unwrap()));
        });
    }

    #[test]
    fn leftovers_are_cleared_and_files_in_use_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        // As earlier versions named them, and a folder.
        fs::write(at(".tmp-17-a.tar"), "half").unwrap();
        fs::create_dir(at(".tmp-18-a.tar")).unwrap();
        fs::write(at(".tmp-18-a.tar/part"), "half").unwrap();
        fs::write(at(".tmp-19-b.tar"), "half").unwrap();
        fs::write(at("c.tar"), "whole").unwrap();
        std::os::unix::fs::symlink(at("c.tar"), at(".tmp-20-a.tar")).unwrap();
        let mut file = AtomicFile::create(&at("a.tar")).unwrap();
        let (used, _handle) = temporary_folder(&at("a.tar")).unwrap();
        clear_leftovers_of(&at("a.tar"));
        let mut names: Vec<_> =
            fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        let mut expected = vec![
            ".tmp-19-b.tar".into(),
            ".tmp-20-a.tar".into(),
            "c.tar".into(),
            used.file_name().unwrap().to_owned(),
            file.temporary.file_name().unwrap().to_owned(),
        ];
        expected.sort();
        assert_eq!(names, expected);
        file.write_all(b"whole").unwrap();
        file.commit().unwrap();
        assert_eq!(fs::read(at("a.tar")).unwrap(), b"whole");
    }
}
