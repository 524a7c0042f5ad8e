//! The tables of the folders given on the command line, or the reason why a table is missing.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use concepts::statistics::{CONCEPTS, PAIRS, TOTALS, Totals};
use datafusion::catalog::streaming::StreamingTable;
use datafusion::datasource::TableProvider;
use loader::program::UsageError;
use loader::{shard, source};

use crate::files::{self, ParquetFiles, Part};
use crate::shards::{self, Shard, ShardRows};

/// The folders given on the command line.
#[derive(Debug)]
pub(crate) struct Folder {
    shards: Vec<Shard>,
    /// The folder of statistics, or the reason why there is none.
    statistics: Result<PathBuf, String>,
}

/// All tables, in the order of messages.
pub(crate) const TABLES: [&str; 5] = ["samples", "mentions", "shards", "concepts", "pairs"];

const NO_SHARDS: &str = "no folder of shards was given";

type TableRows = Result<Arc<dyn TableProvider>, String>;

/// A table's rows, or the reason why it is missing.
pub(crate) struct Table {
    pub(crate) rows: TableRows,
    /// A note for the user of this table.
    pub(crate) note: Option<String>,
}

impl Folder {
    pub(crate) fn open(folders: &[PathBuf]) -> Result<Self> {
        let (named, inputs): (Vec<PathBuf>, Vec<PathBuf>) =
            folders.iter().cloned().partition(|folder| is_statistics(folder) && !has_shards(folder));
        let paths = if inputs.is_empty() { Vec::new() } else { shards(&inputs)? };
        let statistics = match named.as_slice() {
            [] => statistics_inside(&inputs),
            [one] => Ok(one.clone()),
            [one, other, ..] => {
                let (one, other) = (one.display(), other.display());
                let line = format!(
                    "{one} and {other} are both statistics; give one of them, or add them up with `tools merge`"
                );
                return Err(UsageError(line).into());
            }
        };
        Ok(Self { shards: name(paths), statistics })
    }

    /// The table of this name; `None` for an unknown name.
    pub(crate) fn table(&self, name: &str) -> Result<Option<Table>> {
        Ok(Some(match name {
            "samples" => {
                self.per_shard("samples", shard::table_path, "tables of samples (NNNNN.parquet)", None)?
            }
            "mentions" => self.per_shard(
                "mentions",
                shard::sidecar_path,
                "sidecars (NNNNN.concepts.parquet; run `ingest tag` to create them)",
                Some(check_sidecar),
            )?,
            "shards" => self.shards()?,
            "concepts" => self.statistics_table("concepts", CONCEPTS)?,
            "pairs" => self.statistics_table("pairs", PAIRS)?,
            _ => return Ok(None),
        }))
    }

    fn shards(&self) -> Result<Table> {
        let rows: TableRows = if self.shards.is_empty() {
            Err(NO_SHARDS.to_owned())
        } else {
            let rows = ShardRows::new(self.shards.clone());
            Ok(Arc::new(StreamingTable::try_new(rows.schema(), vec![Arc::new(rows)])?))
        };
        Ok(Table { rows, note: None })
    }

    /// A table whose rows are in a file next to each shard.
    fn per_shard(
        &self,
        name: &str,
        place: fn(&Path) -> PathBuf,
        what: &str,
        check: Option<files::Check>,
    ) -> Result<Table> {
        let total = self.shards.len();
        let paths: Vec<PathBuf> = self.shards.iter().map(|shard| place(&shard.path)).collect();
        let exist = source::existing(&paths)?;
        let parts: Vec<Part> = paths
            .into_iter()
            .zip(&self.shards)
            .zip(exist)
            .filter(|(_, exists)| *exists)
            .map(|((path, shard), _)| Part { path, shard: Some(shard.clone()) })
            .collect();
        let missing = total - parts.len();
        let rows: TableRows = match (total, parts.is_empty()) {
            (0, _) => Err(NO_SHARDS.to_owned()),
            (_, true) => Err(format!("the shards have no {what}")),
            _ => Ok(Arc::new(ParquetFiles::open(parts, check)?)),
        };
        let note = (missing > 0)
            .then(|| format!("the table {name} lacks {missing} of {total} shards, which have no {what}"));
        Ok(Table { rows, note })
    }

