//! Shards kept on a local disk: remote ones as they were fetched, compressed ones decoded. Bounded, and shared by the
//! processes of a machine.
//!
//! An entry is named by a hash of the shard's name, length and date, so a shard that was written again is another
//! entry. It appears whole or not at all; a process that needs one which another is making waits for it. When the
//! folder grows beyond its limit, entries that were not used for the longest time go; a process that has one
//! open keeps its bytes until it closes it.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use concepts::files::{AtomicFile, TEMPORARY};
use sha2::{Digest, Sha256};

use crate::Error;

/// Ending of an entry's name.
const ENTRY: &str = "shard";

/// A folder of shards.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Cache {
    /// The folder; made when needed. Only entries of caches are removed from it.
    pub folder: PathBuf,
    /// Most bytes of all entries.
    pub limit: u64,
}

impl Cache {
    /// The entry of the shard with this name and version, made by `fill` if it is not there. `about` is its likely
    /// length, bytes.
    pub(crate) fn get(
        &self,
        shard: &Path,
        version: &str,
        about: u64,
        fill: impl FnOnce(&mut dyn Write) -> Result<(), Error>,
    ) -> Result<File, Error> {
        if about > self.limit {
            let problem = format!(
                "the cache {} may hold {} bytes, fewer than the {about} of shard {}; give it more",
                self.folder.display(),
                self.limit,
                shard.display()
            );
            return Err(Error::Settings(problem));
        }
        fs::create_dir_all(&self.folder).map_err(Error::io(&self.folder))?;
        let hash = Sha256::digest(format!("{}\n{version}", shard.display()));
        let name: String = hash.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        let path = self.folder.join(format!("{name}.{ENTRY}"));
        if let Some(file) = opened(&path)? {
            return Ok(file);
        }
        let lock_path = self.folder.join(format!("{name}.lock"));
        let lock = File::create(&lock_path).map_err(Error::io(&lock_path))?;
        lock.lock().map_err(Error::io(&lock_path))?;
        // Made by another process while this one waited.
        if let Some(file) = opened(&path)? {
            return Ok(file);
        }
        self.make_room(about)?;
        let mut file = AtomicFile::create(&path).map_err(Error::io(&path))?;
        fill(&mut Placed { to: &mut file, place: &self.folder })?;
        file.commit().map_err(Error::io(&path))?;
        // Unlocked when dropped; another process may hold the removed file's lock, which then does no harm but a
        // second download.
        let _ = fs::remove_file(&lock_path);
        let made = opened(&path)?;
        // What was decoded may be longer than it was likely to be.
        self.make_room(0)?;
        match made {
            Some(file) if file.metadata().map_err(Error::io(&path))?.len() <= self.limit => Ok(file),
            _ => Err(Error::Settings(format!(
                "the cache {} may hold {} bytes, which shard {} alone exceeds when decoded; give it more",
                self.folder.display(),
                self.limit,
                shard.display()
            ))),
        }
    }

    /// Removes the entries that were not used for the longest time until `bytes` more fit.
    fn make_room(&self, bytes: u64) -> Result<(), Error> {
        let mut entries: Vec<(SystemTime, u64, PathBuf)> = Vec::new();
        for entry in fs::read_dir(&self.folder).map_err(Error::io(&self.folder))? {
            let path = entry.map_err(Error::io(&self.folder))?.path();
            // Another process may remove it meanwhile.
            let Ok(metadata) = fs::metadata(&path) else { continue };
            let unfinished =
                path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(TEMPORARY));
            if path.extension().is_some_and(|extension| extension == ENTRY) && !unfinished {
                entries.push((metadata.modified().map_err(Error::io(&path))?, metadata.len(), path));
            }
        }
        entries.sort();
        let mut total: u64 = entries.iter().map(|(_, length, _)| length).sum();
        for (_, length, path) in entries {
            if total + bytes <= self.limit {
                break;
            }
            match fs::remove_file(&path) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(Error::io(&path)(e)),
                _ => total -= length,
            }
        }
        Ok(())
    }
}

/// A writer whose errors say where it writes: what is read meanwhile lies elsewhere.
pub(crate) struct Placed<'a> {
    pub(crate) to: &'a mut dyn Write,
    pub(crate) place: &'a Path,
}

impl Placed<'_> {
    fn named<T>(&self, result: io::Result<T>) -> io::Result<T> {
        result.map_err(|e| io::Error::new(e.kind(), format!("writing to {}: {e}", self.place.display())))
    }
}

impl Write for Placed<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.to.write(bytes);
        self.named(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        let flushed = self.to.flush();
        self.named(flushed)
    }
}

/// An entry that is there; it counts as used now.
fn opened(path: &Path) -> Result<Option<File>, Error> {
    match File::open(path) {
        Ok(file) => {
            // Only the order of removal depends on it.
            let _ = file.set_modified(SystemTime::now());
            Ok(Some(file))
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::io(path)(e)),
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
    fn an_entry_is_made_once_and_the_oldest_goes() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache { folder: folder.path().join("new"), limit: 250 };
        let get = |name: &str, version: &str, byte: u8, made: &mut usize| {
            let mut file = cache
                .get(Path::new(name), version, 100, |to| {
                    *made += 1;
                    to.write_all(&[byte; 100]).map_err(Error::io(Path::new(name)))
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
        assert_eq!((made, entries(&cache.folder)), (3, 2), "one had to go");
        assert_eq!(get("a", "1", 9, &mut made), [1; 100], "not the one that was used last");
        assert!(
            cache.get(Path::new("c"), "", 251, |_| Ok(())).unwrap_err().to_string().contains("give it more")
        );
        // Longer than was likely: decoded, for one.
        let longer = cache
            .get(Path::new("e"), "", 10, |to| to.write_all(&[5; 300]).map_err(Error::io(Path::new("e"))));
        assert!(longer.unwrap_err().to_string().contains("exceeds when decoded; give it more"));
        assert_eq!(entries(&cache.folder), 0, "nothing beyond the limit stays");
        let failed = cache.get(Path::new("d"), "", 10, |_| Err(Error::Settings("broken".into())));
        assert!(failed.is_err());
        assert_eq!(get("d", "", 4, &mut made), [4; 100], "a failure leaves nothing behind");
    }

    #[test]
    fn a_full_disk_is_named_by_its_place() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::StorageFull.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut placed = Placed { to: &mut Full, place: Path::new("/fast/cache") };
        let error = placed.write_all(b"a").unwrap_err();
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
                        to.write_all(b"whole").map_err(Error::io(Path::new("a")))
                    };
                    let mut text = String::new();
                    cache.get(Path::new("a"), "", 5, fill).unwrap().read_to_string(&mut text).unwrap();
                    assert_eq!(text, "whole");
                });
            }
        });
        assert_eq!(made.into_inner(), 1);
    }
}
