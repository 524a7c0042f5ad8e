//! The shards in use, opened and indexed when first needed, the least recently used ones let go.

use std::collections::HashMap;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use concepts::sidecar::Sidecar;

use crate::cache::Cache;
use crate::caption::CaptionSource;
use crate::index::Index;
use crate::tar::Archive;
use crate::{Error, sidecar, source};

/// A shard ready to be read.
#[derive(Debug)]
pub(crate) struct Shard {
    pub(crate) archive: Archive,
    pub(crate) index: Index,
    /// Present when mentions are wanted.
    pub(crate) sidecar: Option<Sidecar>,
}

/// Threads that need the same shard wait for the one that opens it, and no other.
type Slot = Arc<Mutex<Option<Arc<Shard>>>>;

#[derive(Debug)]
pub(crate) struct Store {
    shards: Vec<PathBuf>,
    mentions: bool,
    /// Where captions come from.
    captions: CaptionSource,
    cache: Option<Cache>,
    open: Mutex<Open>,
    /// Of each shard that was opened, a hash of its length and date: one that was let go and written again must not
    /// come back as another.
    versions: Mutex<HashMap<u32, u64>>,
}

#[derive(Debug)]
struct Open {
    capacity: usize,
    /// Counts uses; the slot with the smallest count was not used for the longest time.
    clock: u64,
    slots: HashMap<u32, (u64, Slot)>,
}

impl Store {
    /// `mentions`: whether sidecars are opened too. At first room for every shard is given; see
    /// [`Store::limit`].
    pub(crate) fn new(
        shards: Vec<PathBuf>,
        mentions: bool,
        captions: CaptionSource,
        cache: Option<Cache>,
    ) -> Self {
        let open = Open { capacity: MOST_OPEN, clock: 0, slots: HashMap::new() };
        Self { shards, mentions, captions, cache, open: Mutex::new(open), versions: Mutex::default() }
    }

    pub(crate) fn shards(&self) -> &[PathBuf] {
        &self.shards
    }

    /// Whether any shard is behind a network.
    pub(crate) fn is_remote(&self) -> bool {
        self.shards.iter().any(|shard| source::is_remote(shard))
    }

    /// Keeps at most `capacity` shards open from now on.
    pub(crate) fn limit(&self, capacity: usize) {
        let mut open = lock(&self.open);
        open.capacity = capacity.clamp(1, MOST_OPEN);
        open.evict();
    }

    /// The shard at this position of the list.
    pub(crate) fn get(&self, shard: u32) -> Result<Arc<Shard>, Error> {
        let slot = lock(&self.open).slot(shard);
        let mut content = lock(&slot);
        if let Some(shard) = &*content {
            return Ok(Arc::clone(shard));
        }
        let opened = Arc::new(self.load(shard)?);
        *content = Some(Arc::clone(&opened));
        Ok(opened)
    }

    /// Samples of a shard: from its statistics when it has them, from its index otherwise.
    pub(crate) fn count(&self, shard: u32) -> Result<u32, Error> {
        match crate::index::count_from_stats(&self.shards[shard as usize])? {
            Some(count) => Ok(count),
            None => Ok(self.get(shard)?.index.len() as u32),
        }
    }

    fn load(&self, shard: u32) -> Result<Shard, Error> {
        let path = &self.shards[shard as usize];
        let (archive, index) = if let Some(cache) = &self.cache {
            let archive = Archive::open_cached(path, cache)?;
            let index = Index::load_for(&archive, &self.captions, Some(cache))?;
            (archive, index)
        } else {
            let archive = Archive::open(path)?;
            let index = Index::load_for(&archive, &self.captions, None)?;
            (archive, index)
        };
        let version = BuildHasherDefault::<DefaultHasher>::default().hash_one(archive.version());
        if *lock(&self.versions).entry(shard).or_insert(version) != version {
            let problem =
                "was written again while it was in use; start the run again from its last checkpoint";
            return Err(Error::Changed { shard: path.clone(), problem });
        }
        let sidecar = if self.mentions { Some(sidecar::open(path, Some(index.len() as u32))?) } else { None };
        Ok(Shard { archive, index, sidecar })
    }
}

/// Most shards held open: half of the 1,024 files that a process may usually have.
const MOST_OPEN: usize = 512;

impl Open {
    fn slot(&mut self, shard: u32) -> Slot {
        self.clock += 1;
        let (used, slot) = self.slots.entry(shard).or_default();
        *used = self.clock;
        let slot = Arc::clone(slot);
        self.evict();
        slot
    }

    fn evict(&mut self) {
        while self.slots.len() > self.capacity {
            let oldest = self.slots.iter().min_by_key(|(_, (used, _))| *used).map(|(&shard, _)| shard);
            let Some(oldest) = oldest else { break };
            self.slots.remove(&oldest);
        }
    }
}

/// A thread that panicked while it held a lock has changed nothing here: every change is one assignment.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
