//! Folders: their entries, and whole new folders that appear complete or not at all.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use concepts::files;

use super::remote::Remote;
use super::{exists, is_missing, is_remote, upload};
use crate::Error;

/// Files and folders in a folder, sorted by name; `true` for folders. Empty for a remote folder that does not exist.
/// Plain http servers cannot list folders; WebDAV servers can.
pub fn entries(folder: &Path) -> Result<Vec<(PathBuf, bool)>, Error> {
    let mut entries = Vec::new();
    if is_remote(folder) {
        entries = Remote::new(folder)?.entries()?;
    } else {
        for entry in fs::read_dir(folder).map_err(Error::read(folder))? {
            let path = entry.map_err(Error::read(folder))?.path();
            let is_folder = path.is_dir();
            entries.push((path, is_folder));
        }
    }
    entries.sort();
    Ok(entries)
}

/// Paths of all files below a folder, sorted. Links to folders are not followed.
pub fn list_all(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut files = Vec::new();
    if is_remote(folder) {
        files = Remote::new(folder)?.list_all()?;
    } else {
        let mut folders = vec![folder.to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).map_err(Error::read(&folder))? {
                let entry = entry.map_err(Error::read(&folder))?;
                let is_folder = entry.file_type().map_err(Error::read(&folder))?.is_dir();
                if is_folder { folders.push(entry.path()) } else { files.push(entry.path()) }
            }
        }
    }
    files.sort();
    Ok(files)
}

/// Whether a path is a folder: a local one, or one with any file in a store.
pub fn is_folder(path: &Path) -> Result<bool, Error> {
    if !is_remote(path) {
        return Ok(path.is_dir());
    }
    match entries(path) {
        Ok(entries) => Ok(!entries.is_empty()),
        Err(error) if is_missing(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Number of threads that look for files where a server cannot list them.
const LOOKERS: usize = 16;

/// Which of these files exist. Remote ones are looked for in the lists of their folders, so that not every file is a
/// request; where a server has no lists, one by one.
pub fn existing(paths: &[PathBuf]) -> Result<Vec<bool>, Error> {
    let mut lists: HashMap<&Path, Option<HashSet<PathBuf>>> = HashMap::new();
    for path in paths.iter().filter(|path| is_remote(path)) {
        let folder = path.parent().unwrap_or(path);
        if !lists.contains_key(folder) {
            let listed = entries(folder).ok();
            lists.insert(folder, listed.map(|entries| entries.into_iter().map(|(path, _)| path).collect()));
        }
    }
    let look = |path: &PathBuf| match path.parent().and_then(|folder| lists.get(folder)) {
        Some(Some(list)) => Ok(list.contains(path)),
        _ => exists(path),
    };
    if lists.values().all(Option::is_some) {
        return paths.iter().map(look).collect();
    }
    let part = paths.len().div_ceil(LOOKERS).max(1);
    std::thread::scope(|scope| {
        let looking: Vec<_> = paths
            .chunks(part)
            .map(|paths| scope.spawn(move || paths.iter().map(look).collect::<Result<Vec<bool>, Error>>()))
            .collect();
        let mut found = Vec::with_capacity(paths.len());
        for part in looking {
            let ended = |_| Error::Threads(io::Error::other("a thread that looks for files panicked"));
            found.extend(part.join().map_err(ended)??);
        }
        Ok(found)
    })
}

/// Creates a local folder and the folders above it, unless it exists. Stores have no folders to create.
pub fn create_folder(path: &Path) -> Result<(), Error> {
    if is_remote(path) { Ok(()) } else { fs::create_dir_all(path).map_err(Error::io(path, "create")) }
}

/// A folder that is written on a local disk until it is complete: next to its target, or for a target in a store in the
/// folder for temporary files. It is removed when dropped, unless it was published.
#[derive(Debug)]
pub struct NewFolder {
    temporary: PathBuf,
    target: PathBuf,
    /// As long as it is open, other processes see that the folder is in use.
    _held: File,
}

impl NewFolder {
    /// # Errors
    /// The target is not empty, so that two datasets would mix in one folder.
    pub fn create(target: &Path) -> Result<Self, Error> {
        let is_empty = match entries(target) {
            Ok(entries) => entries.is_empty(),
            Err(error) if is_missing(&error) => true,
            Err(error) => return Err(error),
        };
        if !is_empty {
            let problem = "exists and is not empty; remove it or choose another folder".to_owned();
            return Err(Error::Input { input: target.to_owned(), problem });
        }
        let place = if is_remote(target) {
            let name = target.file_name().unwrap_or(target.as_os_str());
            std::env::temp_dir().join(name)
        } else {
            target.to_owned()
        };
        files::clear_leftovers_of(&place);
        let (temporary, held) = files::temporary_folder(&place).map_err(Error::io(&place, "create"))?;
        Ok(Self { temporary, target: target.to_owned(), _held: held })
    }

    /// Where to write until the folder is complete.
    pub fn path(&self) -> &Path {
        &self.temporary
    }

    /// Gives the folder its name, or uploads its files. In a store they appear one after another; `last`, a file in the
    /// folder, comes after all others, so that its presence says that the folder is complete.
    pub fn publish(self, last: &str) -> Result<(), Error> {
        if !is_remote(&self.target) {
            return fs::rename(&self.temporary, &self.target)
                .and_then(|()| files::sync_parent(&self.target))
                .map_err(Error::write(&self.target));
        }
        let mut made = list_all(&self.temporary)?;
        made.sort_by_key(|path| *path == self.temporary.join(last));
        for path in made {
            if crate::program::interrupted() {
                return Err(Error::write(&self.target)(io::ErrorKind::Interrupted.into()));
            }
            let inside = path.strip_prefix(&self.temporary).unwrap_or(&path);
            upload(&path, &self.target.join(inside))?;
        }
        Ok(())
    }
}

impl Drop for NewFolder {
    fn drop(&mut self) {
        // After publishing on a local disk, nothing exists under this name.
        let _ = fs::remove_dir_all(&self.temporary);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_appears_complete_or_not_at_all() {
        let place = tempfile::tempdir().unwrap();
        let target = place.path().join("set");
        let folder = NewFolder::create(&target).unwrap();
        fs::write(folder.path().join("a"), "half").unwrap();
        assert!(!target.exists());
        drop(folder);
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0);

        // A killed process leaves its folder, which the next one removes.
        fs::create_dir(place.path().join(".tmp-17-set")).unwrap();
        // An empty target folder is allowed.
        fs::create_dir(&target).unwrap();
        let folder = NewFolder::create(&target).unwrap();
        fs::write(folder.path().join("a"), "whole").unwrap();
        folder.publish("a").unwrap();
        assert_eq!(fs::read(target.join("a")).unwrap(), b"whole");
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 1);

        let refused = NewFolder::create(&target).unwrap_err().to_string();
        assert!(refused.contains("exists and is not empty"), "{refused}");
        assert_eq!(fs::read(target.join("a")).unwrap(), b"whole");
    }

    #[test]
    fn all_files_below_a_folder_are_listed() {
        let place = tempfile::tempdir().unwrap();
        let at = |name: &str| place.path().join(name);
        fs::create_dir_all(at("b/c")).unwrap();
        for name in ["b/c/2", "b/1", "a"] {
            fs::write(at(name), "").unwrap();
        }
        assert_eq!(list_all(place.path()).unwrap(), [at("a"), at("b/1"), at("b/c/2")]);
        assert_eq!(entries(place.path()).unwrap(), [(at("a"), false), (at("b"), true)]);
    }
}
