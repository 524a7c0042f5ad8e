//! A folder on a local disk that keeps copies of shards: remote shards as they are stored, compressed shards
//! decompressed. Its size is limited, and all processes of a machine can share it.
//!
//! An entry's file name is a hash of the shard's name, length and date, so a shard that is written again gets another
//! entry. An entry is written under a temporary name and renamed when it is complete. While one process makes an entry,
//! others that need it wait. When the folder exceeds its limit, the least recently used entries are removed; a process
//! that has one of them open can continue to read it.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use disk::files::{AtomicFile, TEMPORARY};
use sha2::{Digest, Sha256};

use crate::{Error, Location};

/// File extension of an entry.
const ENTRY: &str = "shard";

/// Settings of the shard cache.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cache {
    /// The folder; created if needed. Only cache entries are ever removed from it.
    pub folder: PathBuf,
    /// Maximum total size of the entries, bytes.
    pub limit: u64,
}

impl Cache {
    /// Opens the entry for this shard and version; `fill` makes it if it does not exist. `about` is its expected length
    /// in bytes.
    ///
    /// # Errors
    /// Those of `fill`; the entry does not fit ([`Error::Settings`]); or the folder cannot be written.
    pub fn get<E: From<Error>>(
        &self,
        shard: &Location,
        version: &str,
        about: u64,
        fill: impl FnOnce(&mut dyn Write) -> Result<(), E>,
    ) -> Result<File, E> {
        let too_small = |than: String| {
            let (folder, limit) = (self.folder.display(), self.limit);
            Error::Settings(format!(
                "the cache folder {folder} is limited to {limit} bytes, less than {than}; raise its limit"
            ))
        };
        if about > self.limit {
            return Err(too_small(format!("the {about} bytes of shard {shard}")).into());
        }
        fs::create_dir_all(&self.folder).map_err(Error::io(&self.folder, "create"))?;
        let hash = Sha256::digest(format!("{shard}\n{version}"));
        let name: String = hash.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        let path = self.folder.join(format!("{name}.{ENTRY}"));
        if let Some(file) = opened(&path)? {
            return Ok(file);
        }
        let lock_path = self.folder.join(format!("{name}.lock"));
        let lock = File::create(&lock_path).map_err(Error::write(&lock_path))?;
        lock.lock().map_err(Error::io(&lock_path, "lock"))?;
        // Another process made the entry while this one waited.
        if let Some(file) = opened(&path)? {
            return Ok(file);
        }
        self.make_room(about)?;
        let mut file = AtomicFile::create(&path).map_err(Error::write(&path))?;
        fill(&mut PathWriter { to: &mut file, path: &self.folder })?;
        file.commit().map_err(Error::write(&path))?;
        // The lock is released when dropped. Another process may still hold the removed lock file; the only harm is a
        // second download.
        let _ = fs::remove_file(&lock_path);
        let made = opened(&path)?;
        // A decompressed shard may be longer than expected.
        self.make_room(0)?;
        match made {
            Some(file) if file.metadata().map_err(Error::read(&path))?.len() <= self.limit => Ok(file),
            _ => Err(too_small(format!("shard {shard} needs when decompressed")).into()),
        }
    }

    /// Removes the least recently used entries until `bytes` more bytes fit.
    fn make_room(&self, bytes: u64) -> Result<(), Error> {
        let mut entries: Vec<(SystemTime, u64, PathBuf)> = Vec::new();
        for entry in fs::read_dir(&self.folder).map_err(Error::read(&self.folder))? {
            let path = entry.map_err(Error::read(&self.folder))?.path();
            // Another process may have removed it.
            let Ok(metadata) = fs::metadata(&path) else { continue };
            let unfinished =
                path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(TEMPORARY));
            if path.extension().is_some_and(|extension| extension == ENTRY) && !unfinished {
                entries.push((metadata.modified().map_err(Error::read(&path))?, metadata.len(), path));
            }
        }
        entries.sort();
        let mut total: u64 = entries.iter().map(|(_, length, _)| length).sum();
        for (_, length, path) in entries {
            if total + bytes <= self.limit {
                break;
            }
            match fs::remove_file(&path) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(Error::io(&path, "remove")(e)),
                _ => total -= length,
            }
        }
        Ok(())
    }
}

