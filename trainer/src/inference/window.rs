//! Cuts an image into square windows for a tower, and joins the scores of the windows.
//!
//! The steps of the published protocol: resize with the same aspect ratio, slide a window, upsample the patch scores of each window
//! bilinearly to its pixels, refine them if asked to, average where windows overlap.

use image::RgbImage;
use serde::Serialize;
use tch::{Device, Kind, Tensor};

use super::fusion::Fusion;
use super::labels::upsample;
use super::pamr::Pamr;
use super::{opencv, pillow};
use crate::error::{Error, Result};

/// How the image is resized: bilinearly without antialiasing, except for [`Resize::Bicubic`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Resize {
    /// As OpenCV, and with it mmcv, resizes 8-bit images: the result is rounded to 8 bits.
    Opencv,
    /// As PyTorch resizes floating-point images.
    Float,
    /// As Pillow, and with it torchvision, resizes 8-bit images bicubically; the long side is rounded down. Windows whose side is not a
    /// multiple of the patch size are stretched to the next one, bicubically too: as dino.txt and TIPSv2.
    Bicubic,
}

/// Sizes of the sliding window, in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Window {
    /// The short side of the image is resized to this.
    pub short: i64,
    /// Maximum long side of the image; the short side becomes smaller if necessary. 0 = no limit.
    pub long: i64,
    /// Side of the window.
    pub side: i64,
    /// Step of the window.
    pub stride: i64,
    /// How the image is resized.
    pub resize: Resize,
}

impl Window {
    /// The published protocol.
    pub const PUBLISHED: Self =
        Self { short: 448, long: 2048, side: 448, stride: 224, resize: Resize::Opencv };

    /// Rejects sizes with which no image could be cut.
    pub fn check(&self, patch: i64) -> Result<()> {
        let refuse = |name: &str, problem: String| Err(Error::Setting { name: name.to_owned(), problem });
        if self.side < 1 || (self.resize != Resize::Bicubic && self.side % patch != 0) {
            let option = if self.side == self.short { "--size" } else { "--window" };
            return refuse(
                option,
                format!("is {} px; it must be a multiple of the patch size, {patch} px", self.side),
            );
        }
        if self.short < 1 || self.long < 0 || (self.long > 0 && self.long < self.short) {
            return refuse(
                "--long-side",
                format!("is {} px; it must be at least the short side, {} px, or 0", self.long, self.short),
            );
        }
        if self.stride < 1 || self.stride > self.side {
            return refuse(
                "--stride",
                format!("is {} px; it must be 1 to {}, the window", self.stride, self.side),
            );
        }
        Ok(())
    }

    /// Height and width of the resized image, rounded as in the published protocol.
    pub fn fit(&self, height: i64, width: i64) -> (i64, i64) {
        let (short, long) = (height.min(width) as f64, height.max(width) as f64);
        if self.resize == Resize::Bicubic {
            let limited = self.long > 0 && self.long as f64 * short < self.short as f64 * long;
            let (to, from) = if limited { (self.long, long) } else { (self.short, short) };
            let side = |side: i64| (((to * side) as f64 / from) as i64).max(1);
            return (side(height), side(width));
        }
        let mut scale = self.short as f64 / short;
        if self.long > 0 {
            scale = scale.min(self.long as f64 / long);
        }
        let side = |side: i64| ((side as f64 * scale + 0.5) as i64).max(1);
        (side(height), side(width))
    }

    /// Number of windows for an image of this size.
    pub fn count(&self, height: i64, width: i64) -> usize {
        let (height, width) = self.fit(height, width);
        let along = |length: i64| offsets(length.max(self.side), self.side, self.stride).len();
        along(height) * along(width)
    }

    /// The resized image, pixels 0..255 as float32, [1, h, w, 3].
    pub fn resized(&self, image: &RgbImage, device: Device) -> Tensor {
        let pixels = |image: &RgbImage| {
            let (width, height) = (i64::from(image.width()), i64::from(image.height()));
            let pixels = Tensor::from_slice(image.as_raw()).view([1, height, width, 3]);
            pixels.to_device(device).to_kind(Kind::Float)
        };
        let (h, w) = self.fit(image.height().into(), image.width().into());
        match self.resize {
            Resize::Opencv => pixels(&opencv::resize(image, w as u32, h as u32)),
            Resize::Bicubic => pixels(&pillow::resize(image, w as u32, h as u32)),
            Resize::Float => upsample(&pixels(image).permute([0, 3, 1, 2]), h, w).permute([0, 2, 3, 1]),
        }
    }

    /// Windows, [n, side, side, 3], with as many pixels as a tower needs.
    pub fn whole_patches(&self, windows: &Tensor, patch: i64) -> Tensor {
        let side = (self.side + patch - 1) / patch * patch;
        if side == self.side {
            return windows.shallow_clone();
        }
        let planes = windows.permute([0, 3, 1, 2]);
        planes.upsample_bicubic2d([side, side], false, None, None).permute([0, 2, 3, 1])
    }

