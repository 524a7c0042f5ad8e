//! The vision side of a model that was trained with a frozen tower: the tower, and what the run has trained behind it.

use tch::{Kind, Tensor};

use super::head::VisionHead;
use super::image_encoder::ImageEncoder;
use super::vision::VisionFeatures;

/// A frozen tower with the head behind it.
#[derive(Debug)]
pub struct FrozenVision {
    /// The frozen tower.
    pub encoder: ImageEncoder,
    /// The head.
    pub head: VisionHead,
}

impl FrozenVision {
    /// Embeddings of images, in `class`, and their patches, from pixels in the form that [`ImageEncoder::normalise`] takes.
    pub fn features(&self, pixels: &Tensor) -> VisionFeatures {
        self.behind(&self.encoder.features(pixels))
    }

    /// The same from the features of the frozen tower. On a CPU, trained blocks compute in float32 whatever the tower computes in.
    pub fn behind(&self, frozen: &VisionFeatures) -> VisionFeatures {
        if !self.head.is_trained() || frozen.class.device().is_cuda() {
            return self.head.features(frozen);
        }
        self.head.features(&frozen.to_kind(Kind::Float))
    }

    /// Token width d_v.
    pub fn width(&self) -> i64 {
        self.encoder.tower.width
    }

    /// Side of a patch in pixels.
    pub fn patch(&self) -> i64 {
        self.encoder.tower.patch
    }
}
