//! Checks a file of signals while its shard is read.

use loader::shards;
use loader::shards::signals::{self, HASH, Signals};
use storage::Location;

use crate::dataset::sums;

/// The signals of one producer, and the first sample of the tar that is another one.
pub(super) struct OpenSignals {
    path: Location,
    signals: Signals,
    other: Option<String>,
}

impl OpenSignals {
    /// Opens the file; `None` if only its name is that of signals, as other programs may have files of such names. An error says
    /// why it is damaged.
    pub(super) fn of(shard: &Location, producer: &str) -> Result<Option<Self>, String> {
        let path = signals::path(shard, producer);
        let bytes = storage::read(&path).map_err(|error| error.to_string())?;
        if producer != HASH && !signals::are_signals(&bytes) {
            return Ok(None);
        }
        let signals = Signals::from_bytes(&path, bytes, None).map_err(|error| error.to_string())?;
        Ok(Some(Self { path, signals, other: None }))
    }

    /// Compares the row of a sample with its key.
    pub(super) fn compare(&mut self, sample: u32, key: &str) {
        if self.other.is_none() && self.signals.key(sample) != key {
            self.other = Some(key.to_owned());
        }
    }

    /// What is wrong, after all samples were compared. The shard has this size and number of samples.
    pub(super) fn end(self, shard: &Location, length: &Result<u64, String>, samples: u32) -> Option<String> {
        let (about, path) = (&self.signals.metadata, &self.path);
        let length = match length {
            Ok(length) => *length,
            Err(problem) => return Some(problem.clone()),
        };
        if let Err(problem) = about.refuse_unless_for(path, shard, length, Some(samples)) {
            return Some(problem.to_string());
        }
        // What is wrong with the checksums themselves is reported where they are compared.
        let sums = sums::read(&shards::sums_path(shard)).ok().flatten().unwrap_or_default();
        if let Some(sum) = sums.get(&shard.file_name())
            && let Err(problem) = about.refuse_unless_sha256(path, sum)
        {
            return Some(problem.to_string());
        }
        let key = self.other?;
        Some(format!(
            "{}: describes other samples than the tar, starting with {key}: make it again",
            path.display()
        ))
    }
}
