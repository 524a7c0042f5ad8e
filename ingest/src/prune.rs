//! `ingest prune`: removes samples from the shards of a dataset, as take-downs demand. A shard with such samples is written again
//! without them and replaces the old one as a whole. What stays of a removed sample is its row in the table, with the status
//! `removed`, its key, and hashes, but without any other value, so that nothing asks for it again.

mod wanted;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arrow_array::{Array, ArrayRef, BooleanArray, RecordBatch, StringArray, StringViewArray};
use arrow_schema::{ArrowError, DataType, Field, Schema};
use arrow_select::nullif::nullif;
use arrow_select::zip::zip;
use bytes::Bytes;
use concepts::checksums::sha256;
use loader::shards;
use loader::shards::signals::{self, HASH};
use program::{Progress, interrupted};
use serde_json::{Value, json};
use storage::Location;

use self::wanted::{Found, Resolved};
pub use self::wanted::{Keys, Wanted};
use crate::dataset::claim::{Claim, Claims};
use crate::dataset::publish::{self, Files};
use crate::dataset::staging::Staging;
use crate::dataset::sums;
use crate::error::Error;
use crate::parallel::{StopFlag, run_parallel};
use crate::problem::{REMOVED, Status};
use crate::rewrite::companions::{self, Carried};
use crate::rewrite::samples::Samples;
use crate::rewrite::{self, tables};

/// How often this process looks whether another has finished a shard, in a folder and in an object store.
const LOOK_EVERY: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(2)];

/// Columns that a removed row keeps: its key, and hashes of the original image.
const KEPT: [&str; 4] = ["key", "md5", "sha256", "sha512"];

/// Columns with the hashes of its texts, and the columns of these.
const TEXTS: [(&str, &str); 2] = [("url_sha256", "url"), ("caption_sha256", "caption")];

/// Counts of a run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Totals {
    /// Shards that were looked at.
    pub shards: u64,
    /// Shards that were written again.
    pub rewritten: u64,
    /// Rows that were removed.
    pub removed: u64,
    /// Of these, rows with a sample in the tar.
    pub samples: u64,
    /// Rows that had been removed before.
    pub before: u64,
}

impl Totals {
    /// The summary object of `--json`.
    pub fn json(&self, seconds: f64) -> Value {
        json!({
            "shards": self.shards,
            "shards_rewritten": self.rewritten,
            "removed": self.removed,
            "samples_removed": self.samples,
            "removed_before": self.before,
            "seconds": seconds,
        })
    }
}

/// Removes samples from the complete shards in `input` (a folder, a file or a brace list).
///
/// # Errors
/// Before anything is written: a key is in no shard; a shard is incomplete, or has no table or no statistics; a sidecar or signals are of
/// another version, or of another state of their shard. Later: a shard cannot be read or written. Then some shards are done, and the
/// same command does the others.
pub fn prune(input: &Location, wanted: &Wanted, threads: usize) -> Result<Totals, Error> {
    publish::recover_all(input)?;
    for incomplete in shards::incomplete([input])? {
        // Another process may be replacing it at this moment.
        drop(claim(&incomplete)?);
    }
    let shards = shards::list(std::slice::from_ref(input))?;
    if let Some(incomplete) = shards::incomplete([input])?.first() {
        let problem = "incomplete (no _stats.json), so that not everything can be removed: finish it with the command that makes it";
        return Err(Error::input(incomplete, problem));
    }
    let wanted = Resolved::new(wanted, &shards)?;
    let found = each(&shards, threads, "looking through", |place, _| {
        let path = shards::table_path(&shards[place]);
        if !storage::exists(&path)? {
            let problem =
                "has no table, in which removed samples are noted: make shards with one by `ingest reshard`";
            return Err(Error::input(&shards[place], problem));
        }
        Ok(wanted.find(place, &tables::read(&path, Some(&Resolved::COLUMNS))?))
    })?;
    wanted.refuse_unknown(&shards, &found)?;
    let affected: Vec<usize> = (0..shards.len()).filter(|&place| !found[place].rows.is_empty()).collect();
    let all: Vec<Location> = affected.iter().map(|&place| shards[place].clone()).collect();
    let producers = companions::producers(&all)?;
    each(&all, threads, "checking", |number, _| {
        let _while_it_is_read = claim(&all[number])?;
        read(&all[number], &producers[number], &[]).map(|_| ())
    })?;
    let mut totals = Totals {
        shards: shards.len() as u64,
        before: found.iter().map(|found| found.before).sum(),
        ..Totals::default()
    };
    let removed = each(&all, threads, "removing", |number, stop| {
        prune_shard(&all[number], &producers[number], |rows| wanted.find(affected[number], rows), stop)
    })?;
    for (rows, samples) in removed {
        totals.rewritten += u64::from(rows > 0);
        totals.removed += rows;
        totals.samples += samples;
    }
    Ok(totals)
}

