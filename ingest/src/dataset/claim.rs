//! Claims: which of the processes that write one dataset makes a shard.
//!
//! A claim ends with its holder, however it ends. In a folder, it is the lock (`flock`) of the file `.tmp-claim-NNNNN`, which
//! the system releases when the process dies. In an object store, it is an object that its holder writes again every
//! [`RENEW_EVERY`]; one that has not changed for [`LEASE`] has no holder and may be taken over. All writes of it are
//! conditional, so of several processes only one succeeds. Nobody compares clocks.

use std::collections::HashMap;
use std::fs::{self, File, TryLockError};
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use bytes::Bytes;
use crossbeam::channel::{self, RecvTimeoutError, Sender};
use disk::files::TEMPORARY;
use storage::{Location, Version};

use crate::error::Error;

/// How often a holder writes its claim in an object store.
const RENEW_EVERY: Duration = Duration::from_secs(15);
/// After this time without a change, a claim in an object store has no holder.
const LEASE: Duration = Duration::from_mins(1);

/// Makes claims in one folder.
pub(crate) struct Claims {
    folder: Location,
    /// Claims of others in an object store: their contents, and since when they have not changed.
    others: HashMap<String, (Bytes, Instant)>,
}

/// The right to write the files of one shard, until it is dropped.
pub(crate) struct Claim(Kind);

enum Kind {
    Lock {
        path: PathBuf,
        _held: File,
    },
    Lease(Lease),
    /// There are no claims in this folder.
    Unavailable,
}

impl Claims {
    pub(crate) fn new(folder: &Location) -> Self {
        Self { folder: folder.to_owned(), others: HashMap::new() }
    }

    /// Whether the file is a claim.
    pub(crate) fn is_claim(name: &str) -> bool {
        name.strip_prefix(TEMPORARY).is_some_and(|rest| rest.starts_with("claim-"))
    }

    /// Claims `name`, usually a shard; None if another process has claimed it.
    pub(crate) fn take(&mut self, name: &str) -> Result<Option<Claim>, Error> {
        let path = self.folder.join(format!("{TEMPORARY}claim-{name}"));
        match path {
            Location::Local(path) => Ok(lock(path)?.map(Claim)),
            Location::Remote(_) => self.lease(name, path),
        }
    }

    fn lease(&mut self, name: &str, path: Location) -> Result<Option<Claim>, Error> {
        let token = format!("{:016x}", RandomState::new().hash_one(name));
        let first = |version: Option<&Version>| storage::write_if(&path, content(&token, 0), version);
        let mut written = match first(None) {
            Err(error) if storage::is_unsupported(&error) => {
                warn(&path, "its server has no conditional writes");
                return Ok(Some(Claim(Kind::Unavailable)));
            }
            written => written?,
        };
        if written.is_none() {
            // Its holder may remove it at this moment; the next attempt will succeed.
            let Some((now, version)) = storage::read_version(&path)? else { return Ok(None) };
            if now == content(&token, 0) {
                // The store repeated the request after it had succeeded.
                written = Some(version);
            } else {
                let seen =
                    self.others.entry(name.to_owned()).or_insert_with(|| (now.clone(), Instant::now()));
                if seen.0 != now {
                    *seen = (now, Instant::now());
                }
                if seen.1.elapsed() < LEASE {
                    return Ok(None);
                }
                written = first(Some(&version))?;
            }
        }
        self.others.remove(name);
        written.map(|version| Ok(Claim(Kind::Lease(Lease::start(path, token, version)?)))).transpose()
    }
}

