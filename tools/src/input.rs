//! The files and folders that a user names on the command line: one wording of their errors for all commands.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use concepts::files::TEMPORARY;
use concepts::sidecar::PARTS;
use concepts::statistics::{CHECKSUMS, CONCEPTS, Counts, PAIRS, TOTALS};
use loader::{shard, source};

/// Fails when nothing exists at a local path, or when it is not accessible. Remote paths are checked when they are
/// opened.
pub(crate) fn must_exist(path: &Path) -> Result<()> {
    if source::is_remote(path) {
        return Ok(());
    }
    fs::metadata(path).map(drop).map_err(|error| unreadable(path, error))
}

/// The error for a path that cannot be read.
pub(crate) fn unreadable(path: &Path, error: io::Error) -> anyhow::Error {
    if error.kind() == ErrorKind::NotFound {
        return anyhow!("{} does not exist", path.display());
    }
    anyhow::Error::new(error).context(format!("cannot read {}", path.display()))
}

/// The complete shards of a folder, or of anything else that [`shard::list`] accepts, in order. Incomplete shards are
/// skipped with a note on standard error.
pub(crate) fn shards(input: &Path) -> Result<Vec<PathBuf>> {
    let name = input.to_string_lossy();
    let is_pattern = name.contains(['{', '*', '?', '[']) || name.contains("::");
    if input.exists() || !is_pattern {
        must_exist(input)?;
    }
    let is_folder =
        if source::is_remote(input) { !is_pattern && shard::stem(input).is_none() } else { input.is_dir() };
    if is_folder && !has_shards(input)? {
        let folder = input.display();
        if source::exists(&input.join(PARTS))? {
            bail!(
                "{folder} has no shards, only the sidecars that `ingest tag --table` wrote; give a folder of shards"
            );
        }
        bail!(
            "{folder} has no shards (files that end in .tar, .tar.zst, .tar.gz or .tgz); create them with `ingest download` or \
             `ingest shard`"
        );
    }
    let inputs = [input.to_owned()];
    let shards = shard::list(&inputs)?;
    for path in shard::incomplete(&inputs)? {
        let (path, stats) = (path.display(), shard::stats_path(&path));
        let stats = stats.file_name().unwrap_or_default().to_string_lossy();
        eprintln!(
            "note: skipped {path}, which is incomplete (it has no {stats}); run the command that writes it again"
        );
    }
    Ok(shards)
}

fn has_shards(folder: &Path) -> Result<bool> {
    let files = source::list(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let temporary =
        |file: &Path| file.file_name().is_some_and(|name| name.to_string_lossy().starts_with(TEMPORARY));
    Ok(files.iter().any(|file| shard::stem(file).is_some() && !temporary(file)))
}

/// The folder that a shard is in, as an argument for `ingest tag`.
pub(crate) fn folder_of(shard: &Path) -> &Path {
    shard.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// The counts in a folder that `tools stats` or `tools merge` wrote.
pub(crate) fn statistics(folder: &Path) -> Result<Counts> {
    must_exist(folder)?;
    if !source::exists(&folder.join(TOTALS))? {
        bail!("{} has no statistics ({TOTALS}); create them with `tools stats`", folder.display());
    }
    if !source::is_remote(folder) {
        return Ok(Counts::read(folder)?);
    }
    let read = |name: &str| source::read(&folder.join(name));
    let sums = match read(CHECKSUMS) {
        Ok(bytes) => Some(bytes),
        Err(error) if source::is_missing(&error) => None,
        Err(error) => return Err(error.into()),
    };
    Ok(Counts::from_bytes(folder, [read(TOTALS)?, read(CONCEPTS)?, read(PAIRS)?], sums)?)
}
