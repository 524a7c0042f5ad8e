//! What is known of the shards before anything is written.

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use arrow_schema::SchemaRef;
use loader::Identity;
use loader::shards::{self, Archive, Index};
use program::Progress;
use storage::Location;

use crate::error::Error;
use crate::parallel::run_parallel;
use crate::rewrite::tables;

/// What is known of a shard.
pub(super) struct Indexed {
    pub(super) samples: u32,
    pub(super) identity: Identity,
    /// A hash of each key.
    keys: Vec<u64>,
}

/// Reads the indexes of shards.
pub(super) fn read_indexes(shards: &[Location], threads: usize) -> Result<Vec<Indexed>, Error> {
    let progress = Mutex::new(Progress::new("reading", "shards", shards.len() as u64));
    let (next, found) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    run_parallel(threads.min(shards.len()), |stop| {
        loop {
            stop.check()?;
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(shard) = shards.get(number) else { return Ok(()) };
            let index = Index::load(&Archive::open(shard)?)?;
            let samples = index.len() as u32;
            let keys = (0..samples).map(|sample| shards::image_check(index.key(sample).as_bytes())).collect();
            let indexed = Indexed { samples, identity: index.identity(), keys };
            found.lock().unwrap_or_else(PoisonError::into_inner).push((number, indexed));
            progress.lock().unwrap_or_else(PoisonError::into_inner).advance(1, String::new);
        }
    })?;
    let mut found = found.into_inner().unwrap_or_else(PoisonError::into_inner);
    found.sort_by_key(|(number, _)| *number);
    Ok(found.into_iter().map(|(_, indexed)| indexed).collect())
}

/// Samples keep their keys, of which a tar may have each only once.
pub(super) fn refuse_equal_keys(
    shards: &[Location],
    indexed: &[Indexed],
    taken: &[Option<Vec<u32>>],
) -> Result<(), Error> {
    let mut all: Vec<(u64, u32)> = Vec::new();
    for (shard, (index, taken)) in (0..).zip(indexed.iter().zip(taken)) {
        match taken {
            None => all.extend(index.keys.iter().map(|&key| (key, shard))),
            Some(taken) => all.extend(taken.iter().map(|&sample| (index.keys[sample as usize], shard))),
        }
    }
    all.sort_unstable();
    for [(_, one), (_, other)] in all.array_windows().filter(|[a, b]| a.0 == b.0) {
        let (one, other) = (&shards[*one as usize], &shards[*other as usize]);
        if let Some(key) = shared_key(one, other)? {
            let problem = format!(
                "sample {key} has the same key as one of {other}, and samples keep their keys: reshard the two shards one by one"
            );
            return Err(Error::input(one, problem));
        }
    }
    Ok(())
}

/// A key that two shards have, or one shard twice. Different keys may have the same hash.
fn shared_key(one: &Location, other: &Location) -> Result<Option<String>, Error> {
    let mut seen = HashSet::new();
    let (mut shared, shards) = (None, if one == other { vec![one] } else { vec![one, other] });
    for shard in shards {
        let index = Index::load(&Archive::open(shard)?)?;
        for sample in 0..index.len() as u32 {
            if !seen.insert(index.key(sample).to_owned()) {
                shared.get_or_insert_with(|| index.key(sample).to_owned());
            }
        }
    }
    Ok(shared)
}

/// The columns of the new tables: those of all tables, and those of shards without one.
pub(super) fn columns(shards: &[Location]) -> Result<SchemaRef, Error> {
    let mut found = Vec::new();
    for shard in shards {
        let path = shards::table_path(shard);
        let columns = if storage::exists(&path)? { tables::schema(&path)? } else { tables::minimal_schema() };
        found.push((path, columns));
    }
    tables::united(found.iter().map(|(path, columns)| (path, columns)))
}