    /// A table of the statistics.
    fn statistics_table(&self, name: &str, file: &str) -> Result<Table> {
        let folder = match &self.statistics {
            Ok(folder) => folder,
            Err(why) => return Ok(Table { rows: Err(why.clone()), note: None }),
        };
        let parts = vec![Part { path: folder.join(file), shard: None }];
        let rows: TableRows = Ok(Arc::new(ParquetFiles::open(parts, None)?));
        let path = folder.join(TOTALS);
        let text = source::read(&path)?;
        let totals: Totals = serde_json::from_slice(&text)
            .with_context(|| format!("{} was not written by `tools stats`; run it again", path.display()))?;
        let (counted, here) = (totals.shards, self.shards.len() as u64);
        let note = (here > 0 && counted != here).then(|| {
            format!(
                "{name}: the statistics in {} are of {counted} shards, not of these {here}",
                folder.display()
            )
        });
        Ok(Table { rows, note })
    }
}

/// Returns an error for a sidecar that was made from another state of its shard, as all commands do.
fn check_sidecar(path: &Path, shard: &Shard) -> Result<()> {
    let metadata = shards::metadata(path)?;
    let bytes = source::length(&shard.path)?;
    // Shards of other tools have no statistics file: counting their samples would need reading them, so it is skipped.
    let samples = loader::index::count_from_stats(&shard.path)?.unwrap_or(metadata.samples);
    Ok(metadata.refuse_unless_for(path, &shard.path, bytes, samples)?)
}

/// The complete shards of the inputs. Incomplete ones are skipped with a note.
fn shards(inputs: &[PathBuf]) -> Result<Vec<PathBuf>> {
    for input in inputs {
        if !input.exists() && !is_pattern(input) && !source::is_remote(input) {
            bail!("{} does not exist", input.display());
        }
        if input.is_dir() {
            fs::read_dir(input).with_context(|| format!("cannot read {}", input.display()))?;
            if !has_shards(input) {
                bail!(
                    "{} has no shards (files that end in .tar, .tar.zst, .tar.gz or .tgz) and no statistics; create shards with \
                     `ingest download` or `ingest shard`",
                    input.display()
                );
            }
        }
    }
    let shards = shard::list(inputs)?;
    for path in shard::incomplete(inputs)? {
        eprintln!(
            "note: skipped {}, which is incomplete; run the command that writes it again",
            path.display()
        );
    }
    Ok(shards)
}

fn is_pattern(input: &Path) -> bool {
    let name = input.to_string_lossy();
    name.contains(['{', '*', '?', '[']) || name.contains("::")
}

fn is_statistics(folder: &Path) -> bool {
    const FILES: [&str; 3] = [CONCEPTS, PAIRS, TOTALS];
    if !source::is_remote(folder) {
        return FILES.iter().all(|file| folder.join(file).is_file());
    }
    if is_pattern(folder) || shard::stem(folder).is_some() {
        return false;
    }
    let listed = source::list(folder).unwrap_or_default();
    FILES.iter().all(|file| listed.contains(&folder.join(file)))
}

fn has_shards(folder: &Path) -> bool {
    shard::list(&[folder.to_owned()]).is_ok()
}

/// The only statistics folder among the inputs and their subfolders.
fn statistics_inside(inputs: &[PathBuf]) -> Result<PathBuf, String> {
    let mut found = Vec::new();
    for input in inputs {
        let is_file = !input.is_dir() && (is_pattern(input) || shard::stem(input).is_some());
        let entries = if is_file { Ok(Vec::new()) } else { source::entries(input) };
        let below = entries.unwrap_or_default().into_iter().filter(|(_, is)| *is).map(|(path, _)| path);
        found.extend(std::iter::once(input.clone()).chain(below).filter(|folder| is_statistics(folder)));
    }
    found.sort();
    match found.as_slice() {
        [] => Err(
            "there are no statistics; create them with `tools stats` and give its folder after the shards"
                .into(),
        ),
        [one] => Ok(one.clone()),
        [one, other, ..] => Err(format!(
            "{} and {} are both statistics; give one of them after the shards",
            one.display(),
            other.display()
        )),
    }
}

/// A shard's name is its stem, or its path without extension where several shards have the same stem.
fn name(paths: Vec<PathBuf>) -> Vec<Shard> {
    let stem = |path: &Path| shard::stem(path).unwrap_or_default().to_owned();
    let mut seen = HashSet::new();
    let distinct = paths.iter().all(|path| seen.insert(stem(path)));
    let named = |path: PathBuf| {
        let name =
            if distinct { stem(&path) } else { path.with_file_name(stem(&path)).display().to_string() };
        Shard { path, name }
    };
    paths.into_iter().map(named).collect()
}
