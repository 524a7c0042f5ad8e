//! What a checkpoint says about its run.

use serde::{Deserialize, Serialize};

use crate::data::run_shards::RunShard;
use crate::settings::Settings;

pub(super) const VERSION: u32 = 3;
/// Read too: it has no checksums, and does not know the data of the run.
pub(super) const OLDEST_VERSION: u32 = 2;

/// The content of `state.json`. There is no state of a random generator: after the initialization, all random numbers follow
/// from the seed and the number of a sample.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct State {
    /// Version of this format.
    pub version: u32,
    /// Version of the program.
    pub program: String,
    /// Optimizer steps taken.
    pub step: u64,
    /// Position of the next batch: epoch, and step within the epoch.
    pub position: (u64, u64),
    /// SHA-256 of the weights file of the frozen vision tower; empty for `clip`, which has none.
    pub vision: String,
    /// Number of concepts in the vocabulary (bank).
    pub bank: usize,
    /// The shards of the run, in order; empty in checkpoints of version 2.
    #[serde(default)]
    pub shards: Vec<RunShard>,
    /// The check of the selection, hexadecimal; absent if the run has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selection: Option<String>,
    /// The settings of the run.
    pub settings: Settings,
}

impl State {
    /// The state of a run after `step` steps.
    pub fn new(settings: &Settings, step: u64, position: (u64, u64), vision: &str, bank: usize) -> Self {
        Self {
            version: VERSION,
            program: env!("CARGO_PKG_VERSION").to_owned(),
            step,
            position,
            vision: vision.to_owned(),
            bank,
            shards: Vec::new(),
            selection: None,
            settings: settings.clone(),
        }
    }
}
