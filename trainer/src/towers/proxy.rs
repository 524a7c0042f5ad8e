//! The tower beside a CLIP whose patches say, for ProxyCLIP, which patches of the CLIP belong together.

use tch::{Kind, Tensor};

use super::normalization::Normalization;
use super::vision::VisionTower;

/// A frozen vision tower that is given the pixels of a CLIP.
#[derive(Debug)]
pub struct Proxy {
    tower: VisionTower,
    /// What turns the pixels of the CLIP into those of the tower, [1, 3, 1, 1] each.
    factor: Tensor,
    offset: Tensor,
}

impl Proxy {
    /// `clip`: how the images of the CLIP are normalized. Those of the tower are normalized as in its training.
    pub fn new(tower: VisionTower, clip: Normalization) -> Self {
        let Normalization { mean, std } = tower.family.normalization;
        let device = tower.device();
        let channels = |values: [f64; 3]| {
            Tensor::from_slice(&values).to_kind(Kind::Float).to_device(device).view([1, 3, 1, 1])
        };
        let factor = channels([0, 1, 2].map(|i| clip.std[i] / std[i]));
        let offset = channels([0, 1, 2].map(|i| (clip.mean[i] - mean[i]) / std[i]));
        Self { tower, factor, offset }
    }

    /// Side of its patches in pixels.
    pub fn patch(&self) -> i64 {
        self.tower.patch
    }

    /// Its patch tokens, [B, N, d], and their grid, from normalized pixels of the CLIP, [B, 3, H, W].
    pub(super) fn tokens(&self, pixels: &Tensor) -> (Tensor, [i64; 2]) {
        let size = pixels.size();
        let side = self.patch();
        let [rows, columns] = [size[2] / side, size[3] / side];
        // What is more than whole patches is left out.
        let pixels = pixels.narrow(2, 0, rows * side).narrow(3, 0, columns * side).to_kind(Kind::Float);
        (self.tower.forward(&(pixels * &self.factor + &self.offset)).patches, [rows, columns])
    }
}