/// Calls `work` with the number of every shard, on several threads; the results are in the order of the shards.
fn each<T: Send>(
    shards: &[Location],
    threads: usize,
    what: &'static str,
    work: impl Fn(usize, &StopFlag) -> Result<T, Error> + Sync,
) -> Result<Vec<T>, Error> {
    let progress = Mutex::new(Progress::new(what, "shards", shards.len() as u64));
    let (next, done) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    run_parallel(threads.min(shards.len()), |stop| {
        loop {
            stop.check()?;
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= shards.len() {
                return Ok(());
            }
            let result = work(number, stop)?;
            done.lock().unwrap_or_else(PoisonError::into_inner).push((number, result));
            progress.lock().unwrap_or_else(PoisonError::into_inner).advance(1, String::new);
        }
    })?;
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_by_key(|(number, _)| *number);
    Ok(done.into_iter().map(|(_, result)| result).collect())
}

/// A shard and all that is written again with it.
struct Shard {
    /// The samples that stay.
    samples: Samples,
    carried: Carried,
    rows: RecordBatch,
    stats: Value,
}

/// Reads what is needed to write a shard without the samples of these rows.
///
/// # Errors
/// It cannot be replaced as a whole, or something of it is damaged or of another version.
fn read(shard: &Location, producers: &[String], removed: &[u32]) -> Result<Shard, Error> {
    let stem = shards::stem(shard).unwrap_or_default();
    if stem.contains('.') {
        let problem = "has a dot in its name, so that it is not certain which files belong to it: rename its files first";
        return Err(Error::input(shard, problem));
    }
    let (table_path, stats_path) = (shards::table_path(shard), shards::stats_path(shard));
    let stats = match storage::read(&stats_path) {
        Ok(stats) => serde_json::from_slice::<Value>(&stats)
            .map_err(|error| Error::input(&stats_path, format!("damaged: {error}")))?,
        Err(error) if storage::is_missing(&error) => {
            let problem = "has no _stats.json, so that it cannot be replaced as a whole: make shards with one by `ingest reshard`";
            return Err(Error::input(shard, problem));
        }
        Err(error) => return Err(error.into()),
    };
    if !stats.is_object() {
        return Err(Error::input(&stats_path, "damaged: it is not a JSON object"));
    }
    for producer in producers.iter().filter(|producer| *producer != HASH) {
        let path = signals::path(shard, producer);
        if !signals::are_signals(&storage::read(&path)?) {
            let problem = "not a file of signals, so that nothing can be removed from it: move it elsewhere, or remove it";
            return Err(Error::input(path, problem));
        }
    }
    let carried =
        Carried { mentions: storage::exists(shards::sidecar_path(shard))?, producers: producers.to_vec() };
    let rows = tables::read(&table_path, None)?;
    let successes = tables::successes(&table_path, &rows)?;
    let stays = |key: &str| successes.get(key).is_none_or(|row| removed.binary_search(row).is_err());
    let samples = Samples::read(shard, |_, key| stays(key), &rows.schema(), &carried)?;
    let left = successes.keys().filter(|key| stays(key)).count();
    if samples.len() != left {
        let problem =
            format!("has {} samples, but {} successful rows: see `ingest verify`", samples.len(), left);
        return Err(Error::input(shard, problem));
    }
    drop(successes);
    Ok(Shard { samples, carried, rows, stats })
}

/// Writes a shard without some samples; returns the number of removed rows, and how many of them had a sample.
fn prune_shard(
    shard: &Location,
    producers: &[String],
    find: impl Fn(&RecordBatch) -> Found,
    stop: &StopFlag,
) -> Result<(u64, u64), Error> {
    let (folder, claim) = (folder_of(shard), claim(shard)?);
    let table_path = shards::table_path(shard);
    // Another process may have removed some of them since they were looked for.
    let removed = find(&tables::read(&table_path, Some(&Resolved::COLUMNS))?).rows;
    if removed.is_empty() {
        return Ok((0, 0));
    }
    let Shard { samples, carried, rows, stats } = read(shard, producers, &removed)?;
    let staging = Staging::new(&folder)?;
    let made = staging.path(&publish::place_of_tar(shard, true));
    let order: Vec<_> = (0..samples.len()).map(|sample| (0, sample)).collect();
    let (sources, keys) = ([samples], removed.len() as u64);
    let tar = rewrite::write_tar(&made, &sources, &order, stop, || claim.confirm())?;
    let mut described = rewrite::companions(shard, &tar, &sources, &order, &carried)?;
    let with_sample = tables::successes(&table_path, &rows)?;
    let samples_removed = with_sample.values().filter(|row| removed.binary_search(row).is_ok()).count();
    let mut images = vec![None; rows.num_rows()];
    for (sample, image) in tar.images.iter().enumerate() {
        if let Some(&row) = with_sample.get(sources[0].key(sample)) {
            images[row as usize] = *image;
        }
    }
    let new_rows = without_values(&rows, &removed).map_err(Error::parquet("write", &table_path))?;
    described.push((table_path.clone(), tables::bytes(&table_path, &new_rows, images.into_iter())?));
    let sums_path = shards::sums_path(shard);
    if let Some(mut sums) = sums::read(&sums_path)? {
        sums.set(&shard.file_name(), tar.sha256);
        for (path, bytes) in &described {
            sums.set(&path.file_name(), sha256(bytes));
        }
        described.push((sums_path, sums.text().into()));
    }
    let stats_path = shards::stats_path(shard);
    let stats = counts(stats, &rows, &removed);
    let stats =
        serde_json::to_vec_pretty(&stats).map_err(|error| Error::input(&stats_path, error.to_string()))?;
    let files = Files { tar: shard.clone(), described, stats: (stats_path, Bytes::from(stats)) };
    publish::publish(&folder, &files, &made, true)?;
    Ok((keys, samples_removed as u64))
}

