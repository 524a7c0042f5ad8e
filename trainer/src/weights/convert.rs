//! Converts weights files to the state-dict keys of another family. Every tensor of the source is either written or reported.

use std::path::{Path, PathBuf};

use serde::Serialize;
use tch::{Device, Kind, Tensor};

use super::families::{self, Family, Named, Parts};
use super::{Weights, tensors, write};
use crate::error::{Error, Result};
use crate::towers::{Activation, ClipVisionTower, PositionResize, TextTower, VisionTower, check_denoiser};

/// The result of a conversion.
#[derive(Debug, Serialize)]
pub struct Converted {
    /// Number of tensors written.
    pub tensors: usize,
    /// Names of the tensors in the source that the target format does not have.
    pub left_out: Vec<String>,
}

/// Writes the tensors of `inputs` (the parts of one model) to one safetensors file with the state-dict keys of `to`. Kinds are kept.
/// A tensor that is missing, unexpected or has the wrong shape is an error.
pub fn convert(inputs: &[PathBuf], to: Family, out: &Path) -> Result<Converted> {
    let mut whole = Parts::default();
    for path in inputs {
        let problem = |problem: String| Error::Weights { path: path.clone(), problem };
        let Some((_, parts)) = families::parts(tensors(path)?) else {
            return Err(problem(super::UNKNOWN_FAMILY.to_owned()));
        };
        check(path, &parts)?;
        for (into, from) in [
            (&mut whole.vision, parts.vision),
            (&mut whole.clip, parts.clip),
            (&mut whole.text, parts.text),
            (&mut whole.beside, parts.beside),
        ] {
            for (name, tensor) in from {
                if into.insert(name.clone(), tensor).is_some() {
                    return Err(problem(format!("tensor {name} is in two of the files")));
                }
            }
        }
    }
    let problem =
        |problem: String| Error::Weights { path: inputs.first().cloned().unwrap_or_default(), problem };
    let (named, left_out) = families::named(&whole, to).map_err(problem)?;
    let named: Vec<(String, Tensor)> = named.into_iter().collect();
    write(out, &named)?;
    Ok(Converted { tensors: named.len(), left_out })
}

/// Builds each tower, which reports tensors that do not fit.
fn check(path: &Path, parts: &Parts) -> Result<()> {
    let weights = |tensors: &Named| {
        Weights::of(
            path,
            tensors.iter().map(|(name, tensor)| (name.clone(), tensor.shallow_clone())).collect(),
        )
    };
    if parts.vision.keys().any(|name| !name.starts_with("denoiser.")) {
        VisionTower::from_weights(weights(&parts.vision), PositionResize::Dinov2, Kind::Float)?;
    } else if !parts.vision.is_empty() {
        check_denoiser(weights(&parts.vision))?;
    }
    if !parts.text.is_empty() {
        let mut text = weights(&parts.text);
        // `trainer export` and open_clip's TextTransformer do not have it.
        text.tensors
            .entry("logit_scale".to_owned())
            .or_insert_with(|| Tensor::zeros([] as [i64; 0], (Kind::Float, Device::Cpu)));
        let output = text.size("text_projection")?.get(1).copied().unwrap_or(0);
        TextTower::from_weights(text, 1, output, Activation::default())?;
    }
    if !parts.clip.is_empty() {
        let mut clip = weights(&parts.clip);
        // The number of heads does not matter here, nor for the text tower above.
        ClipVisionTower::take(&mut clip, 1, Activation::default(), Kind::Float)?;
        clip.finish(&[])?;
    }
    Ok(())
}