impl Claim {
    /// Must succeed before the shard's files get their final names.
    pub(crate) fn confirm(&self) -> Result<(), Error> {
        match &self.0 {
            Kind::Lease(lease) => lease.renew(),
            Kind::Lock { .. } | Kind::Unavailable => Ok(()),
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if let Kind::Lock { path, .. } = &self.0 {
            // While it is still locked: see `lock`.
            let _ = fs::remove_file(path);
        }
    }
}

/// Locks a file, which is created if needed; None if another process has locked it. It is never written to, and a link
/// with its name is not followed.
fn lock(path: PathBuf) -> Result<Option<Kind>, Error> {
    loop {
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .custom_flags(libc::O_NOFOLLOW)
            .open(&path)
            .map_err(Error::file("create", &path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => {
                let _ = fs::remove_file(&path);
                if is_unavailable(&error) {
                    warn(&path.into(), "its file system has no locks");
                    return Ok(Some(Kind::Unavailable));
                }
                return Err(Error::file("lock", &path)(error));
            }
        }
        // The earlier holder may have removed the file between its opening and its locking here.
        let ours = file.metadata().map_err(Error::file("lock", &path))?;
        let there = fs::symlink_metadata(&path);
        if there.is_ok_and(|there| (there.dev(), there.ino()) == (ours.dev(), ours.ino())) {
            return Ok(Some(Kind::Lock { path, _held: file }));
        }
    }
}

fn is_unavailable(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::Unsupported || error.raw_os_error() == Some(libc::ENOLCK)
}

/// Says once that processes cannot share the dataset.
fn warn(path: &Location, why: &str) {
    static DONE: AtomicBool = AtomicBool::new(false);
    if !DONE.swap(true, Ordering::Relaxed) {
        let folder = path.parent().unwrap_or_else(|| path.clone());
        eprintln!(
            "warning: {folder}: {why}, so several processes cannot share shards here: start no second one, or give each \
             its own --index of --count"
        );
    }
}

fn content(token: &str, renewals: u64) -> Bytes {
    format!("{token} {renewals}\n").into()
}

/// A claim in an object store, which a thread renews.
struct Lease {
    held: Arc<Held>,
    /// Ends the thread when it is dropped.
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

struct Held {
    path: Location,
    token: String,
    /// The last version that this process wrote and the number of renewals; None after another process took over.
    state: Mutex<Option<(Version, u64)>>,
}

impl Lease {
    fn start(path: Location, token: String, version: Version) -> Result<Self, Error> {
        let held = Arc::new(Held { path, token, state: Mutex::new(Some((version, 0))) });
        let (stop, stopped) = channel::bounded(0);
        let renewed = Arc::clone(&held);
        let renew = move || {
            while stopped.recv_timeout(RENEW_EVERY) == Err(RecvTimeoutError::Timeout) {
                // If the store is out of reach, the next attempt may succeed.
                let _ = renewed.renew();
            }
        };
        let thread = thread::Builder::new().name("claim".to_owned()).spawn(renew);
        let thread = thread.map_err(Error::file("renew", &held.path))?;
        Ok(Self { held, stop: Some(stop), thread: Some(thread) })
    }

    fn renew(&self) -> Result<(), Error> {
        self.held.renew()
    }
}

impl Held {
    fn renew(&self) -> Result<(), Error> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let lost = || {
            let problem = format!(
                "another process took over this shard, because this one could not renew its claim for {} s; run the same \
                 command again",
                LEASE.as_secs()
            );
            Error::input(&self.path, problem)
        };
        let Some((version, renewals)) = &*state else { return Err(lost()) };
        let next = renewals + 1;
        let mut written = match storage::write_if(&self.path, content(&self.token, next), Some(version)) {
            Err(error) if storage::is_unsupported(&error) => {
                warn(&self.path, "its objects have no versions");
                return Ok(());
            }
            written => written?,
        };
        if written.is_none() {
            // The store may have repeated the request after it had succeeded.
            let now = storage::read_version(&self.path)?;
            written = now.filter(|(now, _)| *now == content(&self.token, next)).map(|(_, version)| version);
        }
        *state = written.map(|version| (version, next));
        if state.is_some() { Ok(()) } else { Err(lost()) }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        if self.held.state.lock().unwrap_or_else(PoisonError::into_inner).is_some() {
            // Otherwise others have to wait until the claim has not changed for a while.
            let _ = storage::remove(&self.held.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_process_has_a_claim_until_it_drops_it() {
        let folder = tempfile::tempdir().unwrap();
        let (mut ours, mut theirs) = (Claims::new(&folder.path().into()), Claims::new(&folder.path().into()));
        let claim = ours.take("00000").unwrap().unwrap();
        assert!(theirs.take("00000").unwrap().is_none());
        assert!(theirs.take("00001").unwrap().is_some());
        drop(claim);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        assert!(theirs.take("00000").unwrap().is_some());
    }

    #[test]
    fn a_claim_without_a_holder_is_taken_and_a_link_is_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(".tmp-claim-00000"), "").unwrap();
        let mut claims = Claims::new(&folder.path().into());
        assert!(claims.take("00000").unwrap().is_some());
        let victim = folder.path().join("victim");
        std::os::unix::fs::symlink(&victim, folder.path().join(".tmp-claim-00001")).unwrap();
        assert!(claims.take("00001").is_err());
        assert!(!victim.exists());
    }

    #[test]
    fn of_many_threads_one_at_a_time_has_the_claim() {
        let folder = tempfile::tempdir().unwrap();
        let inside = AtomicBool::new(false);
        let taken = std::sync::atomic::AtomicU32::new(0);
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let mut claims = Claims::new(&folder.path().into());
                    for _ in 0..500 {
                        if let Some(_claim) = claims.take("00000").unwrap() {
                            assert!(!inside.swap(true, Ordering::SeqCst), "two holders");
                            taken.fetch_add(1, Ordering::Relaxed);
                            inside.store(false, Ordering::SeqCst);
                        }
                    }
                });
            }
        });
        assert!(taken.into_inner() > 0);
    }
}
