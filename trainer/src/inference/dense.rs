//! Patch features of whole images, computed once per image: for heat maps, colours of features, and `trainer serve`.

use image::RgbImage;
use tch::{Kind, Tensor};

use super::segmenter::SegmentSettings;
use super::window::offsets;
use crate::checkpoint::Checkpoint;
use crate::device::{self, to_vec};
use crate::error::Result;
use crate::towers::{FrozenVision, unit};

/// Windows per forward pass.
const WINDOW_BATCH: usize = 16;

/// The frozen tower of a checkpoint, for images of any size.
#[derive(Debug)]
pub struct DenseVision {
    vision: FrozenVision,
    /// Short side of the resized image and side of the window, in pixels.
    size: i64,
    /// Step of the window, in patches.
    stride: i64,
}

impl DenseVision {
    /// Opens the frozen tower of a run. Of the settings, `device`, `precision`, `size` and `stride` are used.
    pub fn open(checkpoint: &Checkpoint, settings: &SegmentSettings) -> Result<Self> {
        let device = device::open(&settings.device)?;
        let trained = &checkpoint.state.settings;
        let vision = checkpoint.frozen_vision(settings.precision.frozen_kind(device), device)?;
        let size = i64::from(if settings.size == 0 { trained.data.loading.size } else { settings.size });
        vision.encoder.tower.check_size("--size", size)?;
        let stride = if settings.stride == 0 { size / 2 } else { i64::from(settings.stride) };
        let stride = (stride / vision.patch()).max(1);
        Ok(Self { vision, size, stride })
    }

    /// Token width d_v.
    pub fn width(&self) -> i64 {
        self.vision.width()
    }

    /// L2-normalized patch features of an image, [rows, columns, d_v], float32 on the CPU.
    ///
    /// The short side is resized to `size` pixels, the long side in proportion, rounded to whole patches. A square window slides over
    /// the image in whole patches. Where windows overlap, their L2-normalized features are averaged (so the averages are a little
    /// shorter than 1). The product with a class embedding is then the average of the similarities in the windows. This is what
    /// [`crate::inference::segmenter::Segmenter`] computes too, except that it upsamples before it averages.
    pub fn features(&self, picture: &RgbImage) -> Tensor {
        tch::no_grad(|| {
            let patch = self.vision.patch();
            let pixels = self.resized(picture);
            let (rows, columns) = (pixels.size()[1] / patch, pixels.size()[2] / patch);
            let window = self.size / patch;
            let corners: Vec<(i64, i64)> = offsets(rows, window, self.stride)
                .into_iter()
                .flat_map(|y| offsets(columns, window, self.stride).into_iter().map(move |x| (y, x)))
                .collect();
            let options = (Kind::Float, tch::Device::Cpu);
            let sums = Tensor::zeros([rows, columns, self.width()], options);
            let counts = Tensor::zeros([rows, columns, 1], options);
            let place = |t: &Tensor, (y, x): (i64, i64)| t.narrow(0, y, window).narrow(1, x, window);
            for some in corners.chunks(WINDOW_BATCH) {
                let cut = |&(y, x): &(i64, i64)| {
                    pixels.narrow(1, y * patch, self.size).narrow(2, x * patch, self.size)
                };
                let windows: Vec<Tensor> = some.iter().map(cut).collect();
                let features = unit(&self.vision.features(&Tensor::cat(&windows, 0)).patches);
                let features =
                    features.to_device(tch::Device::Cpu).reshape([-1, window, window, self.width()]);
                for (i, &corner) in some.iter().enumerate() {
                    let _ = place(&sums, corner).g_add_(&features.get(i as i64));
                    let _ = place(&counts, corner).g_add_scalar_(1.0);
                }
            }
            sums / counts
        })
    }

    /// Pixels 0..255 as float32, [1, h, w, 3], resized bilinearly as in the segmenter; both sides are a multiple of the patch size.
    fn resized(&self, picture: &RgbImage) -> Tensor {
        let (width, height) = (i64::from(picture.width()), i64::from(picture.height()));
        let pixels = Tensor::from_slice(picture.as_raw()).view([1, height, width, 3]);
        let patch = self.vision.patch();
        let scale = self.size as f64 / height.min(width) as f64;
        let whole = |side: i64| {
            let patches = (side as f64 * scale / patch as f64).round() as i64;
            (patches * patch).max(self.size)
        };
        pixels
            .permute([0, 3, 1, 2])
            .to_kind(Kind::Float)
            .upsample_bilinear2d([whole(height), whole(width)], false, None, None)
            .permute([0, 2, 3, 1])
    }
}

/// Upsamples a grid of patch values bilinearly to one value per pixel of an image of `height` x `width` pixels, row by row.
pub fn per_pixel(grid: &Tensor, height: u32, width: u32) -> Vec<f32> {
    let size = [i64::from(height), i64::from(width)];
    let grid = grid.to_kind(Kind::Float).unsqueeze(0).unsqueeze(0);
    to_vec(&grid.upsample_bilinear2d(size, false, None, None))
}
