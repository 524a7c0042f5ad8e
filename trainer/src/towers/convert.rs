//! Converts weights files to the state-dict keys of another family. Every tensor of the source is either written or reported.

use std::path::{Path, PathBuf};

use serde::Serialize;
use tch::{Device, Kind, Tensor};

use super::denoiser;
use super::{Activation, ClipVisionTower, PositionResize, TextTower, VisionTower};
use crate::error::{Error, Result};
use crate::weights::families::{self, Family, Named, Parts};
use crate::weights::{self, Weights};

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
        let Some((_, parts)) = families::parts(weights::tensors(path)?) else {
            return Err(problem(weights::UNKNOWN_FAMILY.to_owned()));
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
    weights::write(out, &named)?;
    Ok(Converted { tensors: named.len(), left_out })
}

/// Builds each tower, which reports tensors that do not fit.
fn check(path: &Path, parts: &Parts) -> Result<()> {
    let weights = |tensors: Named| Weights::of(path, tensors);
    if parts.vision.keys().any(|name| !name.starts_with("denoiser.")) {
        VisionTower::from_weights(
            weights(families::copy(&parts.vision)),
            PositionResize::Dinov2,
            Kind::Float,
        )?;
    } else if !parts.vision.is_empty() {
        denoiser::check(weights(families::copy(&parts.vision)))?;
    }
    if !parts.text.is_empty() {
        let mut text = families::copy(&parts.text);
        // `trainer export` and open_clip's TextTransformer do not have it.
        text.entry("logit_scale".to_owned())
            .or_insert_with(|| Tensor::zeros([] as [i64; 0], (Kind::Float, Device::Cpu)));
        let text = weights(text);
        let output = text.size("text_projection")?.get(1).copied().unwrap_or(0);
        TextTower::from_weights(text, 1, output, Activation::default())?;
    }
    if !parts.clip.is_empty() {
        let mut clip = weights(families::copy(&parts.clip));
        // The number of heads does not matter here, nor for the text tower above.
        ClipVisionTower::take(&mut clip, 1, Activation::default(), Kind::Float)?;
        clip.finish(&[])?;
    }
    Ok(())
}
