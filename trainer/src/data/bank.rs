//! The concept vocabulary of a run: from its file, from the statistics of its shards, or from their sidecars.

use std::collections::HashMap;
use std::fs::File;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use concepts::Bank;
use concepts::sidecar::{MentionRow, Metadata};
use concepts::statistics::{CHECKSUMS, CONCEPTS, Counts, Mentioned, TOTALS};
use storage::{Location, is_missing};

use super::watched::watched;
use crate::distributed::Group;
use crate::error::{Error, Result, reading};
use crate::method::objective::Objective;
use crate::observer::Observer;
use crate::settings::Settings;

/// The concept vocabulary (bank) of a run: the concepts in its file, or every concept that is mentioned often enough, by the statistics
/// of the shards or else by their sidecars. The first rank makes it for all. `None` for objectives without a concept loss, whose
/// shards need no sidecars.
pub fn bank(
    settings: &Settings,
    shards: &[Location],
    group: &Group,
    observer: &dyn Observer,
) -> Result<Option<Bank>> {
    if settings.objective.name != Objective::Simzss {
        return Ok(None);
    }
    if !group.is_first() {
        let names: Vec<String> = serde_json::from_slice(&group.of_first(Vec::new())?)
            .map_err(|e| Error::Failed(format!("the vocabulary of rank 0 cannot be read: {e}")))?;
        return Ok(Some(Bank::with_names_of_another(names)?));
    }
    let bank = make(settings, shards, observer)?;
    if group.world() > 1 {
        let names = serde_json::to_vec(bank.names())
            .map_err(|e| Error::Failed(format!("the vocabulary cannot be sent to the other ranks: {e}")))?;
        group.of_first(names)?;
    }
    Ok(Some(bank))
}

fn make(settings: &Settings, shards: &[Location], observer: &dyn Observer) -> Result<Bank> {
    let footers = loader::shards::sidecar::footers(shards)?;
    refuse_mixed_taggers(shards, &footers)?;
    let least = settings.bank.min_mentions;
    let bank = match (&settings.bank.names, &settings.bank.statistics) {
        (Some(path), _) => Bank::from_bytes(path, &storage::read(path)?)?,
        (None, Some(folder)) => Bank::from_names(counted_before(folder, &footers, least)?)?,
        (None, None) => Bank::from_names(count(shards, least, observer)?)?,
    };
    let mut matched = false;
    for_each_mention(shards, |row| {
        matched = bank.find(settings.bank.matching, &row).is_some();
        !matched
    })?;
    if !matched {
        return Err(Error::Failed(format!(
            "the sidecars of the shards mention none of the {} concepts of the vocabulary, so the concept loss has nothing to align; \
             check bank.names and bank.min_mentions",
            bank.len()
        )));
    }
    Ok(bank)
}

/// The concepts with at least `least` mentions, sorted, from statistics of exactly these sidecars.
fn counted_before(folder: &Path, footers: &[Metadata], least: u64) -> Result<Vec<String>> {
    let at = Location::from(folder);
    let read = |name: &str| storage::read(at.join(name));
    let sums = match read(CHECKSUMS) {
        Ok(bytes) => Some(bytes),
        Err(error) if is_missing(&error) => None,
        Err(error) => return Err(error.into()),
    };
    let concepts = storage::local_copy(at.join(CONCEPTS))?;
    let file = File::open(&concepts).map_err(reading(&concepts))?;
    let found = Mentioned::read(folder, &read(TOTALS)?, sums.as_deref(), &file, least)?;
    let problem = match (Counts::source_of(footers), found.totals.source) {
        (Some(shards), Some(counted)) if shards == counted => return Ok(found.names),
        (Some(_), Some(_)) => "has the statistics of other shards or captions than those of data.shards",
        (None, _) => {
            "cannot be compared with shards with sidecars of version 1, which do not know their captions"
        }
        (_, None) => "does not say which captions were counted, because some had sidecars of version 1",
    };
    Err(Error::Setting {
        name: "bank.statistics".to_owned(),
        problem: format!(
            "{problem}; count them with `tools stats` (several folders together with `tools merge`), or leave it out"
        ),
    })
}

