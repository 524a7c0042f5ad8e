//! Counts: of one shard (`NNNNN_stats.json`, img2dataset's fields) and of a run (the summary).

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::error::Error;
use crate::part::Part;
use crate::sample::{HASH_MISMATCH, Sample, Status};
use crate::set::Set;

/// So many hashes are compared before a warning can be given while the run goes on.
const HASHES_TO_JUDGE: u64 = 100;
/// Of fewer nothing can be said.
const FEWEST_HASHES: u64 = 20;
/// Share of other hashes that is a mistake in the list. (About 15 % of LAION's pictures have changed since.)
const NEARLY_ALL: f64 = 0.9;

/// Counts of one shard. `count` is the sum of the four that follow it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ShardStats {
    /// Attempted samples.
    pub count: u64,
    /// Those in the tar.
    pub successes: u64,
    /// Rows or local files that could not be read (img2dataset has no such case).
    #[serde(default)]
    pub failed_to_read: u64,
    /// Pictures that did not arrive.
    pub failed_to_download: u64,
    /// Pictures that could not be used.
    pub failed_to_resize: u64,
    /// Seconds.
    pub duration: f64,
    /// Seconds since 1970.
    pub start_time: f64,
    /// Seconds since 1970.
    pub end_time: f64,
    /// Samples by cause; "success" is one of them.
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

/// Counts of a run, shards that earlier runs finished included.
#[derive(Debug, Clone, Default)]
pub struct Totals {
    /// Shards written now.
    pub shards: u64,
    /// Shards found finished.
    pub shards_before: u64,
    /// All samples of both.
    pub stats: ShardStats,
    /// Samples of the shards found finished.
    pub samples_before: u64,
    /// Bytes of the pictures written now.
    pub bytes: u64,
    /// Hashes compared, and how many of them were others than the rows said.
    pub hashes: (u64, u64),
}

impl Totals {
    /// Counts a sample; returns a warning when it is time for one.
    pub(crate) fn sample(&mut self, sample: &Sample) -> Option<String> {
        self.stats.sample(sample);
        let mismatch = match &sample.outcome {
            Ok(picture) => {
                self.bytes += picture.bytes.len() as u64;
                false
            }
            Err(problem) => problem.cause == HASH_MISMATCH,
        };
        if sample.row.hash.is_none() || !(mismatch || sample.outcome.is_ok()) {
            return None;
        }
        self.hashes.0 += 1;
        self.hashes.1 += u64::from(mismatch);
        (self.hashes.0 == HASHES_TO_JUDGE).then(|| self.hash_warning()).flatten()
    }

    /// Said when nearly all pictures have another hash than their row says, which points at the list rather than at the
    /// pictures.
    pub fn hash_warning(&self) -> Option<String> {
        let (compared, mismatches) = self.hashes;
        (compared >= FEWEST_HASHES && mismatches as f64 >= NEARLY_ALL * compared as f64).then(|| {
            format!(
                "warning: {mismatches} of {compared} pictures have another hash than the list says: \
                 is --compute-hash the kind of hash in the column of --verify-hash?"
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

    /// An input without a row is an error, and leaves no folder that looks like a set. (A part of several may well
    /// have nothing to do.)
    pub(crate) fn refuse_nothing(self, input: &Path, set: &Set) -> Result<Self, Error> {
        if self.stats.count == 0 && set.part == Part::ALL {
            set.abandon();
            return Err(Error::input(input, "no rows, so no samples"));
        }
        Ok(self)
    }

    /// Samples that are not in a tar.
    pub fn failures(&self) -> u64 {
        self.stats.count - self.stats.successes
    }

    /// Success share, the most frequent cause of failure, bytes.
    pub fn message(&self) -> String {
        let share = 100.0 * self.stats.successes as f64 / (self.stats.count as f64).max(1.0);
        let worst = self
            .causes()
            .next()
            .map_or(String::new(), |(cause, count)| format!(", most failures: {cause} ({count})"));
        format!("{share:.1}% good, {:.1} MB{worst}", self.bytes as f64 / 1e6)
    }

    /// Causes of failure, the most frequent first.
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
