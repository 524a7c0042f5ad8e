//! The vision side of a model that was trained with a frozen tower: the tower, and what the run has trained behind it.

use tch::Tensor;

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
        self.head.features(&self.encoder.features(pixels))
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
