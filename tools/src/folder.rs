//! An output folder that appears complete or not at all.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use concepts::files;
use loader::program::UsageError;

/// A folder under a temporary name next to the target. It is removed when dropped, unless it was published.
#[derive(Debug)]
pub(crate) struct NewFolder {
    temporary: PathBuf,
    target: PathBuf,
    /// As long as it is open, other processes see that the folder is in use.
    _held: File,
}

impl NewFolder {
    /// Fails when the target is not empty, so that two datasets never mix in one folder.
    pub(crate) fn create(target: &Path) -> Result<Self> {
        if target.file_name().is_none() {
            let line = format!("--out {} is not the name of a folder that can be created", target.display());
            return Err(UsageError(line).into());
        }
        match fs::read_dir(target).map(Iterator::count) {
            Ok(0) => {}
            Ok(_) => bail!("{} exists and is not empty; remove it or choose another --out", target.display()),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read {}", target.display()));
            }
        }
        files::clear_leftovers_of(target);
        let (temporary, held) = files::temporary_folder(target)
            .with_context(|| format!("cannot create a folder next to {}", target.display()))?;
        Ok(Self { temporary, target: target.to_owned(), _held: held })
    }

    /// Where to write until the folder is complete.
    pub(crate) fn path(&self) -> &Path {
        &self.temporary
    }

    /// Renames the folder to its target.
    pub(crate) fn publish(self) -> Result<()> {
        fs::rename(&self.temporary, &self.target)
            .and_then(|()| files::sync_parent(&self.target))
            .with_context(|| format!("cannot rename the finished folder to {}", self.target.display()))
    }
}

impl Drop for NewFolder {
    fn drop(&mut self) {
        // After publishing, nothing exists under this name.
        let _ = fs::remove_dir_all(&self.temporary);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn appears_complete_or_not_at_all() {
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
        folder.publish().unwrap();
        assert_eq!(fs::read(target.join("a")).unwrap(), b"whole");
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 1);

        let refused = NewFolder::create(&target).unwrap_err().to_string();
        assert!(refused.contains("set exists and is not empty"), "{refused}");
        assert_eq!(fs::read(target.join("a")).unwrap(), b"whole");
    }
}
