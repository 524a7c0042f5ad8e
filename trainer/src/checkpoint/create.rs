//! The run folder of a new run.

use std::fs::{self, File};

use super::checksums::write_checksums;
use super::layout::{LOCK, SETTINGS, VISION, VISION_CHECKSUM, vision_path};
use super::lock::RunLock;
use crate::data::frozen_tower;
use crate::error::{Error, Result, reading, writing};
use crate::method::objective::Objective;
use crate::observer::Observer;
use crate::settings::Settings;

/// Creates the run folder with the settings and the frozen vision tower, and locks it; an error if it contains anything
/// else already.
pub fn create_run(settings: &Settings, observer: &dyn Observer) -> Result<RunLock> {
    let run = &settings.out;
    // Files that a killed start left behind are overwritten.
    let left_over = |name: &str| {
        [VISION, VISION_CHECKSUM, LOCK].contains(&name) || name.starts_with(disk::files::TEMPORARY)
    };
    let check_empty = || -> Result<()> {
        let entries = fs::read_dir(run).map_err(reading(run))?;
        if entries.flatten().all(|entry| left_over(&entry.file_name().to_string_lossy())) {
            return Ok(());
        }
        Err(Error::Invalid {
            path: run.clone(),
            problem: "is not empty: to continue the run in it add --resume, otherwise choose another `out`"
                .to_owned(),
        })
    };
    // Before the lock, so that a folder of something else gets no file.
    if run.exists() {
        check_empty()?;
    }
    let frozen = settings.objective.name != Objective::Clip;
    if frozen {
        let weights = &settings.vision.weights;
        File::open(storage::local_copy(weights)?).map_err(reading(weights))?;
    }
    fs::create_dir_all(run).map_err(writing(run))?;
    let lock = RunLock::take(run, observer)?;
    // Another training may have started and ended here since.
    check_empty()?;
    if frozen {
        frozen_tower::copy_to(&settings.vision, &vision_path(run))?;
        write_checksums(&run.join(VISION_CHECKSUM), run, &[VISION])?;
    }
    // Last, because a folder with settings counts as a complete run folder.
    let text = toml::to_string(settings)
        .map_err(|e| Error::Invalid { path: run.clone(), problem: e.to_string() })?;
    let path = run.join(SETTINGS);
    disk::files::write_atomic(&path, text.as_bytes()).map_err(writing(&path))?;
    Ok(lock)
}
