//! The concept vocabulary of a run, from its file or from the sidecars of its shards.

use std::collections::BTreeMap;
use storage::Location;

use concepts::Bank;
use concepts::sidecar::{MentionRow, Metadata};

use crate::error::{Error, Result};
use crate::method::objective::Objective;
use crate::settings::Settings;

/// The concept vocabulary (bank) of a run: the concepts in its file, or every concept that the sidecars mention often enough.
/// `None` for objectives without a concept loss, whose shards need no sidecars.
pub fn bank(settings: &Settings, shards: &[Location]) -> Result<Option<Bank>> {
    if settings.objective.name != Objective::Simzss {
        return Ok(None);
    }
    refuse_mixed_taggers(shards, &loader::shards::sidecar::footers(shards)?)?;
    let bank = if let Some(path) = &settings.bank.names {
        Bank::from_bytes(path, &storage::read(path)?)?
    } else {
        let mut counts: BTreeMap<String, u64> = BTreeMap::new();
        for_each_mention(shards, |row| {
            match counts.get_mut(row.concept) {
                Some(count) => *count += 1,
                None => drop(counts.insert(row.concept.to_owned(), 1)),
            }
            true
        })?;
        let names =
            counts.into_iter().filter(|(_, n)| *n >= settings.bank.min_mentions).map(|(name, _)| name);
        Bank::from_names(names)?
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
    Ok(Some(bank))
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
