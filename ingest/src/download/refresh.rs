//! `ingest refresh`: asks for every downloaded image again, and says what has become of it. Nothing of the dataset is changed.
//!
//! Requests are conditional (`If-None-Match`, `If-Modified-Since`), so that images that have not changed are not sent, where servers
//! can do that. Of those that are sent, the hash is compared with the one in the table.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arrow_array::builder::{StringBuilder, TimestampMillisecondBuilder};
use arrow_array::{ArrayRef, RecordBatch};
use loader::shards::{self, selection};
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use program::Progress;
use serde_json::{Value, json};
use storage::Location;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::fetch::{Attempt, Fetched, Fetcher};
use super::optout::refusal;
use super::{Downloader, Failure, parsed};
use crate::dataset::publish;
use crate::error::Error;
use crate::image::Hash;
use crate::parallel::{StopFlag, run_parallel};
use crate::pipeline::POLL_INTERVAL;
use crate::request::Request;
use crate::shard::records::{self, Record};

/// Shards whose rows are asked for at a time, so that slow hosts at the end of one do not hold up the others.
const SHARDS: usize = 4;

/// What has become of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fate {
    /// It is the same.
    Unchanged,
    /// Its file has other bytes.
    Changed,
    /// It is there, but nothing tells whether it is the same.
    Unknown,
    /// HTTP 404 or 410.
    Gone,
    /// Its owner opts out by one of the signals that are obeyed.
    OptedOut,
    /// The request failed for another reason.
    Failed,
}

impl Fate {
    const ALL: [Self; 6] =
        [Self::Unchanged, Self::Changed, Self::Unknown, Self::Gone, Self::OptedOut, Self::Failed];

    /// As in the table.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unchanged => "unchanged",
            Self::Changed => "changed",
            Self::Unknown => "unknown",
            Self::Gone => "gone",
            Self::OptedOut => "opted_out",
            Self::Failed => "failed",
        }
    }
}

/// Counts of a run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Refreshed {
    /// Shards of this job.
    pub shards: u64,
    /// Images by what has become of them.
    pub fates: BTreeMap<Fate, u64>,
}

impl Refreshed {
    fn message(&self) -> String {
        let of =
            |fate: &Fate| format!("{} {}", self.fates.get(fate).copied().unwrap_or_default(), fate.name());
        Fate::ALL.iter().map(of).collect::<Vec<_>>().join(", ")
    }

    /// The summary object of `--json`.
    pub fn json(&self, seconds: f64) -> Value {
        let mut summary = json!({ "shards": self.shards });
        for fate in Fate::ALL {
            summary[fate.name()] = self.fates.get(&fate).copied().unwrap_or_default().into();
        }
        summary["seconds"] = seconds.into();
        summary
    }
}

/// What has become of one image.
struct Outcome {
    fate: Fate,
    cause: Option<String>,
    request: Request,
}

impl Downloader {
    /// Asks for the images of all successful rows with an http or https URL, in the complete shards in `input` (a folder, a file or a
    /// brace list) for whose place in the list `owns` is true, and writes the table `out`.
    ///
    /// # Errors
    /// A shard has no table, or `out` cannot be written.
    pub fn refresh(
        &self,
        input: &Location,
        out: &Location,
        owns: impl Fn(u32) -> bool,
    ) -> Result<Refreshed, Error> {
        publish::recover_all(input)?;
        let all = shards::list(std::slice::from_ref(input))?;
        let own = (0..).zip(&all).zip(selection::names(&all)).filter(|((place, _), _)| owns(*place));
        let own: Vec<(Location, String)> = own.map(|((_, shard), name)| (shard.clone(), name)).collect();
        // A table that is missing is found now, and not hours later.
        for (shard, _) in &own {
            if !storage::exists(shards::table_path(shard))? {
                return Err(Error::input(shard, "has no table, which would have the URLs"));
            }
        }
        let counts = Refreshed { shards: own.len() as u64, ..Refreshed::default() };
        let state = Mutex::new((counts, Progress::new("refreshing", "images", 0)));
        let table = Mutex::new(Table::new()?);
        let next = AtomicUsize::new(0);
        run_parallel(SHARDS.min(own.len()), |stop| {
            loop {
                stop.check()?;
                let number = next.fetch_add(1, Ordering::Relaxed);
                let Some((shard, name)) = own.get(number) else { return Ok(()) };
                let rows = self.refresh_shard(shard, name, stop, &state)?;
                let failed = Error::parquet("write", out);
                table.lock().unwrap_or_else(PoisonError::into_inner).add(number, rows).map_err(failed)?;
            }
        })?;
        let table = table.into_inner().unwrap_or_else(PoisonError::into_inner);
        storage::replace(out, table.finish().map_err(Error::parquet("write", out))?)?;
        let (counts, progress) = state.into_inner().unwrap_or_else(PoisonError::into_inner);
        progress.finish(&counts.message());
        Ok(counts)
    }

