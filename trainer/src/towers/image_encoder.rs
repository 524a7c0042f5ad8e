//! A vision tower together with the normalization of its input images.

use tch::{Device, Kind, Tensor};

use super::normalization::Normalization;
use super::vision::{VisionFeatures, VisionTower};

/// A vision tower with the normalization of its input images. The tower is a frozen [`VisionTower`] unless `T` says otherwise.
#[derive(Debug)]
pub struct ImageEncoder<T = VisionTower> {
    /// The tower.
    pub tower: T,
    mean: Tensor,
    std: Tensor,
    kind: Kind,
    device: Device,
}

impl ImageEncoder {
    /// Features of pixels in the form that [`ImageEncoder::normalise`] takes; keeps no activations for a backward pass.
    pub fn features(&self, pixels: &Tensor) -> VisionFeatures {
        tch::no_grad(|| self.tower.forward(&self.normalise(pixels)))
    }

    /// The same for [`VisionTower::head_means`].
    pub fn head_means(&self, pixels: &Tensor) -> Tensor {
        tch::no_grad(|| self.tower.head_means(&self.normalise(pixels)))
    }
}

impl<T> ImageEncoder<T> {
    /// With a tower that computes in `kind` on `device`.
    pub fn new(tower: T, normalization: Normalization, kind: Kind, device: Device) -> Self {
        let channels = |values: [f64; 3]| {
            Tensor::from_slice(&values).to_kind(Kind::Float).to_device(device).view([1, 3, 1, 1])
        };
        let Normalization { mean, std } = normalization;
        Self { tower, mean: channels(mean), std: channels(std), kind, device }
    }

    /// The normalization of its images.
    pub fn normalization(&self) -> Normalization {
        let values = |channels: &Tensor| [0, 1, 2].map(|i| channels.double_value(&[0, i, 0, 0]));
        Normalization { mean: values(&self.mean), std: values(&self.std) }
    }

    /// Pixels 0..255, [B, H, W, 3] -> normalized [B, 3, H, W] on the device.
    pub fn normalise(&self, pixels: &Tensor) -> Tensor {
        let pixels = pixels.to_device(self.device).permute([0, 3, 1, 2]).to_kind(Kind::Float) / 255.0;
        ((pixels - &self.mean) / &self.std).to_kind(self.kind)
    }

    /// The pixel value, 0..255, that normalization maps to 0, `[3]`.
    pub fn mean_pixel(&self) -> Tensor {
        self.mean.view([3]) * 255.0
    }
}

/// The bytes of B images of `size` x `size` pixels as a tensor [B, size, size, 3].
pub fn pixels(bytes: &[u8], size: i64) -> Tensor {
    let rows = bytes.len() as i64 / (size * size * 3);
    Tensor::from_slice(bytes).view([rows, size, size, 3])
}
