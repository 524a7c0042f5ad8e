//! Folders: their entries, and whole new folders that appear complete or not at all.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use disk::files;

use crate::remote::Remote;
use crate::{Error, Location, exists, interrupted, is_missing, upload};

/// Files and folders in a folder, sorted by name; `true` for folders. Empty for a remote folder that does not exist.
/// Plain http servers cannot list folders; WebDAV servers can.
pub fn entries(folder: impl Into<Location>) -> Result<Vec<(Location, bool)>, Error> {
    let mut entries = match folder.into() {
        Location::Remote(address) => Remote::new(&address)?.entries()?,
        Location::Local(folder) => {
            let mut entries = Vec::new();
            for entry in fs::read_dir(&folder).map_err(Error::read(&folder))? {
                let path = entry.map_err(Error::read(&folder))?.path();
                let is_folder = path.is_dir();
                entries.push((Location::Local(path), is_folder));
            }
            entries
        }
    };
    entries.sort();
    Ok(entries)
}

/// The files (not folders) in a folder, sorted by name, as by [`entries`].
pub fn list(folder: impl Into<Location>) -> Result<Vec<Location>, Error> {
    let entries = entries(folder)?.into_iter();
    Ok(entries.filter(|(_, is_folder)| !is_folder).map(|(file, _)| file).collect())
}

/// As [`list`], for a folder that should have files with these `names`, in the order of their bytes: a store that gives a long list
/// page by page is asked for the parts between them at the same time. What the folder has does not depend on them.
pub fn list_near(folder: impl Into<Location>, names: &[&str]) -> Result<Vec<Location>, Error> {
    let folder = folder.into();
    let part = names.len().div_ceil(LOOKERS).max(1);
    let remote = match &folder {
        Location::Remote(address) if names.len() >= PAGE => Some(Remote::new(address)?),
        _ => None,
    };
    let Some(remote) = remote.filter(Remote::lists_from_a_name) else { return list(&folder) };
    let ends: Vec<&str> = names.iter().step_by(part).skip(1).copied().collect();
    let parts: Vec<(Option<&str>, Option<&str>)> =
        (0..=ends.len()).map(|at| (at.checked_sub(1).map(|at| ends[at]), ends.get(at).copied())).collect();
    let mut files = Vec::new();
    std::thread::scope(|scope| {
        let remote = &remote;
        let listing: Vec<_> =
            parts.iter().map(|&(after, to)| scope.spawn(move || remote.list_part(after, to))).collect();
        for part in listing {
            let ended = |_| Error::Threads(io::Error::other("a thread that lists files panicked"));
            files.extend(part.join().map_err(ended)??);
        }
        Ok::<_, Error>(())
    })?;
    files.sort();
    Ok(files)
}

/// All files below a folder, sorted. Links to folders are not followed.
pub fn list_all(folder: impl Into<Location>) -> Result<Vec<Location>, Error> {
    let mut files = Vec::new();
    match folder.into() {
        Location::Remote(address) => files = Remote::new(&address)?.list_all()?,
        Location::Local(folder) => {
            let mut folders = vec![folder];
            while let Some(folder) = folders.pop() {
                for entry in fs::read_dir(&folder).map_err(Error::read(&folder))? {
                    let entry = entry.map_err(Error::read(&folder))?;
                    let is_folder = entry.file_type().map_err(Error::read(&folder))?.is_dir();
                    if is_folder { folders.push(entry.path()) } else { files.push(entry.path().into()) }
                }
            }
        }
    }
    files.sort();
    Ok(files)
}

/// Whether this is a folder: a local one, or one with any file in a store.
pub fn is_folder(at: impl Into<Location>) -> Result<bool, Error> {
    match at.into() {
        Location::Local(path) => Ok(path.is_dir()),
        remote @ Location::Remote(_) => match entries(remote) {
            Ok(entries) => Ok(!entries.is_empty()),
            Err(error) if is_missing(&error) => Ok(false),
            Err(error) => Err(error),
        },
    }
}

/// Stores list this many files per request.
const PAGE: usize = 1000;

/// Number of threads that look for files where a server cannot list them.
const LOOKERS: usize = 16;

