//! Counts of a run, for the progress line and the summary.

use serde_json::{Value, json};
use storage::Location;

use crate::dataset::{Dataset, Part, ShardStats};
use crate::error::Error;
use crate::problem::{DENIED, HASH_MISMATCH, REMOVED, Status};
use crate::sample::Sample;

/// Number of compared hashes after which the warning is printed while the run continues.
const HASHES_BEFORE_WARNING: u64 = 100;
/// With fewer compared hashes there is no warning.
const MIN_HASHES: u64 = 20;
/// Minimum fraction of mismatches for the warning that the list is wrong. (About 15 % of LAION's images have changed since
/// the list was made.)
const MISMATCH_FRACTION: f64 = 0.9;

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

    /// Samples that failed. Removed ones did not.
    pub fn failures(&self) -> u64 {
        self.stats.count.saturating_sub(self.stats.successes + self.stats.removed)
    }

    /// Whether there were samples to make and all of them failed.
    pub fn nothing_succeeded(&self) -> bool {
        self.failures() > 0 && self.stats.successes == 0
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
            .filter(|(cause, _)| ![Status::Success.name(), REMOVED, DENIED].contains(cause))
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
            "removed": self.stats.removed,
            "causes": causes,
            "bytes_written": self.bytes,
            "seconds": seconds,
            "samples_per_second": now as f64 / seconds.max(1e-9),
        })
    }
}
