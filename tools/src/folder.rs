//! An output folder that appears whole or not at all.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use concepts::files;
use loader::program::UsageError;

/// A folder under its temporary name beside the target; removed again unless published.
#[derive(Debug)]
pub(crate) struct NewFolder {
    temporary: PathBuf,
    target: PathBuf,
}

impl NewFolder {
    /// Refuses a target that holds anything already: one set never mixes with another.
    pub(crate) fn create(target: &Path) -> Result<Self> {
        if target.file_name().is_none() {
            let line = format!("--out {} does not name a folder that can be created", target.display());
            return Err(UsageError(line).into());
        }
        match fs::read_dir(target).map(Iterator::count) {
            Ok(0) => {}
            Ok(_) => bail!("{} exists and is not empty; choose another --out or remove it", target.display()),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => {
                return Err(error)
                    .with_context(|| format!("cannot use {} as the output folder", target.display()));
            }
        }
        let temporary = files::temporary_path(target);
        // Left by a killed process that had the same id.
        let _ = fs::remove_dir_all(&temporary);
        fs::create_dir_all(&temporary)
            .with_context(|| format!("cannot create the folder {}", temporary.display()))?;
        Ok(Self { temporary, target: target.to_owned() })
    }

    /// Where to write until the folder is whole.
    pub(crate) fn path(&self) -> &Path {
        &self.temporary
    }

    /// Gives the folder its name.
    pub(crate) fn publish(self) -> Result<()> {
        fs::rename(&self.temporary, &self.target)
            .and_then(|()| files::sync_parent(&self.target))
            .with_context(|| format!("cannot move the finished folder to {}", self.target.display()))
    }
}

impl Drop for NewFolder {
    fn drop(&mut self) {
        // After publishing there is nothing under this name.
        let _ = fs::remove_dir_all(&self.temporary);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn appears_whole_or_not_at_all() {
        let place = tempfile::tempdir().unwrap();
        let target = place.path().join("set");
        let folder = NewFolder::create(&target).unwrap();
        fs::write(folder.path().join("a"), "half").unwrap();
        assert!(!target.exists());
        drop(folder);
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0);

        // An empty folder may be there already.
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
