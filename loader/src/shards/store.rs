//! The open shards. A shard is opened and indexed when it is first needed; the least recently used shards are closed.

use std::collections::HashMap;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use concepts::sidecar::Sidecar;
use storage::{Cache, Location};

use crate::Error;
use crate::shards::index::{Index, count_from_stats};
use crate::shards::set_index::Described;
use crate::shards::tar::Archive;
use crate::shards::{CaptionSource, Identity, sidecar};

/// An open shard.
#[derive(Debug)]
pub(crate) struct Shard {
    pub(crate) archive: Archive,
    pub(crate) index: Index,
    /// Present if mentions are loaded.
    pub(crate) sidecar: Option<Sidecar>,
}

/// A shard that is open, or that a thread is opening: threads that need the same shard wait for that thread only.
type Entry = Arc<Mutex<Option<Arc<Shard>>>>;

#[derive(Debug)]
pub(crate) struct Store {
    shards: Vec<Location>,
    mentions: bool,
    /// Where captions come from.
    captions: CaptionSource,
    cache: Option<Cache>,
    /// What indices say of the shards.
    known: Vec<Option<Described>>,
    open: Mutex<Open>,
    /// For each shard that was opened, a hash of its length and date: a shard that was closed must not have changed
    /// when it is opened again.
    versions: Mutex<HashMap<u32, u64>>,
    /// Shards whose tar has no mark of its end, while no other file says how many samples they had.
    without_end: Mutex<Vec<u32>>,
    /// What was found in the shards that were opened so far, and what must be found.
    identities: Mutex<Identities>,
}

#[derive(Debug, Default)]
struct Identities {
    found: HashMap<u32, Identity>,
    /// Those found since [`Store::opened`] was last called.
    new: Vec<(u32, Identity)>,
    expected: Vec<Expected>,
}

/// What the shards must contain, because something was computed from them before.
#[derive(Debug, Clone)]
pub struct Expected {
    /// By the shard's number in the list of all shards; `None` if it is not known.
    pub shards: Vec<Option<Identity>>,
    /// Whether the captions count.
    pub captions: bool,
    /// What was computed, and what to do if the shards differ: the end of a sentence that begins with "the shard has other
    /// samples than when".
    pub since: String,
}

impl Expected {
    fn check(&self, shard: u32, path: &Location, found: &Identity) -> Result<(), Error> {
        let Some(expected) = self.shards.get(shard as usize).copied().flatten() else { return Ok(()) };
        match expected.difference(found, self.captions) {
            None => Ok(()),
            Some(what) => Err(Error::Changed {
                path: path.to_owned(),
                problem: format!("has {what} than when {}", self.since),
            }),
        }
    }
}

#[derive(Debug)]
struct Open {
    capacity: usize,
    /// Counts uses; the entry with the smallest count is the least recently used one.
    clock: u64,
    entries: HashMap<u32, (u64, Entry)>,
}

impl Store {
    /// `mentions`: whether sidecars are opened, too. Up to [`MAX_OPEN`] shards are kept open until [`Store::limit`] is
    /// called.
    pub(crate) fn new(
        shards: Vec<Location>,
        mentions: bool,
        captions: CaptionSource,
        cache: Option<Cache>,
        known: Vec<Option<Described>>,
    ) -> Self {
        let open = Open { capacity: MAX_OPEN, clock: 0, entries: HashMap::new() };
        Self {
            shards,
            mentions,
            captions,
            cache,
            known,
            open: Mutex::new(open),
            versions: Mutex::default(),
            without_end: Mutex::default(),
            identities: Mutex::default(),
        }
    }

    /// The counted shards that may have been cut between two members, which nothing shows for certain.
    pub(crate) fn perhaps_cut(&self) -> Vec<&Location> {
        let mut found = lock(&self.without_end).clone();
        found.sort_unstable();
        found.into_iter().map(|shard| &self.shards[shard as usize]).collect()
    }

    /// Rejects shards from now on that are not as expected, and those opened so far.
    pub(crate) fn expect(&self, expected: Expected) -> Result<(), Error> {
        let mut identities = lock(&self.identities);
        for (&shard, found) in &identities.found {
            expected.check(shard, &self.shards[shard as usize], found)?;
        }
        identities.expected.push(expected);
        Ok(())
    }

    /// What was found in the shards that were opened since the last call.
    pub(crate) fn opened(&self) -> Vec<(u32, Identity)> {
        std::mem::take(&mut lock(&self.identities).new)
    }

    /// The list of shards.
    pub(crate) fn shards(&self) -> &[Location] {
        &self.shards
    }

