//! Reads the header of an image file first and decodes the pixels later, so that limits are checked before memory is
//! allocated.

use std::borrow::Cow;
use std::cell::RefCell;
use std::io::Cursor;

use image::codecs::gif::GifDecoder;
use image::codecs::png::PngDecoder;
use image::codecs::webp::WebPDecoder;
use image::metadata::Orientation;
use image::{DynamicImage, GrayImage, ImageDecoder, ImageFormat, Limits, RgbImage};
use loader::jpeg;

use super::encode::Encoding;
use super::segments::{EXIF_PREFIX, Segments};
use super::{buffer_pool, exif};
use crate::sample::Problem;

/// Pixels with 8 bits per channel, rows from the top, without padding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pixels {
    /// Columns.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// 1 (grey) or 3 (RGB).
    pub channels: usize,
    /// `height * width * channels` values.
    pub data: Vec<u8>,
}

/// An image file whose header has been read.
pub(super) struct Header<'a> {
    format: ImageFormat,
    /// Width and height as stored, before applying the orientation.
    size: (u32, u32),
    data: Encoded<'a>,
    orientation: Orientation,
    exif: Option<Cow<'a, [u8]>>,
}

/// The pixels to decode.
enum Encoded<'a> {
    Jpeg { file: &'a [u8], grey: bool },
    Other(Box<dyn ImageDecoder + 'a>),
}

/// Pixels, and whether they differ from those of the file (rotated, or blended onto white).
pub(super) struct Decoded {
    pub(super) pixels: Pixels,
    pub(super) changed: bool,
}

impl<'a> Header<'a> {
    pub(super) fn read(bytes: &'a [u8], ignore_orientation: bool) -> Result<Self, Problem> {
        let format = format(bytes)?;
        let (data, size, exif) = if format == ImageFormat::Jpeg {
            let Segments { size, grey, exif } = Segments::read(bytes)?;
            (Encoded::Jpeg { file: bytes, grey }, size, exif.map(Cow::Borrowed))
        } else {
            let file = Cursor::new(bytes);
            let mut decoder: Box<dyn ImageDecoder + 'a> = match format {
                ImageFormat::Png => {
                    Box::new(PngDecoder::with_limits(file, Limits::no_limits()).map_err(undecodable)?)
                }
                ImageFormat::WebP => Box::new(WebPDecoder::new(file).map_err(undecodable)?),
                _ => Box::new(GifDecoder::new(file).map_err(undecodable)?),
            };
            let (size, exif) = (decoder.dimensions(), decoder.exif_metadata().ok().flatten());
            (Encoded::Other(decoder), size, exif.map(Cow::Owned))
        };
        if size.0 == 0 || size.1 == 0 {
            return Err(Problem::resize("Image decoding error: the image has no pixels"));
        }
        // In some WebP and PNG files the block has the prefix that it has in a JPEG.
        let exif = exif.map(|exif| match exif {
            Cow::Owned(block) if block.starts_with(EXIF_PREFIX) => {
                Cow::Owned(block[EXIF_PREFIX.len()..].to_vec())
            }
            block => block,
        });
        let mut orientation = Orientation::NoTransforms;
        if !ignore_orientation && let Some(exif) = &exif {
            orientation = Orientation::from_exif_chunk(exif).unwrap_or(orientation);
        }
        Ok(Self { format, size, data, orientation, exif })
    }

    /// Width and height after applying the orientation.
    pub(super) fn upright_size(&self) -> (u32, u32) {
        self.turned(self.size)
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
            Encoding::Jpg(_) => self.format == ImageFormat::Jpeg,
            Encoding::Png(_) => self.format == ImageFormat::Png,
            Encoding::Webp => self.format == ImageFormat::WebP,
        }
    }

    pub(super) fn exif_json(&self) -> String {
        self.exif.as_deref().map_or_else(|| "{}".to_owned(), exif::json)
    }

    /// Decodes the pixels. A JPEG that will be reduced to `min_size` (after applying the orientation) may be decoded at a
    /// reduced size, but not below `min_size`.
    pub(super) fn decode(self, min_size: Option<(u32, u32)>) -> Result<Decoded, Problem> {
        let min_size = min_size.map(|size| self.turned(size));
        let mut image = match self.data {
            Encoded::Jpeg { file, grey } => jpeg(file, self.size, grey, min_size)?,
            Encoded::Other(decoder) => DynamicImage::from_decoder(decoder).map_err(undecodable)?,
        };
        image.apply_orientation(self.orientation);
        let alpha = image.color().has_alpha();
        let changed = alpha || self.orientation != Orientation::NoTransforms;
        Ok(Decoded { pixels: pixels(image), changed })
    }
}

