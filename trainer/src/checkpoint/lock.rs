//! One training at a time uses a run folder.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::Write;
use std::path::Path;

use super::layout::LOCK;
use crate::error::{Error, Result, reading, writing};
use crate::observer::Observer;

/// A run folder that no other training can use at the same time. The lock ends with the process, however it ends.
#[derive(Debug)]
pub struct RunLock {
    _file: File,
}

impl RunLock {
    /// Locks a run folder, and removes the temporary files that killed trainings left in it.
    ///
    /// # Errors
    /// Another training uses the folder.
    pub fn take(run: &Path, observer: &dyn Observer) -> Result<Self> {
        let path = run.join(LOCK);
        // Not truncated: it may be the file of another training.
        let open = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let mut file = open.map_err(writing(&path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let holder = fs::read_to_string(&path).unwrap_or_default();
                let problem = format!(
                    "is in use by another training ({}); wait until it has ended, or choose another `out`",
                    holder.trim()
                );
                return Err(Error::Invalid { path: run.to_owned(), problem });
            }
            Err(TryLockError::Error(why)) => observer.message(&format!(
                "warning: the file system cannot lock {}: {why}. Make sure that no other training uses this folder",
                path.display()
            )),
        }
        // For the message above; without it, the lock is as good.
        let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let holder = format!("process {} on {}\n", std::process::id(), host.trim());
        let _ = file.set_len(0).and_then(|()| file.write_all(holder.as_bytes()));
        for entry in fs::read_dir(run).map_err(reading(run))?.flatten() {
            if entry.file_name().to_string_lossy().starts_with(disk::files::TEMPORARY) {
                let path = entry.path();
                let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
                removed.map_err(writing(&path))?;
            }
        }
        Ok(Self { _file: file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::layout::MODEL;
    use crate::observer::Silent;

    #[test]
    fn a_folder_is_used_by_one_training_at_a_time() {
        let run = tempfile::tempdir().unwrap();
        let lock = RunLock::take(run.path(), &Silent).unwrap();
        let refused = RunLock::take(run.path(), &Silent).unwrap_err().to_string();
        let holder = format!("process {} on ", std::process::id());
        assert!(refused.contains("in use by another training") && refused.contains(&holder), "{refused}");
        drop(lock);
        // What killed trainings left is removed, and nothing else.
        let name = |name: &str| run.path().join(name);
        fs::create_dir(name(".tmp-1-step-00000002")).unwrap();
        fs::write(name(".tmp-1-step-00000002").join(MODEL), "half").unwrap();
        fs::write(name(".tmp-7-latest"), "half").unwrap();
        fs::write(name("notes.txt"), "mine").unwrap();
        let _lock = RunLock::take(run.path(), &Silent).unwrap();
        let mut left: Vec<_> = fs::read_dir(run.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, [".lock", "notes.txt"]);
    }
}