    /// Whether any shard is remote.
    pub(crate) fn is_remote(&self) -> bool {
        self.shards.iter().any(Location::is_remote)
    }

    /// Keeps at most `capacity` shards open from now on.
    pub(crate) fn limit(&self, capacity: usize) {
        let mut open = lock(&self.open);
        open.capacity = capacity.clamp(1, MAX_OPEN);
        open.evict();
    }

    /// The shard at this position of the list; opens it if needed.
    pub(crate) fn get(&self, shard: u32) -> Result<Arc<Shard>, Error> {
        let entry = lock(&self.open).entry(shard);
        let mut content = lock(&entry);
        if let Some(shard) = &*content {
            return Ok(Arc::clone(shard));
        }
        let opened = Arc::new(self.load(shard)?);
        *content = Some(Arc::clone(&opened));
        Ok(opened)
    }

    /// What an index says of a shard.
    fn known(&self, shard: u32) -> Option<&Described> {
        self.known.get(shard as usize)?.as_ref()
    }

    /// The shards that are in no index.
    pub(crate) fn unknown(&self) -> impl Iterator<Item = &Location> {
        self.shards.iter().zip(&self.known).filter(|(_, known)| known.is_none()).map(|(shard, _)| shard)
    }

    /// Number of samples of a shard: from the index of its folder, or from its `_stats.json`, or else from its own index.
    pub(crate) fn count(&self, shard: u32) -> Result<u32, Error> {
        if let Some(known) = self.known(shard) {
            let path = &self.shards[shard as usize];
            // A remote shard is compared when it is opened, as a look would be a request.
            if !path.is_remote() {
                known.check_bytes(path, storage::length(path)?)?;
            }
            return Ok(known.samples);
        }
        if let Some(count) = count_from_stats(&self.shards[shard as usize])? {
            return Ok(count);
        }
        let index = &self.get(shard)?.index;
        if index.without_end {
            lock(&self.without_end).push(shard);
        }
        Ok(index.len() as u32)
    }

    fn load(&self, shard: u32) -> Result<Shard, Error> {
        let path = &self.shards[shard as usize];
        let (archive, index) = if let Some(cache) = &self.cache {
            let archive = Archive::open_cached(path, cache)?;
            let index = Index::load_from(&archive, self.captions.extension(), Some(cache))?;
            (archive, index)
        } else {
            let archive = Archive::open(path)?;
            let index = Index::load_from(&archive, self.captions.extension(), None)?;
            (archive, index)
        };
        let version = BuildHasherDefault::<DefaultHasher>::default().hash_one(archive.version());
        if *lock(&self.versions).entry(shard).or_insert(version) != version {
            let problem =
                "has changed since it was opened; restart the run from its last checkpoint".to_owned();
            return Err(Error::Changed { path: path.clone(), problem });
        }
        self.identify(shard, &index)?;
        let sidecar = if self.mentions { Some(sidecar::open(path, Some(index.len() as u32))?) } else { None };
        if let Some(known) = self.known(shard) {
            let sidecar = sidecar.as_ref().map(|sidecar| sidecar.metadata.clone());
            let (bytes, samples) = (archive.stored(), index.len() as u32);
            known.check(path, &Described { bytes, samples, content: index.identity(), sidecar })?;
        }
        Ok(Shard { archive, index, sidecar })
    }

    fn identify(&self, shard: u32, index: &Index) -> Result<(), Error> {
        let found = index.identity();
        let mut identities = lock(&self.identities);
        if identities.found.insert(shard, found).is_none() {
            identities.new.push((shard, found));
        }
        for expected in &identities.expected {
            expected.check(shard, &self.shards[shard as usize], &found)?;
        }
        Ok(())
    }
}

/// Maximum number of shards kept open: half of 1,024, the usual limit of open files per process.
pub(crate) const MAX_OPEN: usize = 512;

impl Open {
    fn entry(&mut self, shard: u32) -> Entry {
        self.clock += 1;
        let (used, entry) = self.entries.entry(shard).or_default();
        *used = self.clock;
        let entry = Arc::clone(entry);
        self.evict();
        entry
    }

    fn evict(&mut self) {
        while self.entries.len() > self.capacity {
            let oldest = self.entries.iter().min_by_key(|(_, (used, _))| *used).map(|(&shard, _)| shard);
            let Some(oldest) = oldest else { break };
            self.entries.remove(&oldest);
        }
    }
}

/// Ignores poisoning: every change under these locks is one assignment, so a thread that panicked has left no partial
/// state.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
