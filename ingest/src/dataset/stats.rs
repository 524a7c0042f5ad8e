//! Counts of one shard: `NNNNN_stats.json`, with the fields of img2dataset.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::problem::Status;
use crate::sample::Sample;

/// Counts of one shard. `count` is the sum of the five fields that follow it.
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
    /// Samples that were removed, or denied (img2dataset has no such status).
    #[serde(default, skip_serializing_if = "is_zero")]
    pub removed: u64,
    /// In seconds.
    pub duration: f64,
    /// In seconds since 1970.
    pub start_time: f64,
    /// In seconds since 1970.
    pub end_time: f64,
    /// Samples by cause of failure, and "success".
    pub status_dict: BTreeMap<String, u64>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
fn is_zero(number: &u64) -> bool {
    *number == 0
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
                    Status::Removed => self.removed += 1,
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

    pub(crate) fn add(&mut self, other: &Self) {
        self.count += other.count;
        self.successes += other.successes;
        self.failed_to_read += other.failed_to_read;
        self.failed_to_download += other.failed_to_download;
        self.failed_to_resize += other.failed_to_resize;
        self.removed += other.removed;
        for (cause, count) in &other.status_dict {
            *self.status_dict.entry(cause.clone()).or_default() += count;
        }
    }
}
