//! From the bytes of an image file to the pixels of a batch row.

use image::RgbImage;
use jpeg::{Area, Request};

use crate::budget;
use crate::decode_error::DecodeError;
use crate::formats::{ImageFile, decode_jpeg, to_rgb};
use crate::samples::crop::{self, CropRegion, View};
use crate::samples::scaler::Scaler;
use crate::settings::Decoding;

/// Decodes an image of any [`Format`](crate::images::Format) to 8-bit RGB, whatever the file name says. Greyscale becomes RGB,
/// transparency is dropped, EXIF orientation is not applied: the result of `PIL.Image.open(..).convert("RGB")`.
///
/// # Errors
/// This is not a complete image within the [limits](crate::images).
pub fn decode(bytes: &[u8]) -> Result<RgbImage, DecodeError> {
    if bytes.starts_with(&jpeg::START) { decode_jpeg(bytes) } else { decode_other(bytes) }
}

fn decode_other(bytes: &[u8]) -> Result<RgbImage, DecodeError> {
    ImageFile::open(bytes).and_then(ImageFile::decode).and_then(to_rgb)
}

/// The centre crop of an image, `size` x `size` pixels: those of [`crate::Crop::Centre`] in a batch of the loader with
/// exact decoding.
///
/// # Errors
/// As [`Scaler::resize`].
pub fn centre_crop(image: &RgbImage, size: u32) -> Result<RgbImage, DecodeError> {
    let view = View { region: crop::centre(size, image.width(), image.height()), flip: false };
    let mut row = RgbImage::new(size, size);
    Scaler::default().resize(image, view, size, &mut row)?;
    Ok(row)
}

/// An image preprocessor: decodes, crops, resizes and flips. Its working memory is reused from image to image.
#[derive(Debug)]
pub struct Preprocessor {
    decoder: jpeg::Decoder,
    scaler: Scaler,
    /// Memory of the last decoded image.
    buffer: Vec<u8>,
    /// Memory of the last encoded file.
    file: Vec<u8>,
}

impl Default for Preprocessor {
    fn default() -> Self {
        let decoder = jpeg::Decoder::new(budget::JPEG_LIMITS);
        Self { decoder, scaler: Scaler::default(), buffer: Vec::new(), file: Vec::new() }
    }
}

impl Preprocessor {
    /// Takes the memory of the last file, for the next one.
    pub(crate) fn take_file(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.file)
    }

    /// Returns the memory of a file, for the next one.
    pub(crate) fn keep_file(&mut self, file: Vec<u8>) {
        self.file = file;
    }

    /// Writes a view of an image as `size` x `size` RGB pixels into `row`. `choose` gets the width and height of the
    /// image and returns the view. Only as much of a JPEG is decoded as the view needs.
    ///
    /// # Errors
    /// As [`decode`].
    pub fn preprocess(
        &mut self,
        bytes: &[u8],
        decoding: Decoding,
        size: u32,
        choose: impl FnOnce(u32, u32) -> View,
        row: &mut [u8],
    ) -> Result<(), DecodeError> {
        if !bytes.starts_with(&jpeg::START) {
            let image = decode_other(bytes)?;
            let view = choose(image.width(), image.height());
            return self.scaler.resize(&image, view, size, row);
        }
        let mut view = None;
        let buffer = std::mem::take(&mut self.buffer);
        let request = |width, height| {
            let chosen = choose(width, height);
            let eighths = match decoding {
                Decoding::Exact => 8,
                Decoding::Fast => eighths(chosen.region, size),
            };
            let chosen = View { region: chosen.region.scaled(eighths, width, height), ..chosen };
            view = Some(chosen);
            let sides = [width, height].map(|side| jpeg::scaled(side, eighths));
            let area = Some(seen(chosen.region, size, sides));
            Request { eighths, area, coarse: decoding == Decoding::Fast }
        };
        let decoded = self.decoder.decode(bytes, buffer, request)?;
        let none = || DecodeError::Damaged("no pixels were decoded".to_owned());
        let view = view.ok_or_else(none)?;
        let Area { left, top, width, height } = decoded.area;
        let view = View { region: view.region.seen_from(left, top), ..view };
        let image = RgbImage::from_raw(width, height, decoded.pixels).ok_or_else(none)?;
        let resized = match decoding {
            Decoding::Exact => self.scaler.resize(&image, view, size, row),
            Decoding::Fast => self.scaler.resize_fast(&image, view, size, row),
        };
        self.buffer = image.into_raw();
        resized
    }
}

/// The smallest fast scale (1, 2, 4 or 8 eighths) at which a region still has at least `size` pixels per side.
fn eighths(region: CropRegion, size: u32) -> u32 {
    let (width, height) = region.extent();
    let enough = |eighths: u32| width.min(height) * f64::from(eighths) / 8.0 >= f64::from(size);
    [1, 2, 4].into_iter().find(|&eighths| enough(eighths)).unwrap_or(8)
}