/// Detects the format from the first bytes, ignoring the file name and content type.
fn format(bytes: &[u8]) -> Result<ImageFormat, Problem> {
    let fail = |what: &str| Err(Problem::resize(format!("Image decoding error: {what}")));
    if bytes.is_empty() {
        return fail("0 bytes");
    }
    if bytes.get(4..8) == Some(b"ftyp") {
        return match bytes.get(8..12) {
            Some(b"avif" | b"avis") => fail("AVIF is not supported"),
            Some(b"heic" | b"heix" | b"hevc" | b"mif1" | b"msf1") => fail("HEIC is not supported"),
            _ => fail("a video, not an image"),
        };
    }
    match image::guess_format(bytes) {
        Ok(known @ (ImageFormat::Jpeg | ImageFormat::Png | ImageFormat::WebP | ImageFormat::Gif)) => {
            Ok(known)
        }
        Ok(other) => {
            fail(&format!("{} is not supported", other.extensions_str().first().unwrap_or(&"its type")))
        }
        Err(_) => {
            let start = &bytes[..bytes.len().min(512)];
            match start.trim_ascii_start().first() {
                Some(b'<') if start.windows(4).any(|word| word == b"<svg") => fail("SVG is not supported"),
                Some(b'<') => fail("a web page, not an image"),
                _ => fail("not an image"),
            }
        }
    }
}

thread_local! {
    /// Reused, because it keeps its working memory.
    static JPEG: RefCell<jpeg::Decoder> = RefCell::default();
}

/// Decodes a JPEG with libjpeg-turbo; a grey image gets one channel.
fn jpeg(
    bytes: &[u8],
    size: (u32, u32),
    grey: bool,
    min_size: Option<(u32, u32)>,
) -> Result<DynamicImage, Problem> {
    let eighths = min_size.map_or(8, |min_size| eighths(size, min_size));
    let request = jpeg::Request { eighths, ..jpeg::Request::WHOLE };
    let decoded =
        JPEG.with_borrow_mut(|decoder| decoder.decode(bytes, buffer_pool::take_largest(), |_, _| request));
    let pixels = decoded.map_err(|problem| not_a_jpeg(&problem))?.pixels;
    let (width, height) = pixels.dimensions();
    // The reused buffer may be longer than the image.
    let mut pixels = pixels.into_raw();
    pixels.truncate(3 * width as usize * height as usize);
    let missing = || Problem::resize("Image decoding error");
    if !grey {
        return RgbImage::from_raw(width, height, pixels).map(DynamicImage::ImageRgb8).ok_or_else(missing);
    }
    let grey = pixels.iter().step_by(3).copied().collect();
    buffer_pool::recycle(pixels);
    GrayImage::from_raw(width, height, grey).map(DynamicImage::ImageLuma8).ok_or_else(missing)
}

/// The smallest scale, in eighths of the stored size, at which neither side is below `min_size`. Only 1/8, 1/4, 1/2 and 1
/// are used: the decoder has no SIMD code for the others, which makes them slower than decoding at full size.
fn eighths((width, height): (u32, u32), min_size: (u32, u32)) -> u32 {
    let enough = |eighths: u32| {
        jpeg::scaled(width, eighths) >= min_size.0 && jpeg::scaled(height, eighths) >= min_size.1
    };
    [1, 2, 4].into_iter().find(|&eighths| enough(eighths)).unwrap_or(8)
}

/// The kind of failure, from the library's message.
fn not_a_jpeg(problem: &str) -> Problem {
    let kind = if problem.contains("truncated") || problem.contains("Premature end") {
        ": the file is truncated"
    } else if problem.contains("too large") {
        ": too large"
    } else {
        ": damaged"
    };
    Problem::resize(format!("Image decoding error{kind}"))
}

/// The kind of failure. The decoder's own messages contain details, so that they could not be counted by cause.
fn undecodable(error: image::ImageError) -> Problem {
    use image::ImageError::{Decoding, IoError, Limits, Unsupported};
    let kind = match error {
        Unsupported(_) => ": unsupported variant of the file format",
        IoError(source) if source.kind() == std::io::ErrorKind::UnexpectedEof => ": the file is truncated",
        Limits(_) => ": too large",
        Decoding(_) => ": damaged",
        _ => "",
    };
    Problem::resize(format!("Image decoding error{kind}"))
}

fn pixels(image: DynamicImage) -> Pixels {
    let (width, height) = (image.width(), image.height());
    let (channels, data) = match image {
        DynamicImage::ImageLuma8(grey) => (1, grey.into_raw()),
        DynamicImage::ImageRgb8(rgb) => (3, rgb.into_raw()),
        DynamicImage::ImageLuma16(_) => (1, image.into_luma8().into_raw()),
        DynamicImage::ImageLumaA8(_) | DynamicImage::ImageLumaA16(_) => {
            (1, on_white::<2>(&image.into_luma_alpha8().into_raw()))
        }
        image if image.color().has_alpha() => (3, on_white::<4>(&image.into_rgba8().into_raw())),
        image => (3, image.into_rgb8().into_raw()),
    };
    Pixels { width, height, channels, data }
}

/// Blends pixels of `N` channels, the last of them alpha, onto white.
fn on_white<const N: usize>(pixels: &[u8]) -> Vec<u8> {
    let (pixels, _) = pixels.as_chunks::<N>();
    let mut out = Vec::with_capacity(pixels.len() * (N - 1));
    for pixel in pixels {
        let alpha = u32::from(pixel[N - 1]);
        for &value in &pixel[..N - 1] {
            // c * a / 255 + 255 - a, rounded.
            out.push((((u32::from(value) * alpha + (255 - alpha) * 255) + 127) / 255) as u8);
        }
    }
    out
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
