//! What lies next to the shards of a dataset besides their tables: sidecars and signals, and which of them can be carried into other
//! shards.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use arrow_schema::SchemaRef;
use concepts::sidecar;
use loader::shards::signals::{self, HASH, SCORE, Signals};
use loader::shards::{self, sidecar as sidecars};
use serde_json::Value;
use storage::Location;

use crate::error::Error;

/// The files next to shards that are carried along.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Carried {
    /// Whether the shards have sidecars.
    pub(crate) mentions: bool,
    /// The producers of their signals, sorted.
    pub(crate) producers: Vec<String>,
}

/// The producers of signals next to shards, as far as names tell, by the place of the shard in the list.
///
/// # Errors
/// A folder cannot be listed.
pub(crate) fn producers(shards: &[Location]) -> Result<Vec<Vec<String>>, Error> {
    let mut names: HashMap<Location, BTreeMap<String, BTreeSet<String>>> = HashMap::new();
    let mut found = Vec::new();
    for shard in shards {
        let (folder, stem) = (shard.parent().unwrap_or_default(), shards::stem(shard).unwrap_or_default());
        if !names.contains_key(&folder) {
            names.insert(folder.clone(), list(&folder)?);
        }
        let of_folder = &names[&folder];
        if of_folder.is_empty() {
            // The folder has no list.
            let known = [HASH, SCORE].into_iter();
            let mut its = Vec::new();
            for producer in known {
                if storage::exists(signals::path(shard, producer))? {
                    its.push(producer.to_owned());
                }
            }
            found.push(its);
            continue;
        }
        found.push(of_folder.get(stem).map(|its| its.iter().cloned().collect()).unwrap_or_default());
    }
    Ok(found)
}

/// The producers in the names of a folder's files, by what comes before the first dot; nothing if the server has no lists.
fn list(folder: &Location) -> Result<BTreeMap<String, BTreeSet<String>>, Error> {
    let place = if *folder == Location::default() { Location::from(".") } else { folder.clone() };
    let files = match storage::list(&place) {
        Ok(files) => files,
        Err(_) if folder.is_remote() => return Ok(BTreeMap::new()),
        Err(error) => return Err(error.into()),
    };
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for file in files {
        let name = file.file_name();
        let Some((stem, _)) = name.strip_suffix(".parquet").and_then(|name| name.rsplit_once('.')) else {
            // Also of shards without signals, so that the map is not empty.
            found.entry(String::new()).or_default();
            continue;
        };
        let producer = signals::producer(&name, stem).map(str::to_owned);
        found.entry(stem.to_owned()).or_default().extend(producer);
    }
    Ok(found)
}

/// What all of `shards` have in the same form, so that rows of several fit into one file; and a line for each that only some have,
/// or that differs.
///
/// # Errors
/// A sidecar or signals are damaged, of another version, or were made from another state of their shard. `counts`: the shards'
/// numbers of samples.
pub(crate) fn common(shards: &[Location], counts: &[u32]) -> Result<(Carried, Vec<String>), Error> {
    let mut carried = Carried::default();
    let mut left_out = Vec::new();
    let mut kinds = Vec::new();
    for (shard, &samples) in shards.iter().zip(counts) {
        kinds.push(mentions_kind(shard, samples)?);
    }
    carried.mentions = same(shards, &kinds, "sidecars (concept mentions)", "`ingest tag`", &mut left_out);
    let names = producers(shards)?;
    let all: BTreeSet<&String> = names.iter().flatten().collect();
    for producer in all {
        let mut kinds = Vec::new();
        for ((shard, &samples), its) in shards.iter().zip(counts).zip(&names) {
            let has = its.contains(producer);
            kinds.push(if has { signals_kind(shard, producer, samples)? } else { None });
        }
        let again = match producer.as_str() {
            HASH => "`ingest hash --force`",
            SCORE => "`trainer score`",
            _ => "their program",
        };
        if same(shards, &kinds, &format!("signals {producer:?}"), again, &mut left_out) {
            carried.producers.push(producer.clone());
        }
    }
    Ok((carried, left_out))
}

/// Whether all shards have files of the same kind. If only some have, or they differ, `left_out` gets a line.
fn same<K: PartialEq>(
    shards: &[Location],
    kinds: &[Option<K>],
    what: &str,
    again: &str,
    left_out: &mut Vec<String>,
) -> bool {
    let Some((first, kind)) = shards.iter().zip(kinds).find(|(_, kind)| kind.is_some()) else { return false };
    let Some((other, found)) = shards.iter().zip(kinds).find(|(_, other)| *other != kind) else {
        return true;
    };
    let why = if found.is_none() {
        format!("{other} has none")
    } else {
        format!("those of {first} and {other} were made in different ways")
    };
    left_out.push(format!("{what} are left out, because {why}; make them for all shards with {again}"));
    false
}

/// By what a sidecar is like others.
fn mentions_kind(shard: &Location, samples: u32) -> Result<Option<sidecar::Metadata>, Error> {
    let about = match sidecars::metadata(shard) {
        Ok(about) => about,
        Err(loader::Error::NoSidecar { .. }) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let path = shards::sidecar_path(shard);
    about.refuse_unless_for(&path.as_name(), &shard.as_name(), storage::length(shard)?, samples)?;
    let version = about.version;
    let mut kind = about.uncounted();
    (kind.version, kind.shard, kind.shard_bytes) = (version, String::new(), 0);
    Ok(Some(kind))
}

/// By what signals are like others: their settings and columns. `None` if only the name is that of signals.
fn signals_kind(shard: &Location, producer: &str, samples: u32) -> Result<Option<(Value, SchemaRef)>, Error> {
    let path = signals::path(shard, producer);
    let bytes = storage::read(&path)?;
    if producer != HASH && !signals::are_signals(&bytes) {
        return Ok(None);
    }
    let about = Signals::metadata(&path, &bytes)?;
    about.refuse_unless_for(&path, shard, storage::length(shard)?, Some(samples))?;
    let signals = Signals::from_bytes(&path, bytes, None)?;
    Ok(Some((about.settings, signals.columns().schema())))
}
