//! The tables of the folders given on the command line, or the reason why a table is missing.

use std::collections::HashSet;
use std::fs;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use concepts::statistics::{CONCEPTS, PAIRS, TOTALS, Totals};
use datafusion::datasource::TableProvider;
use loader::shards::signals::{self, Signals, is_producer};
use loader::shards::{incomplete, list, sidecar_path, stem, table_path};
use program::UsageError;
use storage::Location;

use crate::files::{self, ParquetFiles, Part};
use crate::shards::{self, Shard, ShardRows};

/// The folders given on the command line.
#[derive(Debug)]
pub(crate) struct Folder {
    shards: Vec<Shard>,
    /// The folder of statistics, or the reason why there is none.
    statistics: Result<Location, String>,
}

/// All tables but those of signals, in the order of messages.
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
    pub(crate) fn open(folders: &[Location]) -> Result<Self> {
        let (named, inputs): (Vec<Location>, Vec<Location>) =
            folders.iter().cloned().partition(|folder| is_statistics(folder) && !has_shards(folder));
        let paths = if inputs.is_empty() { Vec::new() } else { shards(&inputs)? };
        let statistics = match named.as_slice() {
            [] => statistics_inside(&inputs),
            [one] => Ok(one.clone()),
            [one, other, ..] => {
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
            "samples" => self.per_shard("samples", table_path, "tables of samples (NNNNN.parquet)", None)?,
            "mentions" => self.per_shard(
                "mentions",
                sidecar_path,
                "sidecars (NNNNN.concepts.parquet; run `ingest tag` to create them)",
                Some(check_sidecar),
            )?,
            "shards" => self.shards(),
            "concepts" => self.statistics_table("concepts", CONCEPTS)?,
            "pairs" => self.statistics_table("pairs", PAIRS)?,
            producer if is_producer(producer) => {
                let place = |shard: &Location| signals::path(shard, producer);
                let what = format!("signals NNNNN.{producer}.parquet");
                let table = self.per_shard(producer, place, &what, Some(check_signals))?;
                return Ok(table.rows.is_ok().then_some(table));
            }
            _ => return Ok(None),
        }))
    }

    /// The names of the tables of signals: the producers of those next to the first shard.
    pub(crate) fn producers(&self) -> Result<Vec<String>> {
        let Some(Shard { path, .. }) = self.shards.first() else { return Ok(Vec::new()) };
        let (Some(folder), Some(stem)) = (path.parent(), stem(path)) else { return Ok(Vec::new()) };
        let files = storage::list(&folder)?;
        let producer = |file: &Location| signals::producer(&file.file_name(), stem).map(str::to_owned);
        let mut producers: Vec<String> = files.iter().filter_map(producer).collect();
        producers.sort_unstable();
        Ok(producers)
    }

    fn shards(&self) -> Table {
        let rows: TableRows = if self.shards.is_empty() {
            Err(NO_SHARDS.to_owned())
        } else {
            Ok(Arc::new(ShardRows::new(self.shards.clone())))
        };
        Table { rows, note: None }
    }

    /// A table whose rows are in a file next to each shard.
    fn per_shard(
        &self,
        name: &str,
        place: impl Fn(&Location) -> Location,
        what: &str,
        check: Option<files::Check>,
    ) -> Result<Table> {
        let total = self.shards.len();
        let paths: Vec<Location> = self.shards.iter().map(|shard| place(&shard.path)).collect();
        let exist = storage::existing(&paths)?;
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
        let text = storage::read(&path)?;
        let totals: Totals = serde_json::from_slice(&text)
            .with_context(|| format!("{path} was not written by `tools stats`; run it again"))?;
        let (counted, here) = (totals.shards, self.shards.len() as u64);
        let note = (here > 0 && counted != here).then(|| {
            format!("{name}: the statistics in {folder} are of {counted} shards, not of these {here}")
        });
        Ok(Table { rows, note })
    }
}

