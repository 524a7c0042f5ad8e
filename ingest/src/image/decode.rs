//! Header first, pixels later: what a file claims to be is known, and judged, before memory is spent on it.

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
use super::segments::Segments;
use super::{exif, memory};
use crate::sample::Problem;

/// Upright pixels, 8 bits a channel, rows from the top, without padding.
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

/// A picture whose header has been read.
pub(super) struct Header<'a> {
    format: ImageFormat,
    /// As stored.
    size: (u32, u32),
    body: Body<'a>,
    orientation: Orientation,
    exif: Option<Cow<'a, [u8]>>,
}

/// What is left to decode.
enum Body<'a> {
    Jpeg { file: &'a [u8], grey: bool },
    Other(Box<dyn ImageDecoder + 'a>),
}

/// Pixels, and whether they are other than the file's own (turned, or put on white).
pub(super) struct Decoded {
    pub(super) pixels: Pixels,
    pub(super) changed: bool,
}

impl<'a> Header<'a> {
    pub(super) fn read(bytes: &'a [u8], ignore_orientation: bool) -> Result<Self, Problem> {
        let format = format(bytes)?;
        let (body, size, exif) = if format == ImageFormat::Jpeg {
            let Segments { size, grey, exif } = Segments::read(bytes)?;
            (Body::Jpeg { file: bytes, grey }, size, exif.map(Cow::Borrowed))
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
            (Body::Other(decoder), size, exif.map(Cow::Owned))
        };
        if size.0 == 0 || size.1 == 0 {
            return Err(Problem::resize("Image decoding error: no pixels"));
        }
        let mut orientation = Orientation::NoTransforms;
        if !ignore_orientation && let Some(exif) = &exif {
            orientation = Orientation::from_exif_chunk(exif).unwrap_or(orientation);
        }
        Ok(Self { format, size, body, orientation, exif })
    }

    /// Width and height once turned upright.
    pub(super) fn upright_size(&self) -> (u32, u32) {
        self.turned(self.size)
    }

    /// A size as it is on the other side of the turn, in either direction.
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

    /// Decodes; a JPEG that will be shrunk to `least` (upright) may come out smaller than it is, but not smaller than
    /// that.
    pub(super) fn decode(self, least: Option<(u32, u32)>) -> Result<Decoded, Problem> {
        let least = least.map(|least| self.turned(least));
        let mut image = match self.body {
            Body::Jpeg { file, grey } => jpeg(file, self.size, grey, least)?,
            Body::Other(decoder) => DynamicImage::from_decoder(decoder).map_err(undecodable)?,
        };
        image.apply_orientation(self.orientation);
        let alpha = image.color().has_alpha();
        let changed = alpha || self.orientation != Orientation::NoTransforms;
        Ok(Decoded { pixels: pixels(image), changed })
    }
}

/// By the first bytes, whatever the name or content type said.
fn format(bytes: &[u8]) -> Result<ImageFormat, Problem> {
    let says = |what: &str| Err(Problem::resize(format!("Image decoding error: {what}")));
    if bytes.is_empty() {
        return says("0 bytes");
    }
    if bytes.get(4..8) == Some(b"ftyp") {
        return match bytes.get(8..12) {
            Some(b"avif" | b"avis") => says("AVIF is not supported"),
            Some(b"heic" | b"heix" | b"hevc" | b"mif1" | b"msf1") => says("HEIC is not supported"),
            _ => says("a video, not an image"),
        };
    }
    match image::guess_format(bytes) {
        Ok(known @ (ImageFormat::Jpeg | ImageFormat::Png | ImageFormat::WebP | ImageFormat::Gif)) => {
            Ok(known)
        }
        Ok(other) => {
            says(&format!("{} is not supported", other.extensions_str().first().unwrap_or(&"its type")))
        }
        Err(_) => {
            let start = &bytes[..bytes.len().min(512)];
            match start.trim_ascii_start().first() {
                Some(b'<') if start.windows(4).any(|word| word == b"<svg") => says("SVG is not supported"),
                Some(b'<') => says("a web page, not an image"),
                _ => says("not an image"),
            }
        }
    }
}

thread_local! {
    /// Keeps its working memory from picture to picture.
    static JPEG: RefCell<jpeg::Decoder> = RefCell::default();
}

/// libjpeg-turbo's pixels, grey ones as grey.
fn jpeg(
    bytes: &[u8],
    size: (u32, u32),
    grey: bool,
    least: Option<(u32, u32)>,
) -> Result<DynamicImage, Problem> {
    let eighths = least.map_or(8, |least| eighths(size, least));
    let request = jpeg::Request { eighths, ..jpeg::Request::WHOLE };
    let decoded = JPEG.with_borrow_mut(|decoder| decoder.decode(bytes, memory::largest(), |_, _| request));
    let pixels = decoded.map_err(|problem| not_a_jpeg(&problem))?.pixels;
    let (width, height) = pixels.dimensions();
    // The memory may have been longer than the picture.
    let mut pixels = pixels.into_raw();
    pixels.truncate(3 * width as usize * height as usize);
    let missing = || Problem::resize("Image decoding error");
    if !grey {
        return RgbImage::from_raw(width, height, pixels).map(DynamicImage::ImageRgb8).ok_or_else(missing);
    }
    let grey = pixels.iter().step_by(3).copied().collect();
    memory::spend(pixels);
    GrayImage::from_raw(width, height, grey).map(DynamicImage::ImageLuma8).ok_or_else(missing)
}

/// The smallest size, in eighths of the stored one, that is not below `least` on either side. Of the eight only the halves
/// and the whole have vector instructions; the others are slower than decoding all.
fn eighths((width, height): (u32, u32), least: (u32, u32)) -> u32 {
    let enough =
        |eighths: u32| jpeg::scaled(width, eighths) >= least.0 && jpeg::scaled(height, eighths) >= least.1;
    [1, 2, 4].into_iter().find(|&eighths| enough(eighths)).unwrap_or(8)
}

/// Of the library's words the kind of failure.
fn not_a_jpeg(problem: &str) -> Problem {
    let kind = if problem.contains("truncated") || problem.contains("Premature end") {
        ": the file is cut short"
    } else if problem.contains("too large") {
        ": too large"
    } else {
        ": damaged"
    };
    Problem::resize(format!("Image decoding error{kind}"))
}

/// The decoder's own words would make a cause of every file; what kind of failure it is does not.
fn undecodable(error: image::ImageError) -> Problem {
    use image::ImageError::{Decoding, IoError, Limits, Unsupported};
    let kind = match error {
        Unsupported(_) => ": an unsupported variant of its format",
        IoError(source) if source.kind() == std::io::ErrorKind::UnexpectedEof => ": the file is cut short",
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

/// Composes pixels of `N` channels, the last of them alpha, onto white.
fn on_white<const N: usize>(pixels: &[u8]) -> Vec<u8> {
    let (pixels, _) = pixels.as_chunks::<N>();
    let mut out = Vec::with_capacity(pixels.len() * (N - 1));
    for pixel in pixels {
        let alpha = u32::from(pixel[N - 1]);
        for &value in &pixel[..N - 1] {
            // Rounded c * a / 255 + 255 - a.
            out.push((((u32::from(value) * alpha + (255 - alpha) * 255) + 127) / 255) as u8);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jpeg_is_decoded_no_smaller_than_needed() {
        assert_eq!(eighths((640, 480), (341, 256)), 8);
        assert_eq!(eighths((640, 480), (320, 240)), 4);
        assert_eq!(eighths((4000, 3000), (341, 256)), 1);
        assert_eq!(eighths((4000, 3000), (256, 256)), 1);
        assert_eq!(eighths((1600, 1200), (341, 256)), 2);
        // 1001 / 8 is rounded up, as the library does.
        assert_eq!(eighths((1001, 1001), (126, 126)), 1);
        assert_eq!(eighths((10, 10), (16, 16)), 8);
    }
}
