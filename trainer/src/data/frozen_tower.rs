//! The frozen vision tower that the settings of a run name: its file, how it is read, and by what it is known again.

use std::path::Path;

use tch::{Device, Kind};

use crate::error::Result;
use crate::settings::VisionSettings;
use crate::towers::convert::convert;
use crate::towers::{ImageEncoder, VisionTower};
use crate::weights::{self, Family};

/// Reads the tower in `settings`, which computes in `kind` on `device`.
pub fn open(settings: &VisionSettings, kind: Kind, device: Device) -> Result<ImageEncoder> {
    let mut tower = VisionTower::read(&settings.weights, settings.position, kind, device)?;
    // The file in a run folder already contains the denoiser.
    if let Some(path) = settings.denoiser.as_ref().filter(|_| !tower.is_denoised()) {
        tower = tower.with_denoiser(path, device)?;
    }
    Ok(ImageEncoder::new(tower, settings.normalization(), kind, device))
}

/// Sets `position`, unless it is set, to that of the library whose state-dict keys the file of `weights` has. Returns a line that
/// says which it is; `option` is the option or setting that chooses it.
pub fn settle_position(settings: &mut VisionSettings, option: &str) -> Result<String> {
    let (position, reason) = if let Some(position) = settings.position {
        (position, format!("by {option}"))
    } else {
        let family = weights::family(&settings.weights)?;
        let reason =
            format!("because the file has the state-dict keys of {family}; {option} chooses another");
        (family.into(), reason)
    };
    settings.position = Some(position);
    let file = settings.weights.display();
    Ok(format!("{file}: position embedding resized as in {position} ({reason})"))
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