    /// The rows of one shard.
    fn refresh_shard(
        &self,
        shard: &Location,
        name: &str,
        stop: &StopFlag,
        state: &Mutex<(Refreshed, Progress)>,
    ) -> Result<RecordBatch, Error> {
        let table_path = shards::table_path(shard);
        let records = records::read(&table_path)?.rows;
        let is_asked = |record: &Record| {
            record.success && parsed(&record.url).is_some_and(|url| matches!(url.scheme(), "http" | "https"))
        };
        let asked: Vec<Arc<Record>> = records.into_iter().filter(is_asked).map(Arc::new).collect();
        let fetcher = Arc::new(Asking {
            fetcher: Arc::clone(&self.network),
            started: Semaphore::new(self.network.most_started),
        });
        let mut tasks = JoinSet::new();
        let mut outcomes: Vec<Option<Outcome>> = Vec::new();
        outcomes.resize_with(asked.len(), || None);
        for (number, record) in asked.iter().enumerate() {
            let (asking, record) = (Arc::clone(&fetcher), Arc::clone(record));
            tasks.spawn_on(async move { (number, asking.outcome(&record).await) }, self.runtime.handle());
        }
        self.runtime.block_on(async {
            loop {
                stop.check()?;
                match timeout(POLL_INTERVAL, tasks.join_next()).await {
                    Err(_) => {}
                    Ok(None) => return Ok(()),
                    Ok(Some(Err(_))) => return Err(Error::Bug("a thread that asks for images")),
                    Ok(Some(Ok((number, outcome)))) => {
                        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
                        let (counts, progress) = &mut *state;
                        *counts.fates.entry(outcome.fate).or_default() += 1;
                        progress.advance(1, || counts.message());
                        outcomes[number] = Some(outcome);
                    }
                }
            }
        })?;
        rows(name, &asked, &outcomes).map_err(Error::parquet("write", &table_path))
    }
}

/// Asks for images.
struct Asking {
    fetcher: Arc<super::Rows>,
    /// Rows that are started.
    started: Semaphore,
}

impl Asking {
    /// Asks for one image, with retries after transient failures.
    async fn outcome(&self, record: &Record) -> Outcome {
        let fetcher: &Fetcher = &self.fetcher.fetcher;
        let (mut attempt, mut urls, mut request) = (0, Vec::new(), Request::default());
        let failure = loop {
            if urls.is_empty() {
                urls.extend(parsed(&record.url));
            }
            let Some(url) = urls.last() else { break Failure::BadUrl };
            let host = fetcher.host(url);
            // The semaphores are never closed. First that of the host: a row that waits for it must not take the place of another.
            let permits = (host.wait().await, self.started.acquire().await);
            let known = Some(&record.request);
            match fetcher.attempt(std::mem::take(&mut urls), &host, &mut request, known).await {
                Attempt::Complete(Fetched { bytes, permit: _permit }) => {
                    return Outcome { fate: compared(record, &request, &bytes), cause: None, request };
                }
                Attempt::Aside(_, next) => urls = next,
                Attempt::Failed(failure, _) => match fetcher.retry(&record.url, attempt, &failure) {
                    None => break failure,
                    Some(wait) => {
                        drop(permits);
                        tokio::time::sleep(wait).await;
                        attempt += 1;
                    }
                },
            }
        };
        let fate = match &failure {
            Failure::Http { status: 404 | 410, .. } => Fate::Gone,
            Failure::Http { status: 304, .. } => {
                let seen = request.opt_outs.as_deref().unwrap_or_default();
                let seen: Vec<&str> = seen.split(", ").collect();
                match refusal(&seen, fetcher.opt_outs()) {
                    None => return Outcome { fate: Fate::Unchanged, cause: None, request },
                    Some(refusal) => {
                        return Outcome { fate: Fate::OptedOut, cause: Some(refusal.to_string()), request };
                    }
                }
            }
            Failure::OptedOut | Failure::Reserved | Failure::NotForTraining | Failure::Disallowed => {
                Fate::OptedOut
            }
            _ => Fate::Failed,
        };
        Outcome { fate, cause: Some(failure.to_string()), request }
    }
}

