//! Learned position embeddings, and how they are resized to another grid of patches than the one they were trained with.

use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use crate::error::Result;
use crate::weights::{Family, Weights};

/// How the position embedding is resized to another grid than the one it was trained with. All methods are bicubic; the
/// published implementations differ in the details, and the published scores of a checkpoint were measured with one of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PositionResize {
    /// As DINOv2: scale factor (grid + 0.1) / trained grid without antialiasing; for towers with registers, the exact size with
    /// antialiasing.
    Dinov2,
    /// As timm's `resample_abs_pos_embed`: the exact size with antialiasing.
    Timm,
    /// As Hugging Face transformers: the exact size, with antialiasing only for towers with registers.
    Huggingface,
}

impl std::fmt::Display for PositionResize {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Dinov2 => "dinov2",
            Self::Timm => "timm",
            Self::Huggingface => "huggingface",
        })
    }
}

impl From<Family> for PositionResize {
    /// How a library or project resizes the position embedding of its vision towers. (SimZSS uses timm's towers, and open_clip the
    /// same method.)
    fn from(family: Family) -> Self {
        match family {
            // A tower of DINOv3 has no position embedding.
            Family::Dinov2 | Family::Dinov3 => Self::Dinov2,
            Family::Huggingface => Self::Huggingface,
            Family::Timm | Family::Simzss | Family::OpenClip | Family::Augreg => Self::Timm,
        }
    }
}

impl PositionResize {
    /// The resize method of this implementation, for towers with or without registers.
    pub(super) fn fit(self, registers: bool) -> Fit {
        match (self, registers) {
            (Self::Dinov2, false) => Fit::Offset,
            (Self::Huggingface, false) => Fit::Plain,
            _ => Fit::Antialiased,
        }
    }
}

/// A learned position embedding of a vision tower.
#[derive(Debug)]
pub(super) struct LearnedPositions {
    /// Of the class token, if there is one, and of grid x grid patches, [1, 1 + grid * grid, d].
    pub(super) embedding: Tensor,
    /// Patches along a side of the training image.
    pub(super) grid: i64,
    pub(super) resize: PositionResize,
}

impl LearnedPositions {
    /// Takes the position embedding of a tower of this width out of a file; `class`: whether it has one for a class token.
    pub(super) fn take(
        weights: &mut Weights,
        width: i64,
        class: bool,
        resize: PositionResize,
    ) -> Result<Self> {
        let size = weights.size("pos_embed")?;
        let class = i64::from(class);
        let grid = side_of(size.get(1).map_or(0, |n| n - class));
        // A square of no patches at all would have the right shape, too.
        if grid < 1 {
            let more = if class == 1 { "1 + " } else { "" };
            return Err(weights.problem(format!(
                "tensor pos_embed has the shape {size:?}; it must have [1, {more}side * side, {width}]"
            )));
        }
        let embedding = weights.take("pos_embed", &[1, class + grid * grid, width])?;
        Ok(Self { embedding, grid, resize })
    }

    /// For a grid of `height` x `width` patches, [1, height * width, d]. `registers`: whether the tower has some.
    pub(super) fn of_patches(&self, height: i64, width: i64, registers: bool) -> Tensor {
        let count = self.grid * self.grid;
        let patches = self.embedding.narrow(1, self.embedding.size()[1] - count, count);
        fit_position(&patches, self.grid, height, width, self.resize.fit(registers))
    }

    /// Of the class token, [1, 1, d].
    pub(super) fn of_class(&self) -> Tensor {
        self.embedding.narrow(1, 0, 1)
    }
}

/// The three resize methods in use.
#[derive(Debug, Clone, Copy)]
pub(super) enum Fit {
    /// To the scale (n + 0.1) / grid.
    Offset,
    /// To the exact size.
    Plain,
    /// To the exact size, with antialiasing.
    Antialiased,
}

/// Resizes a position embedding [1, grid * grid, d] to `height` x `width` patches, [1, height * width, d].
pub(super) fn fit_position(position: &Tensor, grid: i64, height: i64, width: i64, fit: Fit) -> Tensor {
    if (height, width) == (grid, grid) {
        return position.shallow_clone();
    }
    let channels = position.size()[2];
    let square = position.to_kind(Kind::Float).reshape([1, grid, grid, channels]).permute([0, 3, 1, 2]);
    let size = [height, width];
    let fitted = match fit {
        Fit::Offset => {
            let scale = |n: i64| (n as f64 + 0.1) / grid as f64;
            square.upsample_bicubic2d(size, false, scale(height), scale(width))
        }
        Fit::Plain => square.upsample_bicubic2d(size, false, None, None),
        Fit::Antialiased => square.internal_upsample_bicubic2d_aa(size, false, None, None),
    };
    fitted.permute([0, 2, 3, 1]).reshape([1, height * width, channels])
}

/// Side of a square with `count` cells.
pub(super) fn side_of(count: i64) -> i64 {
    (count as f64).sqrt().round() as i64
}
