//! What a query can see: which tables the named folders have, and why one is missing.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use concepts::sidecar::Sidecar;
use concepts::statistics::{CONCEPTS, PAIRS, TOTALS, Totals};
use datafusion::catalog::streaming::StreamingTable;
use datafusion::datasource::TableProvider;
use loader::program::UsageError;
use loader::shard;

use crate::files::{self, ParquetFiles, Part};
use crate::shards::{Shard, ShardRows};

/// The named folders.
#[derive(Debug)]
pub(crate) struct Folder {
    shards: Vec<Shard>,
    /// The folder of statistics, or why there is none.
    statistics: Result<PathBuf, String>,
}

/// Every table, in the order in which messages name them.
pub(crate) const TABLES: [&str; 5] = ["samples", "mentions", "shards", "concepts", "pairs"];

const NO_SHARDS: &str = "no folder of shards is named";

type TableRows = Result<Arc<dyn TableProvider>, String>;

/// A table's rows, or why it is not here.
pub(crate) struct Table {
    pub(crate) rows: TableRows,
    /// What whoever queries this table should know.
    pub(crate) note: Option<String>,
}

impl Folder {
    pub(crate) fn open(folders: &[PathBuf]) -> Result<Self> {
        let (named, inputs): (Vec<PathBuf>, Vec<PathBuf>) =
            folders.iter().cloned().partition(|folder| is_statistics(folder) && !has_shards(folder));
        let paths = if inputs.is_empty() { Vec::new() } else { shard::list(&inputs)? };
        for unfinished in shard::incomplete(&inputs)? {
            eprintln!("left out: {} is not complete", unfinished.display());
        }
        let statistics = match named.as_slice() {
            [] => statistics_inside(&inputs),
            [one] => Ok(one.clone()),
            [one, other, ..] => {
                let (one, other) = (one.display(), other.display());
                let line = format!(
                    "{one} and {other} are both statistics; name one, or add them up with `tools merge`"
                );
                return Err(UsageError(line).into());
            }
        };
        Ok(Self { shards: name(paths), statistics })
    }

    /// A table by its name; none of that name.
    pub(crate) fn table(&self, name: &str) -> Result<Option<Table>> {
        Ok(Some(match name {
            "samples" => self.beside("samples", shard::table_path, "tables of their samples", None)?,
            "mentions" => self.beside(
                "mentions",
                shard::sidecar_path,
                "sidecars: run `ingest tag`",
                Some(check_sidecar),
            )?,
            "shards" => self.shards()?,
            "concepts" => self.counted("concepts", CONCEPTS)?,
            "pairs" => self.counted("pairs", PAIRS)?,
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

    /// A table whose rows lie in a file beside each shard.
    fn beside(
        &self,
        name: &str,
        place: fn(&Path) -> PathBuf,
        what: &str,
        check: Option<files::Check>,
    ) -> Result<Table> {
        let total = self.shards.len();
        let parts: Vec<Part> = self
            .shards
            .iter()
            .map(|shard| Part { path: place(&shard.path), shard: Some(shard.clone()) })
            .filter(|part| part.path.exists())
            .collect();
        let missing = total - parts.len();
        let rows: TableRows = match (total, parts.is_empty()) {
            (0, _) => Err(NO_SHARDS.to_owned()),
            (_, true) => Err(format!("these shards have no {what}")),
            _ => Ok(Arc::new(ParquetFiles::open(parts, check)?)),
        };
        let note = (missing > 0)
            .then(|| format!("{name} leaves out {missing} of {total} shards, which have no {what}"));
        Ok(Table { rows, note })
    }

    /// A table of statistics.
    fn counted(&self, name: &str, file: &str) -> Result<Table> {
        let folder = match &self.statistics {
            Ok(folder) => folder,
            Err(why) => return Ok(Table { rows: Err(why.clone()), note: None }),
        };
        let parts = vec![Part { path: folder.join(file), shard: None }];
        let rows: TableRows = Ok(Arc::new(ParquetFiles::open(parts, None)?));
        let path = folder.join(TOTALS);
        let text = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let totals: Totals = serde_json::from_slice(&text)
            .with_context(|| format!("{} is not what `tools stats` writes; count again", path.display()))?;
        let (counted, here) = (totals.shards, self.shards.len() as u64);
        let note = (here > 0 && counted != here)
            .then(|| format!("{name}: {} counts {counted} shards, here are {here}", folder.display()));
        Ok(Table { rows, note })
    }
}

/// A sidecar made from another state of its shard is refused, as everywhere.
fn check_sidecar(path: &Path, shard: &Shard) -> Result<()> {
    let metadata = Sidecar::read_metadata(path)?;
    let bytes =
        fs::metadata(&shard.path).with_context(|| format!("cannot read {}", shard.path.display()))?.len();
    // Counting the samples of another tool's shard would mean reading it.
    let samples = loader::index::count_from_stats(&shard.path)?.unwrap_or(metadata.samples);
    Ok(metadata.refuse_unless_for(path, &shard.path, bytes, samples)?)
}

fn is_statistics(folder: &Path) -> bool {
    [CONCEPTS, PAIRS, TOTALS].iter().all(|file| folder.join(file).is_file())
}

fn has_shards(folder: &Path) -> bool {
    shard::list(&[folder.to_owned()]).is_ok()
}

/// The one statistics folder among the inputs and their subfolders.
fn statistics_inside(inputs: &[PathBuf]) -> Result<PathBuf, String> {
    let mut found = Vec::new();
    for input in inputs {
        let below = fs::read_dir(input).into_iter().flatten().flatten().map(|entry| entry.path());
        found.extend(std::iter::once(input.clone()).chain(below).filter(|folder| is_statistics(folder)));
    }
    found.sort();
    match found.as_slice() {
        [] => {
            Err("there are no statistics here; `tools stats` writes them: name its folder after the shards"
                .into())
        }
        [one] => Ok(one.clone()),
        [one, other, ..] => Err(format!(
            "{} and {} are both statistics; name one after the shards",
            one.display(),
            other.display()
        )),
    }
}

/// A shard is called by its stem, or by its path without ending where several shards have the same stem.
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
