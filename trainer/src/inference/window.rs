//! Cuts an image into square windows for a tower, and joins the scores of the windows.
//!
//! The steps of the published protocol: resize with the same aspect ratio, slide a window, upsample the patch scores of each window
//! bilinearly to its pixels, refine them if asked to, average where windows overlap.

use image::RgbImage;
use serde::Serialize;
use tch::{Device, Kind, Tensor};

use super::cut::Cut;
use super::labels::upsample;
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

/// How windows that are not as large as they should be get the sizes that a tower needs: those of images that are smaller than the
/// window, and whole images.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Edges {
    /// At the right and below they are filled up to the whole window, with the mean of the training.
    #[default]
    Filled,
    /// They are as large as the image. What is more than whole patches is left out, and the scores are stretched over the window.
    Cropped,
    /// They are filled up to a multiple of this many pixels, on all sides alike.
    Centred(i64),
    /// At the right and below they are filled up to a multiple of this many pixels, and the scores are stretched over the window without
    /// the filling.
    Corner(i64),
    /// The same with black.
    BlackCorner(i64),
}

/// Sizes of the sliding window, in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Window {
    /// The short side of the image is resized to this.
    pub short: i64,
    /// Maximum long side of the image; the short side becomes smaller if necessary. 0 = no limit.
    pub long: i64,
    /// Side of the window; 0 = the whole image.
    pub side: i64,
    /// Step of the window.
    pub stride: i64,
    /// How the image is resized.
    pub resize: Resize,
    /// What becomes of smaller windows.
    #[serde(skip_serializing_if = "is_filled")]
    pub edges: Edges,
}

/// Not written in results, which had no such part before.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_filled(edges: &Edges) -> bool {
    *edges == Edges::Filled
}

impl Window {
    /// The published protocol.
    pub const PUBLISHED: Self =
        Self { short: 448, long: 2048, side: 448, stride: 224, resize: Resize::Opencv, edges: Edges::Filled };

