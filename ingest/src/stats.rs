//! Counts of one shard (`NNNNN_stats.json`, the fields of img2dataset) and of a run (the summary).

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use storage::Location;

use crate::dataset::Dataset;
use crate::error::Error;
use crate::part::Part;
use crate::sample::{HASH_MISMATCH, Sample, Status};

/// Number of compared hashes after which the warning is printed while the run continues.
const HASHES_BEFORE_WARNING: u64 = 100;
/// With fewer compared hashes there is no warning.
const MIN_HASHES: u64 = 20;
/// Minimum fraction of mismatches for the warning that the list is wrong. (About 15 % of LAION's images have changed since
/// the list was made.)
const MISMATCH_FRACTION: f64 = 0.9;

/// Counts of one shard. `count` is the sum of the four fields that follow it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ShardStats {
    /// Attempted samples.
    pub count: u64,
    /// Samples in the tar.
    pub successes: u64,
    /// Rows or local files that could not be read (img2dataset has no such status).
    #[serde(default)]
    pub failed_to_read: u64,
    /// Images that could not be downloaded.
    pub failed_to_download: u64,
    /// Images that could not be decoded, resized or encoded, or that a filter rejected.
    pub failed_to_resize: u64,
    /// In seconds.
    pub duration: f64,
    /// In seconds since 1970.
    pub start_time: f64,
    /// In seconds since 1970.
    pub end_time: f64,
    /// Samples by cause of failure, and "success".
    pub status_dict: BTreeMap<String, u64>,
}

impl ShardStats {
    pub(crate) fn sample(&mut self, sample: &Sample) {
        self.count += 1;
        let cause = match &sample.outcome {
            Ok(_) => {
                self.successes += 1;
                Status::Success.name()
            }
            Err(problem) => {
                match problem.status {
                    Status::FailedToRead => self.failed_to_read += 1,
                    Status::FailedToResize => self.failed_to_resize += 1,
                    _ => self.failed_to_download += 1,
                }
                &problem.cause
            }
        };
        match self.status_dict.get_mut(cause) {
            Some(count) => *count += 1,
            None => {
                self.status_dict.insert(cause.to_owned(), 1);
            }
        }
    }

    pub(crate) fn timed(mut self, start: SystemTime, duration: Duration) -> Self {
        let start = start.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        self.duration = duration.as_secs_f64();
        self.start_time = start;
        self.end_time = start + self.duration;
        self
    }

    fn add(&mut self, other: &Self) {
        self.count += other.count;
        self.successes += other.successes;
        self.failed_to_read += other.failed_to_read;
        self.failed_to_download += other.failed_to_download;
        self.failed_to_resize += other.failed_to_resize;
        for (cause, count) in &other.status_dict {
            *self.status_dict.entry(cause.clone()).or_default() += count;
        }
    }
}

/// Counts of a run, including the shards that were complete before it.
#[derive(Debug, Clone, Default)]
pub struct Totals {
    /// Shards written by this run.
    pub shards: u64,
    /// Shards that were complete before this run.
    pub shards_before: u64,
    /// Samples of all these shards.
    pub stats: ShardStats,
    /// Samples of the shards that were complete before this run.
    pub samples_before: u64,
    /// Bytes of the images written by this run.
    pub bytes: u64,
    /// Number of compared hashes, and how many of them differed.
    pub hashes: (u64, u64),
}

/// "1 shard", "2 shards".
pub fn counted(count: u64, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

impl Totals {
    /// Counts a sample; returns the warning of [`Totals::hash_warning`] once.
    pub(crate) fn sample(&mut self, sample: &Sample) -> Option<String> {
        self.stats.sample(sample);
        let mismatch = match &sample.outcome {
            Ok(image) => {
                self.bytes += image.bytes.len() as u64;
                false
            }
            Err(problem) => problem.cause == HASH_MISMATCH,
        };
        if sample.row.hash.is_none() || !(mismatch || sample.outcome.is_ok()) {
            return None;
        }
        self.hashes.0 += 1;
        self.hashes.1 += u64::from(mismatch);
        (self.hashes.0 == HASHES_BEFORE_WARNING).then(|| self.hash_warning()).flatten()
    }

    /// A warning if nearly all images have another hash than their row says: then the list is probably wrong, not the
    /// images.
    pub fn hash_warning(&self) -> Option<String> {
        let (compared, mismatches) = self.hashes;
        (compared >= MIN_HASHES && mismatches as f64 >= MISMATCH_FRACTION * compared as f64).then(|| {
            format!(
                "warning: {mismatches} of {compared} images have another hash than the list says: check that \
                 --compute-hash selects the kind of hash in the --verify-hash column"
            )
        })
    }

    pub(crate) fn finished_shard(&mut self, stats: &ShardStats) {
        self.shards_before += 1;
        self.samples_before += stats.count;
        self.stats.add(stats);
    }

    pub(crate) fn add_earlier(&mut self, earlier: &Self) {
        self.shards_before += earlier.shards_before;
        self.samples_before += earlier.samples_before;
        self.stats.add(&earlier.stats);
    }

    /// An input without rows is an error, and leaves no folder that looks like a dataset. (One of several parts may have
    /// no shards.)
    pub(crate) fn require_rows(self, input: &Location, dataset: &Dataset) -> Result<Self, Error> {
        if self.stats.count == 0 && dataset.part == Part::ALL {
            dataset.abandon();
            return Err(Error::input(input, "no rows, so there is nothing to put into shards"));
        }
        Ok(self)
    }

    /// Samples that are not in a tar.
    pub fn failures(&self) -> u64 {
        self.stats.count - self.stats.successes
    }

    /// Whether there were samples and all of them failed.
    pub fn nothing_succeeded(&self) -> bool {
        self.stats.count > 0 && self.stats.successes == 0
    }

    /// For the progress line: fraction of successes, bytes, the most frequent cause of failure.
    pub fn message(&self) -> String {
        let percent = 100.0 * self.stats.successes as f64 / (self.stats.count as f64).max(1.0);
        let worst = self
            .causes()
            .next()
            .map_or(String::new(), |(cause, count)| format!(", most frequent failure: {cause} ({count})"));
        format!("{percent:.1}% successful, {:.1} MB written{worst}", self.bytes as f64 / 1e6)
    }

    /// Causes of failure, most frequent first.
    pub fn causes(&self) -> impl Iterator<Item = (&str, u64)> {
        let mut causes: Vec<_> = self
            .stats
            .status_dict
            .iter()
            .map(|(cause, &count)| (cause.as_str(), count))
            .filter(|(cause, _)| *cause != Status::Success.name())
            .collect();
        causes.sort_by_key(|&(_, count)| std::cmp::Reverse(count));
        causes.into_iter()
    }

    /// The summary object of `--json`.
    pub fn json(&self, seconds: f64) -> Value {
        let now = self.stats.count - self.samples_before;
        let causes: serde_json::Map<String, Value> =
            self.causes().map(|(cause, count)| (cause.to_owned(), count.into())).collect();
        json!({
            "shards": self.shards + self.shards_before,
            "shards_written": self.shards,
            "samples": self.stats.count,
            "successes": self.stats.successes,
            "failed_to_read": self.stats.failed_to_read,
            "failed_to_download": self.stats.failed_to_download,
            "failed_to_resize": self.stats.failed_to_resize,
            "causes": causes,
            "bytes_written": self.bytes,
            "seconds": seconds,
            "samples_per_second": now as f64 / seconds.max(1e-9),
        })
    }
}
