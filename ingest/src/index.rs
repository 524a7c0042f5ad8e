//! The index of the shards, with which a training starts fast ([`loader::shards::set_index`]). A shard that changes removes the
//! index of its folder; a run that leaves a folder with complete shards and without an index writes it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use loader::shards;
use loader::shards::set_index::{INDEX, SetIndex};
use program::Progress;
use storage::Location;

use crate::dataset::Part;
use crate::error::Error;
use crate::parallel::run_parallel;

/// Writes the index of a folder of shards, if it has none, its shards are complete, and this process made all parts. The shards are
/// made, whether this succeeds or not: a failure is a note.
pub fn renew(folder: &Location, part: Part, threads: usize) {
    if let Err(error) = make(folder, part, threads) {
        eprintln!("note: no {INDEX} was written: {error}; `tools index {folder}` writes it");
    }
}

fn make(folder: &Location, part: Part, threads: usize) -> Result<(), Error> {
    let is_folder =
        if folder.is_remote() { shards::stem(folder).is_none() } else { folder.is_local_folder() };
    if part != Part::ALL || !is_folder || storage::exists(folder.join(INDEX))? {
        return Ok(());
    }
    // Without shards there is nothing to index, and a folder whose shards are still being made has no index yet.
    let Ok(shards) = shards::list([folder]) else { return Ok(()) };
    if !shards::incomplete([folder])?.is_empty() {
        return Ok(());
    }
    let next = AtomicUsize::new(0);
    let state = Mutex::new((BTreeMap::new(), Progress::new("indexing", "shards", shards.len() as u64)));
    run_parallel(threads.min(shards.len()), |stop| {
        while let Some(shard) = shards.get(next.fetch_add(1, Ordering::Relaxed)) {
            stop.check()?;
            let described = shards::describe(shard)?;
            let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
            state.0.insert(shard.file_name().into_owned(), described);
            state.1.advance(1, String::new);
        }
        Ok(())
    })?;
    let (shards, _) = state.into_inner().unwrap_or_else(PoisonError::into_inner);
    Ok(SetIndex { shards }.write(folder)?)
}