fn folder_of(shard: &Location) -> Location {
    shard.parent().filter(|folder| *folder != Location::default()).unwrap_or_else(|| ".".into())
}

/// Claims a shard; waits as long as another process has it.
fn claim(shard: &Location) -> Result<Claim, Error> {
    let (folder, stem) = (folder_of(shard), shards::stem(shard).unwrap_or_default());
    let mut claims = Claims::new(&folder);
    loop {
        if let Some(claim) = claims.take(stem)? {
            publish::recover_shard(&folder, stem)?;
            return Ok(claim);
        }
        if interrupted() {
            return Err(Error::interrupted());
        }
        std::thread::sleep(LOOK_EVERY[usize::from(folder.is_remote())]);
    }
}

/// The rows, of which these keep only their keys and the hashes of the image, and get the status `removed` and hashes of their URL and
/// caption.
fn without_values(rows: &RecordBatch, removed: &[u32]) -> Result<RecordBatch, ArrowError> {
    let mut mask = vec![false; rows.num_rows()];
    for &row in removed {
        mask[row as usize] = true;
    }
    let mask = BooleanArray::from(mask);
    let mut fields: Vec<Arc<Field>> = rows.schema().fields().iter().cloned().collect();
    let mut columns: Vec<ArrayRef> = Vec::new();
    for (field, column) in fields.iter().zip(rows.columns()) {
        let name = field.name().as_str();
        columns.push(match name {
            "status" | "error_message" if *field.data_type() == DataType::Utf8View => {
                let text = if name == "status" { Status::Removed.name() } else { REMOVED };
                zip(&mask, &StringViewArray::new_scalar(text), column)?
            }
            _ if KEPT.contains(&name) || TEXTS.iter().any(|(hash, _)| *hash == name) => Arc::clone(column),
            _ => nullif(column, &mask)?,
        });
    }
    for (name, of) in TEXTS {
        let before = tables::texts(rows, name);
        let texts = tables::texts(rows, of);
        let of_row = |row: usize| {
            let kept =
                before.filter(|before| before.is_valid(row)).map(|before| before.value(row).to_owned());
            let text = texts.filter(|texts| mask.value(row) && texts.is_valid(row));
            kept.or_else(|| Some(sha256(text?.value(row).as_bytes())))
        };
        let column: ArrayRef = Arc::new((0..rows.num_rows()).map(of_row).collect::<StringArray>());
        let field = Arc::new(Field::new(name, DataType::Utf8, true));
        if let Some(place) = fields.iter().position(|field| field.name() == name) {
            (columns[place], fields[place]) = (column, field);
        } else {
            columns.push(column);
            fields.push(field);
        }
    }
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)
}

/// The statistics of a shard without these rows. Fields that only other programs know stay.
fn counts(mut stats: Value, rows: &RecordBatch, removed: &[u32]) -> Value {
    let add = |of: &mut Value, by: i64| {
        let count = of.as_i64().unwrap_or_default() + by;
        *of = count.max(0).into();
    };
    let (statuses, messages) = (tables::texts(rows, "status"), tables::texts(rows, "error_message"));
    for &row in removed {
        let text = |column: Option<&StringViewArray>| {
            let column = column.filter(|column| column.is_valid(row as usize))?;
            Some(column.value(row as usize).to_owned())
        };
        let status = Status::of_name(&text(statuses).unwrap_or_default());
        let (field, cause) = match status {
            Status::Success => ("successes", Some(Status::Success.name().to_owned())),
            status => (status.name(), text(messages)),
        };
        add(&mut stats[field], -1);
        add(&mut stats["removed"], 1);
        if let Some(causes) = stats.get_mut("status_dict").filter(|causes| causes.is_object()) {
            for (cause, by) in [(cause, -1), (Some(REMOVED.to_owned()), 1)] {
                if let Some(cause) = cause {
                    add(&mut causes[cause], by);
                }
            }
        }
    }
    if let Some(causes) = stats.get_mut("status_dict").and_then(Value::as_object_mut) {
        causes.retain(|_, count| *count != 0);
    }
    stats
}
