//! How the similarities of patches become scores of pixels, in each window by itself, and how those of windows that overlap are joined:
//! by their mean.

use serde::Serialize;
use tch::{Kind, Tensor};

use super::labels::upsample;
use super::pamr::Pamr;

/// What is averaged where windows overlap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Fusion {
    /// The similarities: as in TCL's frame, in which SimZSS is evaluated.
    #[default]
    Similarity,
    /// Their softmax over all class names, at temperature 1: as dino.txt and TIPSv2.
    Softmax,
    /// Their sigmoid, taken before the up-sampling, which aligns the corners: as Talk2DINO.
    Sigmoid,
    /// Their softmax over all class names, 100 times as large, taken before the up-sampling: as CLIP-DINOiser.
    #[serde(rename = "patch-softmax")]
    PatchSoftmax,
}

/// Scale of the similarities in [`Fusion::PatchSoftmax`], CLIP's largest.
const PATCH_SCALE: f64 = 100.0;

impl Fusion {
    /// Scores of the pixels of a window, [C, height, width], from those of its patches, [C, rows, columns]. `pamr` refines them by the
    /// pixels of the window, [1, height, width, 3].
    pub fn scores(
        self,
        grid: &Tensor,
        [height, width]: [i64; 2],
        window: &Tensor,
        pamr: Option<&Pamr>,
    ) -> Tensor {
        let grid = grid.unsqueeze(0);
        let scores = match self {
            Self::Similarity | Self::Softmax | Self::PatchSoftmax => upsample(&grid, height, width),
            Self::Sigmoid => grid.sigmoid().upsample_bilinear2d([height, width], true, None, None),
        };
        let mut scores = scores.squeeze_dim(0);
        if let Some(pamr) = pamr {
            scores = pamr.refine(&window.squeeze_dim(0).permute([2, 0, 1]), &scores);
        }
        if self == Self::Softmax { scores.softmax(0, Kind::Float) } else { scores }
    }

    /// What is up-sampled, of the similarities of patches, [n, W, P].
    pub(super) fn of_patches(self, similarities: Tensor) -> Tensor {
        if self == Self::PatchSoftmax {
            (similarities * PATCH_SCALE).softmax(1, Kind::Float)
        } else {
            similarities
        }
    }

    /// Whether a threshold for the background is compared with the scores themselves. That of similarities is compared with their
    /// softmax.
    pub fn is_bounded(self) -> bool {
        self != Self::Similarity
    }
}