/// Whether an image that was sent is the one in the table.
fn compared(record: &Record, request: &Request, bytes: &[u8]) -> Fate {
    let hash = record.hash.as_ref();
    match hash.and_then(|(kind, hash)| Some(Hash::named(kind)?.of(bytes)? == *hash)) {
        Some(true) => Fate::Unchanged,
        Some(false) => Fate::Changed,
        // A strong ETag is another one when a byte is.
        None => match (&record.request.etag, &request.etag) {
            (Some(before), Some(now)) if before == now && before.starts_with('"') => Fate::Unchanged,
            _ => Fate::Unknown,
        },
    }
}

/// The rows of a shard.
fn rows(
    shard: &str,
    asked: &[Arc<Record>],
    outcomes: &[Option<Outcome>],
) -> Result<RecordBatch, arrow_schema::ArrowError> {
    let [mut shards, mut keys, mut fates, mut causes, mut final_urls, mut etags, mut modified, mut opt_outs] =
        std::array::from_fn(|_| StringBuilder::new());
    let mut fetched = TimestampMillisecondBuilder::new();
    for (record, outcome) in asked.iter().zip(outcomes) {
        let Some(Outcome { fate, cause, request }) = outcome else { continue };
        shards.append_value(shard);
        keys.append_value(&record.key);
        fates.append_value(fate.name());
        causes.append_option(cause.as_deref());
        final_urls.append_option(request.final_url.as_deref());
        fetched.append_option(request.fetched);
        etags.append_option(request.etag.as_deref());
        modified.append_option(request.last_modified.as_deref());
        opt_outs.append_option(request.opt_outs.as_deref());
    }
    let columns: [(&str, ArrayRef); 9] = [
        ("shard", Arc::new(shards.finish())),
        ("key", Arc::new(keys.finish())),
        ("status", Arc::new(fates.finish())),
        ("error_message", Arc::new(causes.finish())),
        ("final_url", Arc::new(final_urls.finish())),
        ("fetched", Arc::new(fetched.finish())),
        ("etag", Arc::new(etags.finish())),
        ("last_modified", Arc::new(modified.finish())),
        ("opt_outs", Arc::new(opt_outs.finish())),
    ];
    RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, true)))
}

/// The table, to which the rows of shards are added in the order of the shards.
struct Table {
    writer: ArrowWriter<Vec<u8>>,
    /// The number of the next shard, and the rows of later ones.
    next: usize,
    later: BTreeMap<usize, RecordBatch>,
}

impl Table {
    fn new() -> Result<Self, Error> {
        let new = || -> Result<_, ParquetError> {
            let properties = WriterProperties::builder()
                .set_compression(Compression::SNAPPY)
                .set_created_by(concat!("ingest ", env!("CARGO_PKG_VERSION")).to_owned())
                .build();
            ArrowWriter::try_new(Vec::new(), rows("", &[], &[])?.schema(), Some(properties))
        };
        let writer = new().map_err(Error::parquet("write", Location::default()))?;
        Ok(Self { writer, next: 0, later: BTreeMap::new() })
    }

    fn add(&mut self, number: usize, rows: RecordBatch) -> Result<(), ParquetError> {
        self.later.insert(number, rows);
        while let Some(rows) = self.later.remove(&self.next) {
            self.writer.write(&rows)?;
            self.next += 1;
        }
        Ok(())
    }

    fn finish(self) -> Result<Vec<u8>, ParquetError> {
        self.writer.into_inner()
    }
}
