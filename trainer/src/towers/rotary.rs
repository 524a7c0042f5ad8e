//! Rotary positions (RoPE) as in DINOv3: queries and keys of patches are rotated by angles that follow from the place of the patch in
//! the image. Nothing is learned, and any grid of patches has its angles without resizing anything.

use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

use crate::error::Result;
use crate::weights::Weights;

/// The periods of the rotations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum RopePeriods {
    /// Those that the weights file holds, rounded to bfloat16 as in DINOv3's training; `exact` if it holds none, as files of timm and
    /// Hugging Face.
    #[default]
    File,
    /// Computed in float32.
    Exact,
}

impl std::fmt::Display for RopePeriods {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::File => "file",
            Self::Exact => "exact",
        })
    }
}

/// Tensor of the periods in DINOv3's files.
pub(crate) const PERIODS: &str = "rope_embed.periods";
/// The longest period is this one to the power of (D - 4) / D, D the width of a head.
const BASE: f32 = 100.0;

/// The periods of heads of width `head`, 100^(4 i / head): `[head / 4]`.
pub(crate) fn exact_periods(head: i64, device: Device) -> Tensor {
    let exponents = Tensor::arange(head / 4, (Kind::Float, device)) * 2.0 / (head / 2) as f64;
    Tensor::from(BASE).to_device(device).pow(&exponents)
}

/// Takes the periods out of a file, or computes them if it has none.
///
/// # Errors
/// If they are not `head` / 4 positive numbers.
pub(super) fn read_periods(weights: &mut Weights, head: i64, device: Device) -> Result<Tensor> {
    if !weights.has(PERIODS) {
        return Ok(exact_periods(head, device));
    }
    let found = weights.size(PERIODS)?;
    if found != [head / 4] {
        return Err(weights.problem(format!(
            "tensor {PERIODS} has the shape {found:?}; heads of width {head} have [{}]",
            head / 4
        )));
    }
    let periods = weights.take(PERIODS, &[head / 4])?;
    if i64::try_from(periods.gt(0.0).logical_and(&periods.isfinite()).all())? == 0 {
        return Err(weights.problem(format!("tensor {PERIODS} has values that are not positive numbers")));
    }
    Ok(periods)
}

/// The rotations of the patches of one grid.
#[derive(Debug)]
pub(super) struct Rotation {
    /// [N, D].
    cos: Tensor,
    sin: Tensor,
    /// Number of tokens before the patches, which have no position.
    before: i64,
}

impl Rotation {
    /// For a grid of `height` x `width` patches after `before` other tokens. A patch's centre lies in -1..1 in both directions; the
    /// first half of the angles is for its height, the second for its place from left to right.
    pub(super) fn new(periods: &Tensor, height: i64, width: i64, before: i64) -> Self {
        let along = |count: i64| {
            let centres = Tensor::arange_start(0.5, count as f64, (Kind::Float, periods.device()));
            centres / count as f64 * 2.0 - 1.0
        };
        let y = along(height).view([height, 1, 1, 1]).expand([height, width, 1, 1], false);
        let x = along(width).view([1, width, 1, 1]).expand([height, width, 1, 1], false);
        let angles = Tensor::cat(&[y, x], 2) * (2.0 * std::f64::consts::PI) / periods;
        let angles = angles.reshape([height * width, -1]);
        let angles = Tensor::cat(&[&angles, &angles], 1);
        Self { cos: angles.cos(), sin: angles.sin(), before }
    }

    /// Queries or keys [B, heads, T, D]; rotated in float32, whatever the tower computes in.
    pub(super) fn apply(&self, x: &Tensor) -> Tensor {
        let patches = x.narrow(2, self.before, x.size()[2] - self.before).to_kind(Kind::Float);
        let halves = patches.chunk(2, -1);
        let turned = Tensor::cat(&[&halves[1].neg(), &halves[0]], -1);
        let rotated = patches * &self.cos + turned * &self.sin;
        Tensor::cat(&[x.narrow(2, 0, self.before), rotated.to_kind(x.kind())], 2)
    }
}
