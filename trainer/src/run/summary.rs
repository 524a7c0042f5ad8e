//! The summary of a training.

use std::path::PathBuf;

use serde::Serialize;

/// Summary of a run, as `--json` prints it.
#[derive(Debug, Clone, Serialize)]
pub struct Summary {
    /// `simzss`, `lit` or `clip`.
    pub objective: String,
    /// Steps taken when the run ended.
    pub steps: u64,
    /// Whether the run was stopped before its end: its last step, or the evaluation of its last checkpoint.
    pub interrupted: bool,
    /// Number of processes.
    pub ranks: usize,
    /// Images per second over all ranks, since the start of this process.
    pub images_per_second: f64,
    /// Fraction of the time that was spent waiting for batches.
    pub data_wait: f64,
    /// Loss of the first step of this process.
    pub first_loss: f64,
    /// Mean loss in the last line of the log.
    pub last_loss: f64,
    /// Captions that this rank has processed, with repetitions.
    pub captions: u64,
    /// Of these, captions without a mention of the vocabulary.
    pub captions_without_mention: u64,
    /// Mentions that were used.
    pub mentions: u64,
    /// Mentions of the vocabulary that were not used: too many in a caption, too long, or in the truncated part of the caption.
    pub mentions_left_out: u64,
    /// Samples that could not be read and were replaced by others.
    pub replaced: u64,
    /// Number of concepts in the vocabulary (bank).
    pub bank: usize,
    /// The newest checkpoint.
    pub checkpoint: PathBuf,
}