    /// Cuts a resized image into windows. Sides shorter than the window are padded with the pixel value `filling`, `[3]`.
    pub fn cut(&self, pixels: &Tensor, filling: &Tensor) -> Cut {
        let (height, width) = (pixels.size()[1], pixels.size()[2]);
        let (full_height, full_width) = (height.max(self.side), width.max(self.side));
        let filled = if (full_height, full_width) == (height, width) {
            pixels.shallow_clone()
        } else {
            let filled = filling.view([1, 1, 1, 3]).expand([1, full_height, full_width, 3], false).copy();
            filled.narrow(1, 0, height).narrow(2, 0, width).copy_(pixels);
            filled
        };
        let rows = offsets(full_height, self.side, self.stride);
        let columns = offsets(full_width, self.side, self.stride);
        let corners: Vec<(i64, i64)> =
            rows.iter().flat_map(|&y| columns.iter().map(move |&x| (y, x))).collect();
        let windows =
            corners.iter().map(|&(y, x)| filled.narrow(1, y, self.side).narrow(2, x, self.side)).collect();
        Cut { side: self.side, height, width, full: (full_height, full_width), corners, windows }
    }
}

/// The windows of an image.
#[derive(Debug)]
pub struct Cut {
    side: i64,
    /// Height of the resized image.
    pub height: i64,
    /// Width of the resized image.
    pub width: i64,
    full: (i64, i64),
    corners: Vec<(i64, i64)>,
    /// The windows, each [1, side, side, 3].
    pub windows: Vec<Tensor>,
}

impl Cut {
    /// The parts of a plane of labels of the resized image, [h, w], that lie in the windows, [side, side] each. Where the image is filled
    /// up, they are `filling`.
    pub fn planes(&self, labels: &Tensor, filling: f64) -> Vec<Tensor> {
        let below = [0, self.full.1 - self.width, 0, self.full.0 - self.height];
        let full = labels.constant_pad_nd(below) + self.outside(labels) * filling;
        let part = |&(y, x): &(i64, i64)| full.narrow(0, y, self.side).narrow(1, x, self.side);
        self.corners.iter().map(part).collect()
    }

    /// 1 where the image is filled up, 0 elsewhere.
    fn outside(&self, like: &Tensor) -> Tensor {
        let outside = Tensor::ones([self.full.0, self.full.1], (like.kind(), like.device()));
        let _ = outside.narrow(0, 0, self.height).narrow(1, 0, self.width).zero_();
        outside
    }

    /// Scores of the resized image, [C, h, w], from the patch scores of its windows, [C, grid, grid] each. `pamr` refines the scores of
    /// each window by its pixels.
    pub fn blend(&self, grids: &[Tensor], fusion: Fusion, pamr: Option<&Pamr>) -> Tensor {
        let classes = grids[0].size()[0];
        let options = (Kind::Float, grids[0].device());
        let sums = Tensor::zeros([classes, self.full.0, self.full.1], options);
        let counts = Tensor::zeros([1, self.full.0, self.full.1], options);
        for ((grid, window), &(y, x)) in grids.iter().zip(&self.windows).zip(&self.corners) {
            let place = |t: &Tensor| t.narrow(1, y, self.side).narrow(2, x, self.side);
            let scores = fusion.scores(grid, self.side, window, pamr);
            let _ = place(&sums).g_add_(&scores);
            let _ = place(&counts).g_add_scalar_(1.0);
        }
        let _ = sums.shallow_clone().g_div_(&counts);
        sums.narrow(1, 0, self.height).narrow(2, 0, self.width)
    }
}

/// Offsets of windows of `size` along a side of `length` >= `size`: every `stride`, and the last one at the end of the side.
pub(super) fn offsets(length: i64, size: i64, stride: i64) -> Vec<i64> {
    let mut out: Vec<i64> = (0..=length - size).step_by(stride.max(1) as usize).collect();
    if out.last() != Some(&(length - size)) {
        out.push(length - size);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_cover_the_side_and_end_flush() {
        assert_eq!(offsets(448, 448, 224), [0]);
        assert_eq!(offsets(672, 448, 224), [0, 224]);
        assert_eq!(offsets(700, 448, 224), [0, 224, 252]);
        assert_eq!(offsets(449, 448, 224), [0, 1]);
    }

    #[test]
    fn sizes_keep_the_ratio() {
        let window = Window::PUBLISHED;
        assert_eq!(window.fit(333, 500), (448, 673));
        assert_eq!(window.fit(1024, 2048), (448, 896));
        assert_eq!(window.fit(500, 375), (597, 448));
        // 100 x 1000 would be 448 x 4480; the long side stops at 2048.
        assert_eq!(window.fit(100, 1000), (205, 2048));
        assert!(Window { side: 450, ..window }.check(14).unwrap_err().to_string().contains("window"));
        assert!(Window { stride: 0, ..window }.check(14).unwrap_err().to_string().contains("stride"));
    }

    #[test]
    fn short_sides_are_filled_and_cut_off_again() {
        let window = Window { short: 20, long: 0, side: 32, stride: 16, resize: Resize::Float };
        let pixels = Tensor::ones([1, 20, 40, 3], (Kind::Float, Device::Cpu));
        let cut = window.cut(&pixels, &Tensor::from_slice(&[7f32, 8.0, 9.0]));
        assert_eq!(cut.windows.len(), 2);
        assert_eq!(cut.windows[1].double_value(&[0, 25, 3, 2]), 9.0);
        assert_eq!(cut.windows[1].double_value(&[0, 19, 3, 2]), 1.0);
        let grids = [1.0, 3.0].map(|v| Tensor::full([2, 4, 4], v, (Kind::Float, Device::Cpu)));
        let scores = cut.blend(&grids, Fusion::default(), None);
        assert_eq!(scores.size(), [2, 20, 40]);
        // Columns 0..8 are in the first window only, 8..32 in both, 32..40 in the second only.
        assert_eq!([0, 20, 39].map(|x| scores.double_value(&[0, 5, x])), [1.0, 2.0, 3.0]);
    }
}