/// Returns an error for a sidecar that was made from another state of its shard, as all commands do.
fn check_sidecar(path: &Location, shard: &Shard) -> Result<()> {
    let metadata = shards::metadata(path)?;
    let bytes = storage::length(&shard.path)?;
    // Shards of other tools have no statistics file: counting their samples would need reading them, so it is skipped.
    let samples = loader::shards::count_from_stats(&shard.path)?.unwrap_or(metadata.samples);
    Ok(metadata.refuse_unless_for(&path.as_name(), &shard.path.as_name(), bytes, samples)?)
}

/// The same for a file of signals.
fn check_signals(path: &Location, shard: &Shard) -> Result<()> {
    let metadata = Signals::metadata(path, &storage::read(path)?)?;
    let samples = loader::shards::count_from_stats(&shard.path)?;
    Ok(metadata.refuse_unless_for(path, &shard.path, storage::length(&shard.path)?, samples)?)
}

/// The complete shards of the inputs. Incomplete ones are skipped with a note.
fn shards(inputs: &[Location]) -> Result<Vec<Location>> {
    for input in inputs {
        let Location::Local(path) = input else { continue };
        if !path.exists() && !is_pattern(input) {
            bail!("{input} does not exist");
        }
        if path.is_dir() {
            fs::read_dir(path).with_context(|| format!("cannot read {input}"))?;
            if !has_shards(input) {
                bail!(
                    "{input} has no shards (files that end in .tar, .tar.zst, .tar.gz or .tgz) and no statistics; create shards with \
                     `ingest download` or `ingest shard`"
                );
            }
        }
    }
    let shards = list(inputs)?;
    for path in incomplete(inputs)? {
        eprintln!("note: skipped {path}, which is incomplete; run the command that writes it again");
    }
    Ok(shards)
}

fn is_pattern(input: &Location) -> bool {
    let name = input.to_string();
    name.contains(['{', '*', '?', '[']) || name.contains("::")
}

fn is_statistics(folder: &Location) -> bool {
    const FILES: [&str; 3] = [CONCEPTS, PAIRS, TOTALS];
    if let Location::Local(folder) = folder {
        return FILES.iter().all(|file| folder.join(file).is_file());
    }
    if is_pattern(folder) || stem(folder).is_some() {
        return false;
    }
    let listed = storage::list(folder).unwrap_or_default();
    FILES.iter().all(|file| listed.contains(&folder.join(file)))
}

fn has_shards(folder: &Location) -> bool {
    list(std::slice::from_ref(folder)).is_ok()
}

/// The only statistics folder among the inputs and their subfolders.
fn statistics_inside(inputs: &[Location]) -> Result<Location, String> {
    let mut found = Vec::new();
    for input in inputs {
        let is_file = !input.is_local_folder() && (is_pattern(input) || stem(input).is_some());
        let entries = if is_file { Ok(Vec::new()) } else { storage::entries(input) };
        let below = entries.unwrap_or_default().into_iter().filter(|(_, is)| *is).map(|(path, _)| path);
        found.extend(std::iter::once(input.clone()).chain(below).filter(is_statistics));
    }
    found.sort();
    match found.as_slice() {
        [] => Err(
            "there are no statistics; create them with `tools stats` and give its folder after the shards"
                .into(),
        ),
        [one] => Ok(one.clone()),
        [one, other, ..] => {
            Err(format!("{one} and {other} are both statistics; give one of them after the shards"))
        }
    }
}

/// A shard's name is its stem, or its path without extension where several shards have the same stem.
fn name(paths: Vec<Location>) -> Vec<Shard> {
    let stem = |shard: &Location| stem(shard).unwrap_or_default().to_owned();
    let mut seen = HashSet::new();
    let distinct = paths.iter().all(|path| seen.insert(stem(path)));
    let named = |path: Location| {
        let name = if distinct { stem(&path) } else { path.with_file_name(stem(&path)).to_string() };
        Shard { path, name }
    };
    paths.into_iter().map(named).collect()
}
