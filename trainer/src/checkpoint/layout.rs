//! The names of the files of a run folder, and its pointers to checkpoints.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::error::{Result, writing};

pub(super) const VISION: &str = "vision.safetensors";
pub(super) const SETTINGS: &str = "settings.toml";
pub(super) const LATEST: &str = "latest";
pub(super) const BEST: &str = "best";
pub(super) const EVALUATION: &str = "evaluation.json";
pub(super) const MODEL: &str = "model.safetensors";
pub(super) const OPTIMIZER: &str = "optimizer.safetensors";
/// Prefix of the keys of an averaged copy of the text tower in the file of the optimizer: only resuming needs it.
pub(super) const AVERAGED: &str = "averaged.";
pub(super) const STATE: &str = "state.json";
/// The checksums of these three, as `sha256sum` writes them.
pub(super) const CHECKSUMS: &str = "checkpoint.sha256";
/// The checksum of the vision tower.
pub(super) const VISION_CHECKSUM: &str = "vision.sha256";
pub(super) const LOCK: &str = ".lock";

/// The file of the frozen vision tower in a run folder.
pub fn vision_path(run: &Path) -> PathBuf {
    run.join(VISION)
}

/// Whether this folder is a run folder.
pub fn exists(run: &Path) -> bool {
    run.join(SETTINGS).exists()
}

/// The name of a checkpoint in a file such as `latest`; empty if there is none.
pub(super) fn pointed(run: &Path, pointer: &str) -> String {
    fs::read_to_string(run.join(pointer)).unwrap_or_default().trim().to_owned()
}

/// Writes a JSON file.
pub(super) fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_vec_pretty(value).map_err(|e| writing(path)(e.into()))?;
    disk::files::write_atomic(path, &text).map_err(writing(path))
}
