//! The frozen vision tower that the settings of a run name: its file, how it is read, and by what it is known again.

use std::path::Path;

use tch::{Device, Kind};

use crate::error::{Error, Result};
use crate::settings::VisionSettings;
use crate::towers::convert::convert;
use crate::towers::{ImageEncoder, ROPE_PERIODS, RopePeriods, TowerFamily, VisionTower};
use crate::weights::{self, Family, Weights};

/// Reads the tower in `settings`, which computes in `kind` on `device`.
pub fn open(settings: &VisionSettings, kind: Kind, device: Device) -> Result<ImageEncoder> {
    let mut tower = VisionTower::read(&settings.weights, settings.position, kind, device)?;
    // The file in a run folder already contains the denoiser.
    if let Some(path) = settings.denoiser.as_ref().filter(|_| !tower.is_denoised()) {
        tower = tower.with_denoiser(path, device)?;
    }
    if settings.rope_periods == RopePeriods::Exact {
        tower = tower.with_exact_periods();
    }
    let normalization = settings.normalization(tower.family.normalization);
    let kind = tower.kind();
    Ok(ImageEncoder::new(tower, normalization, kind, device))
}

/// Rejects a tower whose class token attends to nothing, for head means.
///
/// # Errors
/// If it has no blocks.
pub fn check_attention(settings: &VisionSettings, tower: &VisionTower) -> Result<()> {
    if tower.depth() > 0 {
        return Ok(());
    }
    let problem = "has no blocks, so that its class token attends to no patches; head means, which objective talk2dino needs, cannot \
                   be computed";
    Err(Error::Weights { path: settings.weights.clone(), problem: problem.to_owned() })
}

/// Sets what the settings leave to the tower, so that they say what it is: `position`, from the library whose state-dict keys the file
/// of `weights` has, and `mean` and `std`, from the family of the tower. Returns a line that says how patches get their positions;
/// `prefix` is what the options or settings have before their names, `--` or `vision.`.
///
/// # Errors
/// If `position` is set although the tower has no position embedding.
pub fn settle(settings: &mut VisionSettings, prefix: &str) -> Result<String> {
    let file = settings.weights.display();
    let (family, weights) = Weights::read(&settings.weights, Device::Cpu)?.into_vision()?;
    let tower = TowerFamily::of(&weights);
    let normalization = settings.normalization(tower.normalization);
    settings.mean = Some(normalization.mean);
    settings.std = Some(normalization.std);
    if tower.rotary {
        if let Some(position) = settings.position {
            return Err(Error::Setting {
                name: format!("{prefix}position"),
                problem: format!(
                    "is {position}, but the tower in {file} has rotary positions, which are not resized; leave it out"
                ),
            });
        }
        let option = format!("{prefix}rope{}periods", if prefix == "--" { "-" } else { "_" });
        return Ok(match (settings.rope_periods, weights.has(ROPE_PERIODS)) {
            (RopePeriods::File, true) => {
                format!(
                    "{file}: rotary positions with the periods of the file ({option} = exact computes them in float32)"
                )
            }
            (RopePeriods::File, false) => {
                format!("{file}: rotary positions with exact periods (because the file holds none)")
            }
            (RopePeriods::Exact, _) => format!("{file}: rotary positions with exact periods (by {option})"),
        });
    }
    let option = format!("{prefix}position");
    let (position, reason) = if let Some(position) = settings.position {
        (position, format!("by {option}"))
    } else {
        let reason =
            format!("because the file has the state-dict keys of {family}; {option} chooses another");
        (family.into(), reason)
    };
    let line = format!("{file}: position embedding resized as in {position} ({reason})");
    settings.position = Some(position);
    Ok(line)
}

/// Identifies the tower: SHA-256 of its file, and of its denoiser's file if that is a separate one.
pub fn sha256(settings: &VisionSettings) -> Result<String> {
    let tower = weights::sha256(&settings.weights)?;
    match &settings.denoiser {
        None => Ok(tower),
        Some(path) => Ok(format!("{tower}+{}", weights::sha256(path)?)),
    }
}

/// Writes the tower, with its denoiser, as the one file that a run folder keeps. The file appears under its final name only when
/// it is complete.
pub fn copy_to(settings: &VisionSettings, target: &Path) -> Result<()> {
    if let Some(denoiser) = &settings.denoiser {
        let parts = [settings.weights.clone(), denoiser.clone()];
        return convert(&parts, Family::Dinov2, target).map(drop);
    }
    Ok(storage::upload(&storage::local_copy(&settings.weights)?, target)?)
}
