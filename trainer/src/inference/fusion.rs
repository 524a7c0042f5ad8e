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
}

impl Fusion {
    /// Scores of the pixels of a window, [C, side, side], from the similarities of its patches, [C, grid, grid]. `pamr` refines them by
    /// the pixels of the window, [1, side, side, 3].
    pub fn scores(self, grid: &Tensor, side: i64, window: &Tensor, pamr: Option<&Pamr>) -> Tensor {
        let grid = grid.unsqueeze(0);
        let scores = match self {
            Self::Similarity | Self::Softmax => upsample(&grid, side, side),
            Self::Sigmoid => grid.sigmoid().upsample_bilinear2d([side, side], true, None, None),
        };
        let mut scores = scores.squeeze_dim(0);
        if let Some(pamr) = pamr {
            scores = pamr.refine(&window.squeeze_dim(0).permute([2, 0, 1]), &scores);
        }
        if self == Self::Softmax { scores.softmax(0, Kind::Float) } else { scores }
    }

    /// Whether a threshold for the background is compared with the scores themselves. That of similarities is compared with their
    /// softmax.
    pub fn is_bounded(self) -> bool {
        self != Self::Similarity
    }
}