/// The pixels that resizing a region reads, in an image with these sides.
fn seen(region: CropRegion, size: u32, sides: [u32; 2]) -> Area {
    let (left, top, width, height) = match region {
        CropRegion::CropThenResize { left, top, width, height } => return Area { left, top, width, height },
        CropRegion::ResizeThenCrop { left, top, width, height } => (left, top, width, height),
    };
    let range = |from: f64, extent: f64, side: u32| {
        let reach = Scaler::reach(extent, size);
        let first = (from - reach).floor().max(0.0) as u32;
        let end = ((from + extent + reach).ceil() as u32).min(side);
        (first, end - first)
    };
    let ((left, width), (top, height)) = (range(left, width, sides[0]), range(top, height, sides[1]));
    Area { left, top, width, height }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;
    use crate::order::SampleId;
    use crate::{Crop, ImageSettings};

    fn source() -> RgbImage {
        decode(include_bytes!("../../tests/fixtures/resize.png")).unwrap()
    }

    #[test]
    fn what_is_not_an_image_is_an_error() {
        assert!(decode(b"").is_err());
        assert!(decode(b"<html>not found</html>").is_err());
        let whole = include_bytes!("../../tests/fixtures/resize.png");
        assert!(decode(&whole[..whole.len() / 2]).is_err());
        // A header that declares 60,000 x 60,000 pixels.
        let mut bomb = whole.to_vec();
        bomb[16..24].copy_from_slice(&[0, 0, 0xEA, 0x60, 0, 0, 0xEA, 0x60]);
        assert!(decode(&bomb).is_err());
    }

    #[test]
    fn a_truncated_photo_is_an_error() {
        let mut jpeg = Vec::new();
        source().write_to(&mut Cursor::new(&mut jpeg), image::ImageFormat::Jpeg).unwrap();
        assert_eq!(decode(&jpeg).unwrap().dimensions(), source().dimensions());
        for part in [2, 10, 100, jpeg.len() / 2, jpeg.len() * 9 / 10] {
            assert!(decode(&jpeg[..part]).is_err(), "the first {part} of {} bytes", jpeg.len());
        }
    }

    #[test]
    fn grey_and_transparent_images_become_rgb() {
        for image in [
            image::DynamicImage::ImageLuma8(image::GrayImage::from_pixel(3, 2, image::Luma([7]))),
            image::DynamicImage::ImageRgba8(image::RgbaImage::from_pixel(3, 2, image::Rgba([7, 7, 7, 0]))),
        ] {
            let mut png = Vec::new();
            image.write_to(&mut Cursor::new(&mut png), image::ImageFormat::Png).unwrap();
            assert_eq!(decode(&png).unwrap(), RgbImage::from_pixel(3, 2, image::Rgb([7; 3])));
        }
    }

    fn views() -> Vec<ImageSettings> {
        let random = Crop::RandomResized { size: 24, scale: (0.08, 1.0), ratio: (3.0 / 4.0, 4.0 / 3.0) };
        [random, Crop::Centre { size: 24 }, Crop::Centre { size: 9 }]
            .map(|crop| ImageSettings { crop, flip: 0.5 })
            .to_vec()
    }

    /// A synthetic image of 400 x 300 pixels with smooth shades and a few edges, as photos have.
    fn photo() -> Vec<u8> {
        let wave = |x: u32, by: f64| (127.0 + 120.0 * (f64::from(x) / by).sin()) as u8;
        let image = RgbImage::from_fn(400, 300, |x, y| {
            let edge = if (x / 90 + y / 70) % 2 == 0 { 40 } else { 0 };
            image::Rgb([wave(x + y, 31.0), wave(2 * x + 3 * y, 83.0) ^ edge, wave(y, 17.0) / 2 + edge])
        });
        jpeg::encode(image.as_raw(), 400, 300, 90).unwrap()
    }

    #[test]
    fn a_decoded_region_has_the_pixels_of_the_whole_image() {
        let photo = photo();
        let mut preprocessor = Preprocessor::default();
        for settings in views() {
            for sample in 0..200 {
                let drawn = (1, 2, SampleId { shard: 3, sample });
                let size = settings.size();
                let mut row = vec![0; settings.bytes()];
                let choose = |width, height| View::choose(&settings, drawn, width, height);
                preprocessor.preprocess(&photo, Decoding::Exact, size, choose, &mut row).unwrap();
                let mut expected = vec![0; row.len()];
                let whole = decode(&photo).unwrap();
                let view = View::choose(&settings, drawn, whole.width(), whole.height());
                Scaler::default().resize(&whole, view, size, &mut expected).unwrap();
                assert!(row == expected, "{settings:?}, sample {sample}: {view:?}");
            }
        }
    }

    #[test]
    fn fast_decoding_is_close_to_exact() {
        let photo = photo();
        let mut preprocessor = Preprocessor::default();
        for settings in views() {
            for sample in 0..100 {
                let drawn = (1, 2, SampleId { shard: 3, sample });
                let rows = [Decoding::Exact, Decoding::Fast].map(|decoding| {
                    let mut row = vec![0; settings.bytes()];
                    let choose = |width, height| View::choose(&settings, drawn, width, height);
                    preprocessor.preprocess(&photo, decoding, settings.size(), choose, &mut row).unwrap();
                    row
                });
                let psnr = psnr(&rows[0], &rows[1]);
                assert!(psnr > 30.0, "{settings:?}, sample {sample}: {psnr} dB");
            }
        }
    }

    fn psnr(a: &[u8], b: &[u8]) -> f64 {
        let squares: f64 = a.iter().zip(b).map(|(a, b)| f64::from(a.abs_diff(*b)).powi(2)).sum();
        10.0 * (255.0_f64.powi(2) * a.len() as f64 / squares.max(1e-9)).log10()
    }
}
