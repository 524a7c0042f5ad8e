//! The scores of checkpoints that are evaluated during training.

use std::fs;
use std::path::Path;

use serde::Serialize;

use super::layout::{BEST, EVALUATION, pointed, write_json};
use crate::error::{Result, writing};

/// Whether a checkpoint has been evaluated.
pub fn is_scored(checkpoint: &Path) -> bool {
    checkpoint.join(EVALUATION).exists()
}

/// Writes the scores of a checkpoint to its folder and, if its mIoU is the highest of the run, makes `best` point to it.
pub fn record_scores(checkpoint: &Path, scores: &impl Serialize, miou: f64) -> Result<()> {
    write_json(&checkpoint.join(EVALUATION), scores)?;
    let (Some(run), Some(name)) = (checkpoint.parent(), checkpoint.file_name()) else { return Ok(()) };
    let text = fs::read(run.join(pointed(run, BEST)).join(EVALUATION)).ok();
    let best =
        text.and_then(|text| serde_json::from_slice::<serde_json::Value>(&text).ok()?["miou"].as_f64());
    if best.is_none_or(|best| miou > best) {
        let path = run.join(BEST);
        disk::files::write_atomic(&path, name.to_string_lossy().as_bytes()).map_err(writing(&path))?;
    }
    Ok(())
}