/// A writer whose errors contain the path that is written. Without it, a full disk would be reported for the source
/// file.
pub struct PathWriter<'a> {
    /// What is written to.
    pub to: &'a mut dyn Write,
    /// Its path.
    pub path: &'a Path,
}

impl PathWriter<'_> {
    fn with_path<T>(&self, result: io::Result<T>) -> io::Result<T> {
        result.map_err(|e| io::Error::new(e.kind(), format!("writing to {}: {e}", self.path.display())))
    }
}

impl Write for PathWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.to.write(bytes);
        self.with_path(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        let flushed = self.to.flush();
        self.with_path(flushed)
    }
}

/// Opens an entry if it exists, and marks it as used now.
fn opened(path: &Path) -> Result<Option<File>, Error> {
    match File::open(path) {
        Ok(file) => {
            // A failure only affects the order in which entries are removed.
            let _ = file.set_modified(SystemTime::now());
            Ok(Some(file))
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::read(path)(e)),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn entries(folder: &Path) -> usize {
        let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        names.filter(|path| path.extension().is_some_and(|extension| extension == ENTRY)).count()
    }

    #[test]
    fn an_entry_is_made_once_and_the_least_recently_used_one_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache { folder: folder.path().join("new"), limit: 250 };
        let get = |name: &str, version: &str, byte: u8, made: &mut usize| {
            let mut file = cache
                .get(&name.into(), version, 100, |to| {
                    *made += 1;
                    to.write_all(&[byte; 100]).map_err(Error::write(name))
                })
                .unwrap();
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes).unwrap();
            bytes
        };
        let mut made = 0;
        assert_eq!(get("a", "1", 1, &mut made), [1; 100]);
        assert_eq!(get("a", "1", 9, &mut made), [1; 100], "from the cache");
        assert_eq!(get("a", "2", 2, &mut made), [2; 100], "another version");
        assert_eq!((made, entries(&cache.folder)), (2, 2));
        get("a", "1", 9, &mut made);
        assert_eq!(get("b", "1", 3, &mut made), [3; 100]);
        assert_eq!((made, entries(&cache.folder)), (3, 2), "one entry had to be removed");
        assert_eq!(get("a", "1", 9, &mut made), [1; 100], "but not the one used last");
        assert!(
            cache
                .get(&"c".into(), "", 251, |_| Ok::<(), Error>(()))
                .unwrap_err()
                .to_string()
                .contains("raise its limit")
        );
        // Longer than expected, as a decompressed shard may be.
        let longer = cache.get(&"e".into(), "", 10, |to| to.write_all(&[5; 300]).map_err(Error::write("e")));
        assert!(longer.unwrap_err().to_string().contains("when decompressed; raise its limit"));
        assert_eq!(entries(&cache.folder), 0, "entries beyond the limit are removed");
        let failed = cache.get(&"d".into(), "", 10, |_| Err(Error::Settings("broken".into())));
        assert!(failed.is_err());
        assert_eq!(get("d", "", 4, &mut made), [4; 100], "a failure leaves nothing behind");
    }

    #[test]
    fn the_error_for_a_full_disk_contains_the_cache_folder() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::StorageFull.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut writer = PathWriter { to: &mut Full, path: Path::new("/fast/cache") };
        let error = writer.write_all(b"a").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        assert!(error.to_string().contains("/fast/cache"), "{error}");
    }

    #[test]
    fn threads_share_an_entry() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache { folder: folder.path().to_owned(), limit: 1000 };
        let made = std::sync::atomic::AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let fill = |to: &mut dyn Write| {
                        made.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                        std::thread::sleep(std::time::Duration::from_millis(50));
                        to.write_all(b"whole").map_err(Error::write("a"))
                    };
                    let mut text = String::new();
                    cache.get(&"a".into(), "", 5, fill).unwrap().read_to_string(&mut text).unwrap();
                    assert_eq!(text, "whole");
                });
            }
        });
        assert_eq!(made.into_inner(), 1);
    }
}