    /// Rejects sizes with which no image could be cut.
    pub fn check(&self, patch: i64) -> Result<()> {
        let refuse = |name: &str, problem: String| Err(Error::Setting { name: name.to_owned(), problem });
        let whole = self.side == 0 && self.edges != Edges::Filled;
        if self.side < i64::from(!whole) || (self.resize != Resize::Bicubic && self.side % patch != 0) {
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
        if !whole && (self.stride < 1 || self.stride > self.side) {
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
        let along = |length: i64| {
            let side = self.along(length);
            offsets(length.max(side), side, self.stride).len()
        };
        along(height) * along(width)
    }

    /// Side of the windows along a side of the image.
    fn along(&self, length: i64) -> i64 {
        match (self.edges, self.side) {
            (Edges::Filled, side) => side,
            (_, 0) => length,
            (_, side) => side.min(length),
        }
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

    /// Windows, [n, h, w, 3], with as many pixels as a tower needs.
    pub fn whole_patches(&self, windows: &Tensor, patch: i64) -> Tensor {
        let side = (self.side + patch - 1) / patch * patch;
        if side == self.side || self.resize != Resize::Bicubic {
            return windows.shallow_clone();
        }
        let planes = windows.permute([0, 3, 1, 2]);
        planes.upsample_bicubic2d([side, side], false, None, None).permute([0, 2, 3, 1])
    }

    /// Cuts a resized image into windows. Where they are filled up, it is with the pixel value `filling`, `[3]`.
    pub fn cut(&self, pixels: &Tensor, filling: &Tensor) -> Cut {
        let (height, width) = (pixels.size()[1], pixels.size()[2]);
        let (rows, columns) = (self.along(height), self.along(width));
        let full = (height.max(rows), width.max(columns));
        let filled = framed(pixels, [0, full.0 - height, 0, full.1 - width], filling);
        let corners: Vec<(i64, i64)> = offsets(full.0, rows, self.stride)
            .into_iter()
            .flat_map(|y| offsets(full.1, columns, self.stride).into_iter().map(move |x| (y, x)))
            .collect();
        let missing = |length: i64, multiple: i64| (multiple - length % multiple) % multiple;
        let black = filling.zeros_like();
        let ([above, below, left, right], filling) = match self.edges {
            Edges::Filled | Edges::Cropped => ([0; 4], filling),
            Edges::Centred(multiple) => {
                let [down, across] = [missing(rows, multiple), missing(columns, multiple)];
                ([down / 2, down - down / 2, across / 2, across - across / 2], filling)
            }
            Edges::Corner(multiple) => ([0, missing(rows, multiple), 0, missing(columns, multiple)], filling),
            Edges::BlackCorner(multiple) => {
                ([0, missing(rows, multiple), 0, missing(columns, multiple)], &black)
            }
        };
        let window = |&(y, x): &(i64, i64)| {
            framed(&filled.narrow(1, y, rows).narrow(2, x, columns), [above, below, left, right], filling)
        };
        Cut {
            height,
            width,
            size: (rows, columns),
            full,
            inside: matches!(self.edges, Edges::Filled | Edges::Centred(_)).then_some((above, left)),
            windows: corners.iter().map(window).collect(),
            corners,
        }
    }
}

/// Pixels, [1, h, w, 3], with a frame of so many pixels above, below, left and right.
fn framed(pixels: &Tensor, frame: [i64; 4], filling: &Tensor) -> Tensor {
    let [above, below, left, right] = frame;
    if frame == [0; 4] {
        return pixels.shallow_clone();
    }
    let (height, width) = (pixels.size()[1], pixels.size()[2]);
    let size = [1, above + height + below, left + width + right, 3];
    let framed = filling.view([1, 1, 1, 3]).expand(size, false).copy();
    framed.narrow(1, above, height).narrow(2, left, width).copy_(pixels);
    framed
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
    use crate::inference::fusion::Fusion;

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
        let window = Window { short: 20, side: 32, stride: 16, resize: Resize::Float, ..Window::PUBLISHED };
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

    /// Scores that grow with the place show where a window lies in what a tower was given.
    #[test]
    fn smaller_windows_are_framed_and_cut_out_again() {
        let pixels = Tensor::ones([1, 20, 52, 3], (Kind::Float, Device::Cpu));
        let filling = Tensor::from_slice(&[7f32, 8.0, 9.0]);
        let cut = |side: i64, edges: Edges| {
            Window { short: 20, side, stride: 16, edges, ..Window::PUBLISHED }.cut(&pixels, &filling)
        };
        let size = |cut: &Cut| (cut.windows.len(), cut.windows[0].size()[1], cut.windows[0].size()[2]);
        // 20 x 52 in windows of 32: as high as the image, at 0, 16 and 20.
        assert_eq!(size(&cut(32, Edges::Filled)), (3, 32, 32));
        assert_eq!(size(&cut(32, Edges::Cropped)), (3, 20, 32));
        assert_eq!(size(&cut(32, Edges::Centred(16))), (3, 32, 32));
        assert_eq!(size(&cut(0, Edges::Cropped)), (1, 20, 52));
        assert_eq!(size(&cut(0, Edges::Corner(16))), (1, 32, 64));

        let centred = cut(0, Edges::Centred(16));
        let at = |cut: &Cut, y: i64, x: i64| cut.windows[0].double_value(&[0, y, x, 1]);
        assert_eq!([5, 6, 25, 26].map(|y| at(&centred, y, 30)), [8.0, 1.0, 1.0, 8.0]);
        assert_eq!([5, 6, 57, 58].map(|x| at(&centred, 16, x)), [8.0, 1.0, 1.0, 8.0]);
        let corner = cut(0, Edges::BlackCorner(16));
        assert_eq!((at(&corner, 19, 51), at(&corner, 20, 0), at(&corner, 0, 52)), (1.0, 0.0, 0.0));

        // One row of four patches whose scores are 0, 1, 2, 3: the centre of patch i is at 8 + 16 i in what the tower was given.
        let grid = Tensor::from_slice(&[0f32, 1.0, 2.0, 3.0]).view([1, 1, 4]);
        let row = |cut: &Cut| {
            let scores = cut.blend(&[grid.shallow_clone()], Fusion::default(), None);
            assert_eq!(scores.size(), [1, 20, 52]);
            [0, 26, 51].map(|x| scores.double_value(&[0, 10, x]))
        };
        let place = |x: f64| ((x + 0.5) / 16.0 - 0.5).clamp(0.0, 3.0);
        let near = |found: [f64; 3], expected: [f64; 3]| {
            assert!(found.iter().zip(expected).all(|(f, e)| (f - e).abs() < 1e-5), "{found:?} {expected:?}");
        };
        near(row(&centred), [6.0, 32.0, 57.0].map(place));
        // Stretched: pixel x of 52 is at x 64 / 52.
        near(row(&corner), [0.5, 26.5, 51.5].map(|x: f64| place(x * 64.0 / 52.0 - 0.5)));
    }
}
