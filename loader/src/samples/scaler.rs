//! Resizes part of an image to `size` x `size` pixels with Pillow's bicubic filter. The weights have 16 bits, Pillow's
//! 22, so that 0.3 % of the values differ by 1 (`docs/loader.md`, Decoding).

// The images whose pixel type is known when this is compiled: those whose type is not would make the compiler write out
// every filter for thirteen types.
use fast_image_resize::images::{TypedCroppedImage, TypedImage, TypedImageRef};
use fast_image_resize::pixels::U8x3;
use fast_image_resize::{CropBoxError, FilterType, ResizeAlg, ResizeOptions, Resizer};
use image::RgbImage;

use crate::decode_error::DecodeError;
use crate::samples::crop::{CropRegion, View};

/// Radius of the bicubic filter in pixels, when it does not shrink the image.
const BICUBIC_REACH: f64 = 2.0;

/// Resizes images on one thread; its working memory is reused from image to image.
#[derive(Debug, Default)]
pub struct Scaler {
    resizer: Resizer,
    /// The horizontally resized rows, before vertical resizing.
    across: Vec<u8>,
}

impl Scaler {
    /// Number of pixels on each side of a region that influence the result when `extent` pixels become `size`.
    pub(crate) fn reach(extent: f64, size: u32) -> f64 {
        BICUBIC_REACH * (extent / f64::from(size)).max(1.0) + 1.0
    }

    /// As [`Self::resize`], but faster and less exact: it uses the Hamming filter, which is half as wide and about as
    /// sharp, and resizes vertically first, which leaves fewer rows for the slower horizontal pass.
    ///
    /// # Errors
    /// The region is outside the image, or `row` has the wrong length.
    pub(crate) fn resize_fast(
        &mut self,
        image: &RgbImage,
        view: View,
        size: u32,
        row: &mut [u8],
    ) -> Result<(), DecodeError> {
        let failed = |e: &dyn std::fmt::Display| DecodeError::Resize(e.to_string());
        let source = TypedImageRef::<U8x3>::from_buffer(image.width(), image.height(), image.as_raw())
            .map_err(|e| failed(&e))?;
        let (left, top, width, height) = match view.region {
            CropRegion::CropThenResize { left, top, width, height } => {
                (f64::from(left), f64::from(top), f64::from(width), f64::from(height))
            }
            CropRegion::ResizeThenCrop { left, top, width, height } => (
                left,
                top,
                width.min(f64::from(image.width()) - left),
                height.min(f64::from(image.height()) - top),
            ),
        };
        let options = ResizeOptions::new()
            .resize_alg(ResizeAlg::Convolution(FilterType::Hamming))
            .use_alpha(false)
            .crop(left, top, width, height);
        let mut target = TypedImage::<U8x3>::from_buffer(size, size, row).map_err(|e| failed(&e))?;
        self.resizer.resize_typed(&source, &mut target, &options).map_err(|e| failed(&e))?;
        flip(view, size, row);
        Ok(())
    }

    /// Writes a view of `image` as `size` x `size` RGB pixels into `row`. As Pillow up to 12, it uses the antialiased
    /// bicubic filter (a = -0.5, widened when shrinking), first horizontally and then vertically. The intermediate image
    /// is rounded and clipped to 8 bits, so the opposite order, which Pillow 13 uses for some regions that are higher
    /// than wide, gives different pixels at sharp edges.
    ///
    /// # Errors
    /// The region is outside the image, or `row` has the wrong length.
    pub fn resize(
        &mut self,
        image: &RgbImage,
        view: View,
        size: u32,
        row: &mut [u8],
    ) -> Result<(), DecodeError> {
        let failed = |e: &dyn std::fmt::Display| DecodeError::Resize(e.to_string());
        let source = TypedImageRef::<U8x3>::from_buffer(image.width(), image.height(), image.as_raw())
            .map_err(|e| failed(&e))?;
        // The pixels that the filter may read, and the region relative to their first pixel.
        let (seen, region) = match view.region {
            CropRegion::CropThenResize { left, top, width, height } => {
                ((left, top, width, height), (0.0, 0.0, f64::from(width), f64::from(height)))
            }
            CropRegion::ResizeThenCrop { left, top, width, height } => {
                let reach = Self::reach(height, size);
                let first = (top - reach).floor().max(0.0);
                let end = (top + height + reach).ceil().min(f64::from(image.height()));
                (
                    (0, first as u32, image.width(), (end - first) as u32),
                    (left, top - first, width.min(f64::from(image.width()) - left), height.min(end - top)),
                )
            }
        };
        let bicubic =
            ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::CatmullRom)).use_alpha(false);
        let cut = TypedCroppedImage::from_ref(&source, seen.0, seen.1, seen.2, seen.3)
            .map_err(|e: CropBoxError| failed(&e))?;
        self.across.resize((size * seen.3 * 3) as usize, 0);
        let mut across =
            TypedImage::<U8x3>::from_buffer(size, seen.3, &mut self.across).map_err(|e| failed(&e))?;
        let options = bicubic.crop(region.0, 0.0, region.2, f64::from(seen.3));
        self.resizer.resize_typed(&cut, &mut across, &options).map_err(|e| failed(&e))?;
        let mut target = TypedImage::<U8x3>::from_buffer(size, size, row).map_err(|e| failed(&e))?;
        let options = bicubic.crop(0.0, region.1, f64::from(size), region.3);
        self.resizer.resize_typed(&across, &mut target, &options).map_err(|e| failed(&e))?;
        flip(view, size, row);
        Ok(())
    }
}

