//! `ingest refresh`: asks for every downloaded image again, and says what has become of it. Nothing of the dataset is changed. The
//! answers are a table for each shard, so that a run that was stopped goes on where it was.
//!
//! Requests are conditional (`If-None-Match`, `If-Modified-Since`), so that images that have not changed are not sent, where servers
//! can do that. Of those that are sent, the hash is compared with the one in the table.

mod part;

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use concepts::checksums::sha256;
use disk::files::clear_leftovers;
use loader::shards::{self, selection};
use program::Progress;
use serde_json::{Value, json};
use storage::Location;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

use self::part::Of;
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
    /// Of these, shards that this run asked for; the others had their table.
    pub asked: u64,
    /// Images of all these shards by what has become of them.
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
        let mut summary = json!({ "shards": self.shards, "shards_asked": self.asked });
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
    /// brace list) for whose place in the list `owns` is true, and writes a table for each shard into the folder `out`. A shard that has
    /// its table there, made from the same state of its own table, is not asked for, unless `force` is true.
    ///
    /// # Errors
    /// A shard has no table, `out` has other files with the names of these tables, or they cannot be written.
    pub fn refresh(
        &self,
        input: &Location,
        out: &Location,
        force: bool,
        owns: impl Fn(u32) -> bool,
    ) -> Result<Refreshed, Error> {
        publish::recover_all(input)?;
        let all = shards::list(std::slice::from_ref(input))?;
        let names = selection::names(&all);
        let parts: Vec<Location> = names.iter().map(|name| part_path(out, name)).collect();
        let mut known = HashSet::new();
        if let Some((shard, part)) = all.iter().zip(&parts).find(|(_, part)| !known.insert(*part)) {
            return Err(Error::input(shard, format!("another shard would have the same table, {part}")));
        }
        let own: Vec<usize> = (0..all.len()).filter(|&place| owns(place as u32)).collect();
        // A table that is missing is found now, and not hours later.
        for &place in &own {
            if !storage::exists(shards::table_path(&all[place]))? {
                return Err(Error::input(&all[place], "has no table, which would have the URLs"));
            }
        }
        if let Location::Local(folder) = out {
            if folder.is_file() {
                return Err(Error::input(out, "is a file, but --out is a folder, for a table of each shard"));
            }
            std::fs::create_dir_all(folder).map_err(Error::file("write", out))?;
            clear_leftovers(folder, |_| true).map_err(Error::file("read", out))?;
        }
        let counts = Refreshed { shards: own.len() as u64, ..Refreshed::default() };
        let state = Mutex::new((counts, Progress::new("refreshing", "images", 0)));
        let next = AtomicUsize::new(0);
        run_parallel(SHARDS.min(own.len()), |stop| {
            while let Some(&place) = own.get(next.fetch_add(1, Ordering::Relaxed)) {
                stop.check()?;
                self.refresh_shard(&all[place], &names[place], &parts[place], force, stop, &state)?;
            }
            Ok(())
        })?;
        let (counts, progress) = state.into_inner().unwrap_or_else(PoisonError::into_inner);
        // A run that had nothing to do prints no counts of nothing.
        if counts.asked > 0 {
            progress.finish(&counts.message());
        }
        Ok(counts)
    }

    /// Writes the table `part` of one shard, unless it has one.
    fn refresh_shard(
        &self,
        shard: &Location,
        name: &str,
        part: &Location,
        force: bool,
        stop: &StopFlag,
        state: &Mutex<(Refreshed, Progress)>,
    ) -> Result<(), Error> {
        let table_path = shards::table_path(shard);
        let table = storage::read(&table_path)?;
        let of = Of::new(name, sha256(&table));
        if let Some(counts) = part::counts(part, &of)?.filter(|_| !force) {
            let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
            for (fate, count) in counts {
                *state.0.fates.entry(fate).or_default() += count;
            }
            return Ok(());
        }
        let records = records::parse(&table_path, table)?.rows;
        let is_asked = |record: &Record| {
            record.success && parsed(&record.url).is_some_and(|url| matches!(url.scheme(), "http" | "https"))
        };
        let asked: Vec<Arc<Record>> = records.into_iter().filter(is_asked).map(Arc::new).collect();
        let outcomes = self.ask(&asked, stop, state)?;
        let bytes = part::encode(&of, &asked, &outcomes).map_err(Error::parquet("write", part))?;
        storage::write(part, bytes)?;
        state.lock().unwrap_or_else(PoisonError::into_inner).0.asked += 1;
        Ok(())
    }

    /// Asks for the images of one shard.
    fn ask(
        &self,
        asked: &[Arc<Record>],
        stop: &StopFlag,
        state: &Mutex<(Refreshed, Progress)>,
    ) -> Result<Vec<Option<Outcome>>, Error> {
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
        Ok(outcomes)
    }
}

/// The table of a shard in the folder `out`.
fn part_path(out: &Location, shard: &str) -> Location {
    shards::table_path(&out.join(shard.replace('/', "-")))
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
