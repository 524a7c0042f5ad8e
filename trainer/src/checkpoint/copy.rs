//! Copies checkpoints to another place while the run continues.

use std::fs;
use std::path::Path;

use super::layout::{
    BEST, CHECKSUMS, EVALUATION, LATEST, MODEL, OPTIMIZER, SETTINGS, STATE, VISION, VISION_CHECKSUM,
};
use crate::error::{Result, reading, writing};

/// Copies a checkpoint of `run` to `target`, a folder or an address in an object store, after the other files of the run that
/// are not there yet. As on disk, `latest` comes last, so that the copy is a usable run folder at any time.
///
/// Scores are copied with it if there are any; [`copy_scores`] adds them later.
pub fn copy(run: &Path, checkpoint: &Path, target: &Path) -> Result<()> {
    let name = checkpoint.file_name().unwrap_or_default();
    if !storage::Location::from(target).is_remote() {
        let folder = target.join(name);
        fs::create_dir_all(&folder).map_err(writing(&folder))?;
        // What a killed training left here.
        for folder in [target, &folder] {
            disk::files::clear_leftovers(folder, |_| true).map_err(reading(folder))?;
        }
    }
    for once in [VISION, VISION_CHECKSUM, SETTINGS] {
        let (from, to) = (run.join(once), target.join(once));
        if from.exists() && storage::length(&to).is_err() {
            storage::upload(&from, &to)?;
        }
    }
    for part in [MODEL, OPTIMIZER, STATE, CHECKSUMS] {
        // Earlier versions wrote no checksums.
        if part != CHECKSUMS || checkpoint.join(part).exists() {
            storage::upload(&checkpoint.join(part), target.join(name).join(part))?;
        }
    }
    copy_scores(run, checkpoint, target)?;
    Ok(storage::upload(&run.join(LATEST), target.join(LATEST))?)
}

/// Adds the scores of a checkpoint, and which one is the best, to a copy of it.
pub fn copy_scores(run: &Path, checkpoint: &Path, target: &Path) -> Result<()> {
    let name = Path::new(checkpoint.file_name().unwrap_or_default());
    for (from, to) in [
        (checkpoint.join(EVALUATION), target.join(name).join(EVALUATION)),
        (run.join(BEST), target.join(BEST)),
    ] {
        if from.exists() {
            storage::upload(&from, &to)?;
        }
    }
    Ok(())
}