fn flip(view: View, size: u32, row: &mut [u8]) {
    if view.flip {
        for line in row.chunks_exact_mut(size as usize * 3) {
            mirror(line);
        }
    }
}

/// Reverses the pixels of one line of RGB.
fn mirror(line: &mut [u8]) {
    line.reverse();
    for pixel in line.chunks_exact_mut(3) {
        pixel.swap(0, 2);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::order::SampleId;
    use crate::samples::pixels::decode;
    use crate::{Crop, ImageSettings};

    fn source() -> RgbImage {
        decode(include_bytes!("../../tests/fixtures/resize.png")).unwrap()
    }

    fn fixture(name: &str) -> Vec<serde_json::Value> {
        let all: serde_json::Value =
            serde_json::from_str(include_str!("../../tests/fixtures/resize.json")).unwrap();
        all[name].as_array().unwrap().clone()
    }

    fn pixels(case: &serde_json::Value) -> Vec<u8> {
        let hex = case["pixels"].as_str().unwrap();
        (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap()).collect()
    }

    fn numbers<const N: usize>(case: &serde_json::Value, names: [&str; N]) -> [u32; N] {
        names.map(|name| case[name].as_u64().unwrap() as u32)
    }

    /// Rounding may differ by one step; a systematic error would differ by more.
    fn assert_close(ours: &[u8], theirs: &[u8], what: &str) {
        assert_eq!(ours.len(), theirs.len());
        let differences: Vec<u8> = ours.iter().zip(theirs).map(|(a, b)| a.abs_diff(*b)).collect();
        assert!(differences.iter().all(|&d| d <= 1), "{what}: differs by {:?}", differences.iter().max());
        let mean = differences.iter().map(|&d| f64::from(d)).sum::<f64>() / ours.len() as f64;
        // Enlarging a gradient by 3/2 gives many values half-way between two integers.
        assert!(mean < 0.15, "{what}: differs by {mean} on average");
    }

    #[test]
    fn cut_regions_are_resized_as_by_pillow() {
        for case in fixture("cuts") {
            let [left, top, width, height, size] = numbers(&case, ["left", "top", "width", "height", "size"]);
            let view = View { region: CropRegion::CropThenResize { left, top, width, height }, flip: false };
            let mut row = vec![0; (size * size * 3) as usize];
            Scaler::default().resize(&source(), view, size, &mut row).unwrap();
            assert_close(&row, &pixels(&case), &format!("{view:?}"));

            let mut mirrored = vec![0; row.len()];
            Scaler::default().resize(&source(), View { flip: true, ..view }, size, &mut mirrored).unwrap();
            for (line, original) in mirrored.chunks(size as usize * 3).zip(row.chunks(size as usize * 3)) {
                assert!(line.chunks(3).eq(original.chunks(3).rev()));
            }
        }
    }

    #[test]
    fn centre_crops_are_resized_as_by_torchvision() {
        for case in fixture("centres") {
            let [width, height, size] = numbers(&case, ["width", "height", "size"]);
            let image = image::imageops::crop_imm(&source(), 0, 0, width, height).to_image();
            let settings = ImageSettings { crop: Crop::Centre { size }, flip: 0.0 };
            let view = View::choose(&settings, (0, 0, SampleId { shard: 0, sample: 0 }), width, height);
            let mut row = vec![0; (size * size * 3) as usize];
            Scaler::default().resize(&image, view, size, &mut row).unwrap();
            assert_close(&row, &pixels(&case), &format!("{width} x {height} to {size}"));
        }
    }
}
