//! Reads the header of an image file first and decodes the pixels later, so that limits are checked before memory is
//! allocated.

use std::cell::RefCell;

use image::metadata::Orientation;
use image::{DynamicImage, GrayImage, RgbImage};
use loader::images::{Format, ImageFile, JPEG_LIMITS, to_rgb, upright};
use loader::{DecodeError, jpeg};

use super::encode::Encoding;
use super::pixels::Pixels;
use super::{buffer_pool, exif};
use crate::problem::Problem;

/// An image file whose header has been read.
pub(super) struct Header<'a> {
    file: ImageFile<'a>,
    orientation: Orientation,
}

/// Pixels, and whether they differ from those of the file (rotated, or blended onto white).
pub(super) struct Decoded {
    pub(super) pixels: Pixels,
    pub(super) changed: bool,
}

impl<'a> Header<'a> {
    pub(super) fn read(bytes: &'a [u8], ignore_orientation: bool) -> Result<Self, Problem> {
        let file = ImageFile::open(bytes).map_err(|error| undecodable(&error))?;
        let orientation = if ignore_orientation { Orientation::NoTransforms } else { file.orientation() };
        Ok(Self { file, orientation })
    }

    /// Width and height after applying the orientation.
    pub(super) fn upright_size(&self) -> (u32, u32) {
        self.turned(self.file.size)
    }

    /// Swaps width and height if the orientation does.
    fn turned(&self, (width, height): (u32, u32)) -> (u32, u32) {
        match self.orientation {
            Orientation::Rotate90
            | Orientation::Rotate270
            | Orientation::Rotate90FlipH
            | Orientation::Rotate270FlipH => (height, width),
            _ => (width, height),
        }
    }

    pub(super) fn is(&self, encoding: Encoding) -> bool {
        match encoding {
            Encoding::Jpg(_) => self.file.format == Format::Jpeg,
            Encoding::Png(_) => self.file.format == Format::Png,
            Encoding::Webp => self.file.format == Format::WebP,
        }
    }

    pub(super) fn exif_json(&self) -> String {
        self.file.exif.as_deref().map_or_else(|| "{}".to_owned(), exif::json)
    }

    /// Decodes the pixels. A JPEG that will be reduced to `min_size` (after applying the orientation) may be decoded at a
    /// reduced size, but not below `min_size`.
    pub(super) fn decode(self, min_size: Option<(u32, u32)>) -> Result<Decoded, Problem> {
        let min_size = min_size.map(|size| self.turned(size));
        let image = match self.file.jpeg() {
            Some(bytes) => jpeg(bytes, self.file.size, self.file.grey_jpeg, min_size),
            None => self.file.decode(),
        }
        .and_then(|image| upright(image, self.orientation))
        .map_err(|error| undecodable(&error))?;
        let alpha = image.color().has_alpha();
        let changed = alpha || self.orientation != Orientation::NoTransforms;
        let pixels = pixels(image).map_err(|error| undecodable(&error))?;
        Ok(Decoded { pixels, changed })
    }
}

thread_local! {
    /// Reused, because it keeps its working memory.
    static JPEG: RefCell<jpeg::Decoder> = RefCell::new(jpeg::Decoder::new(JPEG_LIMITS));
}

/// Decodes a JPEG with libjpeg-turbo; a grey image gets one channel.
fn jpeg(
    bytes: &[u8],
    size: (u32, u32),
    grey: bool,
    min_size: Option<(u32, u32)>,
) -> Result<DynamicImage, DecodeError> {
    let eighths = min_size.map_or(8, |min_size| eighths(size, min_size));
    let request = jpeg::Request { eighths, ..jpeg::Request::WHOLE };
    let decoded =
        JPEG.with_borrow_mut(|decoder| decoder.decode(bytes, buffer_pool::take_largest(), |_, _| request))?;
    let (width, height) = decoded.size;
    // The reused buffer may be longer than the image.
    let mut pixels = decoded.pixels;
    pixels.truncate(3 * width as usize * height as usize);
    let missing = || DecodeError::Damaged("the pixels have an unexpected size".to_owned());
    if !grey {
        return RgbImage::from_raw(width, height, pixels).map(DynamicImage::ImageRgb8).ok_or_else(missing);
    }
    let mut one = buffer_pool::with_room(pixels.len() / 3)?;
    one.extend(pixels.iter().step_by(3));
    buffer_pool::recycle(pixels);
    GrayImage::from_raw(width, height, one).map(DynamicImage::ImageLuma8).ok_or_else(missing)
}

/// The smallest scale, in eighths of the stored size, at which neither side is below `min_size`. Only 1/8, 1/4, 1/2 and 1
/// are used: the decoder has no SIMD code for the others, which makes them slower than decoding at full size.
fn eighths((width, height): (u32, u32), min_size: (u32, u32)) -> u32 {
    let enough = |eighths: u32| {
        jpeg::scaled(width, eighths) >= min_size.0 && jpeg::scaled(height, eighths) >= min_size.1
    };
    [1, 2, 4].into_iter().find(|&eighths| enough(eighths)).unwrap_or(8)
}

/// The kind of failure. The decoder's own messages contain details, so that they could not be counted by cause.
pub(super) fn undecodable(error: &DecodeError) -> Problem {
    Problem::resize(format!("Image decoding error: {}", error.kind()))
}

fn pixels(image: DynamicImage) -> Result<Pixels, DecodeError> {
    let (width, height) = (image.width(), image.height());
    let (channels, data) = match image {
        DynamicImage::ImageLuma8(grey) => (1, grey.into_raw()),
        DynamicImage::ImageLumaA8(grey) => (1, on_white::<2>(grey.into_raw())),
        DynamicImage::ImageRgba8(rgba) => (3, on_white::<4>(rgba.into_raw())),
        image => (3, to_rgb(image)?.into_raw()),
    };
    Ok(Pixels { width, height, channels, data })
}

/// Blends pixels of `N` channels, the last of them alpha, onto white, in the same memory.
fn on_white<const N: usize>(mut pixels: Vec<u8>) -> Vec<u8> {
    let count = pixels.len() / N;
    for pixel in 0..count {
        let alpha = u32::from(pixels[N * pixel + N - 1]);
        for channel in 0..N - 1 {
            let value = u32::from(pixels[N * pixel + channel]);
            // c * a / 255 + 255 - a, rounded.
            pixels[(N - 1) * pixel + channel] = ((value * alpha + (255 - alpha) * 255 + 127) / 255) as u8;
        }
    }
    pixels.truncate((N - 1) * count);
    pixels
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jpeg_is_not_decoded_below_the_target_size() {
        assert_eq!(eighths((640, 480), (341, 256)), 8);
        assert_eq!(eighths((640, 480), (320, 240)), 4);
        assert_eq!(eighths((4000, 3000), (341, 256)), 1);
        assert_eq!(eighths((4000, 3000), (256, 256)), 1);
        assert_eq!(eighths((1600, 1200), (341, 256)), 2);
        // 1001 / 8 is rounded up, as in libjpeg-turbo.
        assert_eq!(eighths((1001, 1001), (126, 126)), 1);
        assert_eq!(eighths((10, 10), (16, 16)), 8);
    }
}
