//! The files and folders that a user names on the command line: one wording of their errors for all commands.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use concepts::sidecar::PARTS;
use concepts::statistics::{CHECKSUMS, CONCEPTS, Counts, PAIRS, TOTALS};
use disk::files::TEMPORARY;
use loader::shards;
use storage::{Location, is_missing};

/// Fails when nothing exists at a local path, or when it is not accessible. Remote inputs are checked when they are
/// opened.
pub(crate) fn must_exist(input: &Location) -> Result<()> {
    match input {
        Location::Local(path) => fs::metadata(path).map(drop).map_err(|error| unreadable(path, error)),
        Location::Remote(_) => Ok(()),
    }
}

/// The error for a path that cannot be read.
pub(crate) fn unreadable(path: &Path, error: io::Error) -> anyhow::Error {
    if error.kind() == ErrorKind::NotFound {
        return anyhow!("{} does not exist", path.display());
    }
    anyhow::Error::new(error).context(format!("cannot read {}", path.display()))
}

/// The complete shards of a folder, or of anything else that [`shards::list`] accepts, in order. Incomplete shards are
/// skipped with a note on standard error.
pub(crate) fn shards(input: &Location) -> Result<Vec<Location>> {
    if input.is_local_entry() || !is_pattern(input) {
        must_exist(input)?;
    }
    if is_folder(input) && !has_shards(input)? {
        let folder = input;
        if storage::exists(input.join(PARTS))? {
            bail!(
                "{folder} has no shards, only the sidecars that `ingest tag --table` wrote; give a folder of shards"
            );
        }
        bail!(
            "{folder} has no shards (files that end in .tar, .tar.zst, .tar.gz or .tgz); create them with `ingest download` or \
             `ingest shard`"
        );
    }
    let inputs = std::slice::from_ref(input);
    let shards = shards::list(inputs)?;
    for shard in shards::incomplete(inputs)? {
        let stats = shards::stats_path(&shard);
        eprintln!(
            "note: skipped {shard}, which is incomplete (it has no {}); run the command that writes it again",
            stats.file_name()
        );
    }
    Ok(shards)
}

fn is_pattern(input: &Location) -> bool {
    let name = input.to_string();
    name.contains(['{', '*', '?', '[']) || name.contains("::")
}

/// Whether an input of shards is a folder; a remote one is by its name.
pub(crate) fn is_folder(input: &Location) -> bool {
    match input {
        Location::Local(path) => path.is_dir(),
        Location::Remote(_) => !is_pattern(input) && shards::stem(input).is_none(),
    }
}

fn has_shards(folder: &Location) -> Result<bool> {
    let files = storage::list(folder).with_context(|| format!("cannot read {folder}"))?;
    let is_shard = |file: &Location| shards::stem(file).is_some() && !file.file_name().starts_with(TEMPORARY);
    Ok(files.iter().any(is_shard))
}

/// The folder that a shard is in, as an argument for `ingest tag`.
pub(crate) fn folder_of(shard: &Location) -> Location {
    let folder = shard.parent().filter(|folder| *folder != Location::default());
    folder.unwrap_or_else(|| Location::from("."))
}

/// The counts in a folder that `tools stats` or `tools merge` wrote.
pub(crate) fn statistics(folder: &Location) -> Result<Counts> {
    must_exist(folder)?;
    if !storage::exists(folder.join(TOTALS))? {
        bail!("{folder} has no statistics ({TOTALS}); create them with `tools stats`");
    }
    if let Location::Local(folder) = folder {
        return Ok(Counts::read(folder)?);
    }
    let read = |name: &str| storage::read(folder.join(name));
    let sums = match read(CHECKSUMS) {
        Ok(bytes) => Some(bytes),
        Err(error) if is_missing(&error) => None,
        Err(error) => return Err(error.into()),
    };
    Ok(Counts::from_bytes(
        &folder.as_name(),
        [read(TOTALS)?, read(CONCEPTS)?, read(PAIRS)?],
        sums.as_deref(),
    )?)
}