/// Which of these files exist. Remote ones are looked for in the lists of their folders, so that not every file is a
/// request; where a server has no lists, one by one.
pub fn existing<L: Into<Location>>(files: impl IntoIterator<Item = L>) -> Result<Vec<bool>, Error> {
    let files: Vec<Location> = files.into_iter().map(Into::into).collect();
    let folder_of = |file: &Location| file.parent().unwrap_or_else(|| file.clone());
    let mut lists: HashMap<Location, Option<HashSet<Location>>> = HashMap::new();
    for file in files.iter().filter(|file| file.is_remote()) {
        lists.entry(folder_of(file)).or_insert_with_key(|folder| {
            let listed = entries(folder).ok()?.into_iter();
            Some(listed.map(|(file, _)| file).collect())
        });
    }
    let look = |file: &Location| match lists.get(&folder_of(file)) {
        Some(Some(list)) => Ok(list.contains(file)),
        _ => exists(file),
    };
    if lists.values().all(Option::is_some) {
        return files.iter().map(look).collect();
    }
    let part = files.len().div_ceil(LOOKERS).max(1);
    std::thread::scope(|scope| {
        let looking: Vec<_> = files
            .chunks(part)
            .map(|files| scope.spawn(move || files.iter().map(look).collect::<Result<Vec<bool>, Error>>()))
            .collect();
        let mut found = Vec::with_capacity(files.len());
        for part in looking {
            let ended = |_| Error::Threads(io::Error::other("a thread that looks for files panicked"));
            found.extend(part.join().map_err(ended)??);
        }
        Ok(found)
    })
}

/// Creates a local folder and the folders above it, unless it exists. Stores have no folders to create.
pub fn create_folder(at: impl Into<Location>) -> Result<(), Error> {
    match at.into() {
        Location::Local(path) => fs::create_dir_all(&path).map_err(Error::io(path, "create")),
        Location::Remote(_) => Ok(()),
    }
}

/// A folder that is written on a local disk until it is complete: next to its target, or for a target in a store in the
/// folder for temporary files. It is removed when dropped, unless it was published.
#[derive(Debug)]
pub struct NewFolder {
    temporary: PathBuf,
    target: Location,
    /// As long as it is open, other processes see that the folder is in use.
    _held: File,
}

impl NewFolder {
    /// # Errors
    /// The target is not empty, so that two datasets would mix in one folder.
    pub fn create(target: impl Into<Location>) -> Result<Self, Error> {
        let target = target.into();
        let is_empty = match entries(&target) {
            Ok(entries) => entries.is_empty(),
            Err(error) if is_missing(&error) => true,
            Err(error) => return Err(error),
        };
        if !is_empty {
            return Err(Error::input(&target, "exists and is not empty; remove it or choose another folder"));
        }
        let place = match &target {
            Location::Local(path) => path.clone(),
            Location::Remote(_) => std::env::temp_dir().join(match &*target.file_name() {
                "" => "bucket",
                name => name,
            }),
        };
        files::clear_leftovers_of(&place);
        let (temporary, held) = files::temporary_folder(&place).map_err(Error::io(&place, "create"))?;
        Ok(Self { temporary, target, _held: held })
    }

    /// Where to write until the folder is complete.
    pub fn path(&self) -> &Path {
        &self.temporary
    }

    /// Gives the folder its name, or uploads its files. In a store they appear one after another; `last`, a file in the
    /// folder, comes after all others, so that its presence says that the folder is complete.
    pub fn publish(self, last: &str) -> Result<(), Error> {
        if let Location::Local(target) = &self.target {
            return fs::rename(&self.temporary, target)
                .and_then(|()| files::sync_parent(target))
                .map_err(Error::write(target));
        }
        let temporary = Location::Local(self.temporary.clone());
        let mut made = list_all(&temporary)?;
        made.sort_by_key(|file| *file == temporary.join(last));
        for file in made {
            if interrupted() {
                return Err(Error::write(&self.target)(io::ErrorKind::Interrupted.into()));
            }
            if let (Some(path), Some(inside)) = (file.local(), file.relative_to(&temporary)) {
                upload(path, self.target.join(inside))?;
            }
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
        let folder = NewFolder::create(target.as_path()).unwrap();
        fs::write(folder.path().join("a"), "half").unwrap();
        assert!(!target.exists());
        drop(folder);
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0);

        // A killed process leaves its folder, which the next one removes.
        fs::create_dir(place.path().join(".tmp-17-set")).unwrap();
        // An empty target folder is allowed.
        fs::create_dir(&target).unwrap();
        let folder = NewFolder::create(target.as_path()).unwrap();
        fs::write(folder.path().join("a"), "whole").unwrap();
        folder.publish("a").unwrap();
        assert_eq!(fs::read(target.join("a")).unwrap(), b"whole");
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 1);

        let refused = NewFolder::create(target.as_path()).unwrap_err().to_string();
        assert!(refused.contains("exists and is not empty"), "{refused}");
        assert_eq!(fs::read(target.join("a")).unwrap(), b"whole");
    }

    #[test]
    fn all_files_below_a_folder_are_listed() {
        let place = tempfile::tempdir().unwrap();
        let at = |name: &str| Location::from(place.path().join(name));
        fs::create_dir_all(place.path().join("b/c")).unwrap();
        for name in ["b/c/2", "b/1", "a"] {
            fs::write(place.path().join(name), "").unwrap();
        }
        assert_eq!(list_all(place.path()).unwrap(), [at("a"), at("b/1"), at("b/c/2")]);
        assert_eq!(entries(place.path()).unwrap(), [(at("a"), false), (at("b"), true)]);
    }
}