/// Number of threads that read sidecars: as many as there are requests at once.
const READERS: usize = 32;

/// From this number of shards on, a user is told that statistics would save the work.
const MANY: usize = 1000;

/// The concepts with at least `least` mentions, sorted, counted in all sidecars.
fn count(shards: &[Location], least: u64, observer: &dyn Observer) -> Result<Vec<String>> {
    if shards.len() >= MANY {
        observer.message(&format!(
            "counting the mentions in the sidecars of {} shards for the vocabulary; with the statistics that `tools stats` writes \
             (bank.statistics) they are not counted again",
            shards.len()
        ));
    }
    let counts: Mutex<HashMap<String, u64>> = Mutex::default();
    let (next, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    let work = |done: &AtomicU64| -> Result<()> {
        while let Some(shard) = shards.get(next.fetch_add(1, Ordering::Relaxed)) {
            if stop.load(Ordering::Relaxed) || observer.interrupted() {
                return Err(Error::interrupted("the vocabulary was not made"));
            }
            let of_shard = loader::shards::sidecar::concept_counts(shard)
                .inspect_err(|_| stop.store(true, Ordering::Relaxed))?;
            let mut counts = counts.lock().unwrap_or_else(PoisonError::into_inner);
            for (name, count) in of_shard {
                *counts.entry(name).or_default() += count;
            }
            done.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    };
    watched(observer, "counting mentions", shards.len() as u64, |done| {
        thread::scope(|scope| {
            let threads = READERS.min(shards.len());
            let working: Vec<_> = (0..threads).map(|_| scope.spawn(|| work(done))).collect();
            let ended = working
                .into_iter()
                .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
            // Those that were told to stop end after the one that failed, whose error counts.
            let (stopped, failed): (Vec<_>, Vec<_>) =
                ended.filter_map(Result::err).partition(|error| matches!(error, Error::Interrupted(_)));
            failed.into_iter().chain(stopped).next().map_or(Ok(()), Err)
        })
    })?;
    let counts = counts.into_inner().unwrap_or_else(PoisonError::into_inner);
    let often = counts.into_iter().filter(|(_, count)| *count >= least);
    let mut names: Vec<String> = often.map(|(name, _)| name).collect();
    names.sort_unstable();
    Ok(names)
}

/// Mentions of different taggers are not comparable, whatever the vocabulary.
fn refuse_mixed_taggers(shards: &[Location], footers: &[Metadata]) -> Result<()> {
    let by = |it: &Metadata| format!("{} (data {:.8}, grammar {})", it.tagger, it.tagger_hash, it.grammar);
    let Some((first, tagger)) = shards.first().zip(footers.first().map(by)) else { return Ok(()) };
    let differs = |(_, footer): &(&Location, &Metadata)| by(footer) != tagger;
    let Some((shard, footer)) = shards.iter().zip(footers).find(differs) else { return Ok(()) };
    let problem = format!(
        "was tagged by {}, but {} by {tagger}; tag all shards with the same tagger",
        by(footer),
        first.display()
    );
    Err(Error::Invalid { path: shard.as_name(), problem })
}

/// Calls `visit` with every mention in the sidecars of the shards until it returns `false`.
fn for_each_mention(shards: &[Location], mut visit: impl FnMut(MentionRow<'_>) -> bool) -> Result<()> {
    for shard in shards {
        let sidecar = loader::shards::sidecar::open(shard, None)?;
        for sample in sidecar.samples_with_mentions() {
            for row in sidecar.mentions(sample) {
                if !visit(row) {
                    return Ok(());
                }
            }
        }
    }
    Ok(())
}
