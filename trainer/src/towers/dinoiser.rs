//! CLIP-DINOiser's two convolutions (Wysoczanska et al., 2024), which were trained on the features of a frozen CLIP to tell which patches
//! belong together, as a tower of DINO says, and which are background.

use std::path::Path;

use tch::{Device, Kind, Tensor};

use super::unit;
use crate::error::Result;
use crate::weights::Weights;

/// Correlations below this are left out.
const LEAST: f64 = 0.2;

/// The convolutions.
#[derive(Debug)]
pub struct Dinoiser {
    width: i64,
    /// 3 x 3, from the width of the tower to that of the vectors that are compared.
    compared: [Tensor; 2],
    /// 1 x 1, to the logit of foreground.
    foreground: [Tensor; 2],
}

impl Dinoiser {
    /// Reads them from a checkpoint of the authors' training: `obj_proj` and `bkg_decoder`. Other tensors are left alone, because the
    /// training may save the CLIP, too.
    pub fn read(path: &Path, device: Device) -> Result<Self> {
        let mut weights = Weights::read(path, device)?;
        let size = weights.size("obj_proj.weight")?;
        let [vectors, width, 3, 3] = size[..] else {
            return Err(
                weights.problem(format!("tensor obj_proj.weight is {size:?}, not [vectors, width, 3, 3]"))
            );
        };
        Ok(Self {
            width,
            compared: [
                weights.take("obj_proj.weight", &[vectors, width, 3, 3])?,
                weights.take("obj_proj.bias", &[vectors])?,
            ],
            foreground: [
                weights.take("bkg_decoder.weight", &[1, width, 1, 1])?,
                weights.take("bkg_decoder.bias", &[1])?,
            ],
        })
    }

    /// Width of the tower for whose features they were trained.
    pub fn width(&self) -> i64 {
        self.width
    }

    /// The features of patches, [B, N, d], averaged over the patches that correlate with each. `seen`: the tokens by which they are
    /// compared, [B, N, width], of a `grid`.
    pub(super) fn pooled(&self, seen: &Tensor, features: &Tensor, [height, width]: [i64; 2]) -> Tensor {
        let seen = seen.to_kind(Kind::Float);
        let planes = seen.transpose(1, 2).reshape([-1, self.width, height, width]);
        let [weight, bias] = &self.compared;
        let vectors = planes.replication_pad2d([1; 4]).conv2d(weight, Some(bias), 1, 0, 1, 1);
        let vectors = unit(&vectors.flatten(2, 3).transpose(1, 2));
        let correlation = vectors.matmul(&vectors.transpose(1, 2));
        let kept = &correlation * correlation.ge(LEAST).to_kind(Kind::Float);
        let total = kept.sum_dim_intlist([-1i64].as_slice(), true, Kind::Float) + 1e-6;
        kept.matmul(&features.to_kind(Kind::Float)) / total
    }

    /// Probability that each patch belongs to the foreground, [B, N].
    pub(super) fn foreground(&self, seen: &Tensor) -> Tensor {
        let [weight, bias] = &self.foreground;
        (unit(seen).matmul(&weight.view([self.width, 1])) + bias).squeeze_dim(-1).sigmoid()
    }
}
