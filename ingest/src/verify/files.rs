//! The names of the files in a folder: temporary files, gaps in the numbers, files without their tar.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::Path;

use disk::files::TEMPORARY;
use loader::shards;
use loader::shards::signals;
use storage::Location;

use super::MANIFEST;
use crate::error::Error;
use crate::messages::counted;

pub(super) struct Listed {
    pub(super) tars: usize,
    /// Whether the folder was made by `ingest`.
    pub(super) ours: bool,
    pub(super) leftovers: Vec<String>,
    /// The producers of signals by the stem of their shard, as far as names tell.
    pub(super) producers: HashMap<String, Vec<String>>,
    pub(super) problems: Vec<String>,
}

/// Endings of the files that belong to a tar.
const WITH_TAR: [&str; 4] = ["_stats.json", ".concepts.parquet", ".hash.parquet", ".sha256"];

/// Maximum number of missing shards that are named.
const NAMED: usize = 20;

pub(super) fn list(folder: &Location) -> Result<Listed, Error> {
    let mut names = HashSet::new();
    for path in storage::list(folder)? {
        names.insert(path.file_name().into_owned());
    }
    // In an object store nobody can tell whether the process lives.
    let mut leftovers: Vec<String> = names
        .iter()
        .filter(|name| name.starts_with(TEMPORARY))
        .filter(|name| folder.local().is_some_and(|folder| !is_in_use(&folder.join(name))))
        .cloned()
        .collect();
    leftovers.sort();
    let stems: HashSet<String> =
        names.iter().filter_map(|name| shards::stem(&name.as_str().into()).map(str::to_owned)).collect();
    let mut orphans: Vec<&String> = names
        .iter()
        .filter(|name| {
            let stem = WITH_TAR.iter().find_map(|ending| name.strip_suffix(ending));
            !name.starts_with(TEMPORARY) && stem.is_some_and(|stem| !stems.contains(stem))
        })
        .collect();
    orphans.sort();
    let mut problems: Vec<String> =
        orphans.iter().map(|name| format!("{}: its tar is missing", folder.join(name).display())).collect();
    let mut producers: HashMap<String, Vec<String>> = HashMap::new();
    for name in names.iter().filter(|name| !name.starts_with(TEMPORARY)) {
        let Some((stem, _)) = name.strip_suffix(".parquet").and_then(|name| name.rsplit_once('.')) else {
            continue;
        };
        if let Some(producer) = signals::producer(name, stem).filter(|_| stems.contains(stem)) {
            producers.entry(stem.to_owned()).or_default().push(producer.to_owned());
        }
    }
    for names in producers.values_mut() {
        names.sort();
    }
    let numbers: HashSet<u32> = stems
        .iter()
        .filter(|stem| stem.len() >= 5 && stem.bytes().all(|byte| byte.is_ascii_digit()))
        .filter_map(|stem| stem.parse().ok())
        .collect();
    // Only in datasets of ingest is a gap certainly an error: elsewhere the numbers may be a selection.
    let ours = names.contains(MANIFEST);
    if let Some(last) = numbers.iter().max().filter(|_| ours) {
        let missing: Vec<u32> = (0..*last).filter(|number| !numbers.contains(number)).collect();
        for number in missing.iter().take(NAMED) {
            let tar = folder.join(format!("{number:05}.tar"));
            problems.push(format!("{}: missing, although later shards exist", tar.display()));
        }
        if missing.len() > NAMED {
            let more = counted((missing.len() - NAMED) as u64, "more shard");
            problems.push(format!("{}: {more} missing", folder.display()));
        }
    }
    Ok(Listed { tars: stems.len(), ours, leftovers, producers, problems })
}

/// Whether a process that writes this temporary file lives.
fn is_in_use(path: &Path) -> bool {
    fs::File::open(path).is_ok_and(|file| matches!(file.try_lock(), Err(fs::TryLockError::WouldBlock)))
}
