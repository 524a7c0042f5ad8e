//! The file formats of images ([`crate::images`]). What is not read is refused by name.

mod pixels;
mod segments;
mod webp;

use std::borrow::Cow;
use std::io::Cursor;

use image::codecs::bmp::BmpDecoder;
use image::codecs::gif::GifDecoder;
use image::codecs::png::PngDecoder;
use image::codecs::tiff::TiffDecoder;
use image::codecs::webp::WebPDecoder;
use image::metadata::Orientation;
use image::{ColorType, DynamicImage, GrayAlphaImage, GrayImage, ImageDecoder, Limits, RgbImage, RgbaImage};

use self::pixels::to_8_bits;
pub use self::pixels::{to_rgb, upright};
use self::segments::Segments;
use crate::budget::{self, MAX_MEMORY};
use crate::decode_error::DecodeError;

/// Extensions of image files, in lower case: those that are read.
pub const EXTENSIONS: [&str; 11] =
    ["jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff", "jpe", "jfif", "dib"];

/// Extensions of image files that are not read; a file with one is an image that fails, not a file that is passed over.
pub const UNREAD_EXTENSIONS: [&str; 8] = ["avif", "heic", "heif", "jp2", "j2k", "jpx", "jpf", "jxl"];

/// A file format of images.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Format {
    /// JPEG, baseline or progressive.
    Jpeg,
    /// PNG; of an animated one the still image.
    Png,
    /// WebP; of an animated one the first frame.
    WebP,
    /// GIF, the first frame.
    Gif,
    /// Windows bitmap.
    Bmp,
    /// TIFF, the first page; not with JPEG inside.
    Tiff,
}

impl Format {
    /// The format of a file, from its first bytes.
    ///
    /// # Errors
    /// It is not an image, or of a format that is not read.
    pub fn of(file: &[u8]) -> Result<Self, DecodeError> {
        Ok(match file {
            [] => return Err(DecodeError::Empty),
            _ if file.starts_with(&jpeg::START) => Self::Jpeg,
            _ if file.starts_with(b"\x89PNG\r\n\x1a\n") => Self::Png,
            [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Self::WebP,
            _ if file.starts_with(b"GIF87a") || file.starts_with(b"GIF89a") => Self::Gif,
            // A text may begin with these two letters. The length of the second header is at least 12.
            [b'B', b'M', _, _, _, _, _, _, _, _, _, _, _, _, 12..=124, 0, 0, 0, ..] => Self::Bmp,
            _ if file.starts_with(b"II*\0") || file.starts_with(b"MM\0*") => Self::Tiff,
            _ => return Err(unread(file)),
        })
    }

    /// Its media type.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Jpeg => "image/jpeg",
            Self::Png => "image/png",
            Self::WebP => "image/webp",
            Self::Gif => "image/gif",
            Self::Bmp => "image/bmp",
            Self::Tiff => "image/tiff",
        }
    }
}

/// What a file is that is no image that can be read.
fn unread(file: &[u8]) -> DecodeError {
    if file.get(4..8) == Some(b"ftyp") {
        // The box's length, "ftyp", the main brand, a version, and the brands that it is compatible with.
        let length = u32::from_be_bytes([file[0], file[1], file[2], file[3]]) as usize;
        let brands = file.get(8..length.clamp(12, 256).min(file.len())).unwrap_or_default();
        let has = |names: &[&[u8]]| brands.as_chunks::<4>().0.iter().any(|brand| names.contains(&&brand[..]));
        return if has(&[b"avif", b"avis"]) {
            DecodeError::Unsupported("AVIF")
        } else if has(&[b"heic", b"heix", b"hevc", b"heim", b"mif1", b"msf1"]) {
            DecodeError::Unsupported("HEIC")
        } else {
            DecodeError::Video
        };
    }
    const NAMED: [(&[u8], &str); 13] = [
        (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
        (b"\xff\x4f\xff\x51", "JPEG 2000"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
        (b"\xff\x0a", "JPEG XL"),
        (b"\0\0\x01\0", "ICO"),
        (b"8BPS", "PSD"),
        (b"II+\0", "BigTIFF"),
        (b"MM\0+", "BigTIFF"),
        (b"II\xbc", "JPEG XR"),
        (b"%PDF", "PDF"),
        (b"DDS ", "DDS"),
        (b"#?RADIANCE", "Radiance HDR"),
        (b"\x76\x2f\x31\x01", "OpenEXR"),
    ];
    if let Some((_, name)) = NAMED.iter().find(|(start, _)| file.starts_with(start)) {
        return DecodeError::Unsupported(name);
    }
    let start = &file[..file.len().min(512)];
    match start.trim_ascii_start().first() {
        Some(b'<') if start.windows(4).any(|word| word == b"<svg") => DecodeError::Unsupported("SVG"),
        Some(b'<') => DecodeError::WebPage,
        _ => DecodeError::NotAnImage,
    }
}

/// Width and height of an image as stored, from the first bytes of its file.
///
/// # Errors
/// As [`ImageFile::open`]; also if the size is not in these bytes.
pub fn size(start: &[u8]) -> Result<(u32, u32), DecodeError> {
    match Format::of(start)? {
        Format::Jpeg => Segments::size(start),
        _ => ImageFile::open(start).map(|file| file.size),
    }
}

/// An image file whose header has been read; its pixels have not.
#[non_exhaustive]
pub struct ImageFile<'a> {
    /// Its format.
    pub format: Format,
    /// Width and height as stored, before the orientation is applied.
    pub size: (u32, u32),
    /// Whether it is a JPEG of one channel.
    pub grey_jpeg: bool,
    /// The EXIF block, from its TIFF header on. The block of a TIFF is the file itself.
    pub exif: Option<Cow<'a, [u8]>>,
    pixels: Encoded<'a>,
}

enum Encoded<'a> {
    Jpeg(&'a [u8]),
    /// With the decoder's own memory per pixel, besides its output.
    Other(Box<dyn ImageDecoder + 'a>, u64),
}

impl std::fmt::Debug for ImageFile<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ImageFile")
            .field("format", &self.format)
            .field("size", &self.size)
            .finish_non_exhaustive()
    }
}

/// What comes before the EXIF block in a JPEG, and in some WebP and PNG files.
const EXIF_PREFIX: &[u8] = b"Exif\0\0";

impl<'a> ImageFile<'a> {
    /// Reads the header.
    ///
    /// # Errors
    /// This is not an image of a known format, or its header is damaged.
    pub fn open(file: &'a [u8]) -> Result<Self, DecodeError> {
        let format = Format::of(file)?;
        let mut grey_jpeg = false;
        let (pixels, size, exif) = if format == Format::Jpeg {
            let Segments { size, grey, exif } = Segments::read(file)?;
            grey_jpeg = grey;
            (Encoded::Jpeg(file), size, exif.map(Cow::Borrowed))
        } else {
            let (decoder, working, exif) = other(format, file)?;
            let size = decoder.dimensions();
            (Encoded::Other(decoder, working), size, exif)
        };
        if size.0 == 0 || size.1 == 0 {
            return Err(DecodeError::NoPixels);
        }
        let exif = exif.map(|exif| match exif {
            Cow::Owned(block) if block.starts_with(EXIF_PREFIX) => {
                Cow::Owned(block[EXIF_PREFIX.len()..].to_vec())
            }
            Cow::Borrowed(block) => Cow::Borrowed(block.strip_prefix(EXIF_PREFIX).unwrap_or(block)),
            block @ Cow::Owned(_) => block,
        });
        Ok(Self { format, size, grey_jpeg, exif, pixels })
    }

    /// How the pixels must be turned to stand upright, from the EXIF block.
    pub fn orientation(&self) -> Orientation {
        let found = self.exif.as_deref().and_then(Orientation::from_exif_chunk);
        found.unwrap_or(Orientation::NoTransforms)
    }

    /// The bytes of the file, if it is a JPEG.
    pub fn jpeg(&self) -> Option<&'a [u8]> {
        match self.pixels {
            Encoded::Jpeg(file) => Some(file),
            Encoded::Other(..) => None,
        }
    }

    /// Decodes the pixels to 8 bits per channel: grey, RGB, or one of them with transparency.
    ///
    /// # Errors
    /// The file is damaged, or it is over the budget.
    pub fn decode(self) -> Result<DynamicImage, DecodeError> {
        let (width, height) = self.size;
        budget::check_size(width, height)?;
        let (mut decoder, working) = match self.pixels {
            Encoded::Jpeg(file) => {
                return decode_jpeg(file).map(DynamicImage::ImageRgb8);
            }
            Encoded::Other(decoder, working) => (decoder, working),
        };
        let pixels = u64::from(width) * u64::from(height);
        // Three more bytes per pixel, because it may be converted to RGB.
        budget::check_memory(decoder.total_bytes().saturating_add(pixels * (working + 3)))?;
        let mut limits = Limits::no_limits();
        limits.max_alloc = Some(MAX_MEMORY - decoder.total_bytes());
        decoder.set_limits(limits).map_err(DecodeError::of)?;
        let kind = decoder.color_type();
        let mut data = Vec::new();
        budget::lengthen(
            &mut data,
            usize::try_from(decoder.total_bytes()).map_err(|_| DecodeError::Memory)?,
        )?;
        decoder.read_image_boxed(&mut data).map_err(DecodeError::of)?;
        let image = match kind {
            ColorType::L8 | ColorType::L16 => {
                GrayImage::from_raw(width, height, to_8_bits(kind, data)).map(DynamicImage::ImageLuma8)
            }
            ColorType::La8 | ColorType::La16 => {
                GrayAlphaImage::from_raw(width, height, to_8_bits(kind, data)).map(DynamicImage::ImageLumaA8)
            }
            ColorType::Rgb8 | ColorType::Rgb16 => {
                RgbImage::from_raw(width, height, to_8_bits(kind, data)).map(DynamicImage::ImageRgb8)
            }
            ColorType::Rgba8 | ColorType::Rgba16 => {
                RgbaImage::from_raw(width, height, to_8_bits(kind, data)).map(DynamicImage::ImageRgba8)
            }
            // Floating-point numbers have no agreed range.
            _ => return Err(DecodeError::Variant),
        };
        image.ok_or_else(|| DecodeError::Damaged("the pixels have an unexpected size".to_owned()))
    }
}

/// All pixels of a JPEG.
pub(crate) fn decode_jpeg(file: &[u8]) -> Result<RgbImage, DecodeError> {
    let decoded =
        jpeg::Decoder::new(budget::JPEG_LIMITS).decode(file, Vec::new(), |_, _| jpeg::Request::WHOLE)?;
    RgbImage::from_raw(decoded.area.width, decoded.area.height, decoded.pixels).ok_or(DecodeError::Memory)
}

/// The decoder of a file that is no JPEG, the memory per pixel that it takes besides its output, and the EXIF block.
#[allow(clippy::type_complexity)]
fn other<'a>(
    format: Format,
    file: &'a [u8],
) -> Result<(Box<dyn ImageDecoder + 'a>, u64, Option<Cow<'a, [u8]>>), DecodeError> {
    let reader = Cursor::new(file);
    Ok(match format {
        Format::Png => {
            // For what is not pixels: chunks of the file, and the colour profile, which is compressed. A profile that takes
            // more is left out; nothing reads it.
            let mut limits = Limits::no_limits();
            limits.max_alloc = Some(4 * file.len() as u64 + (16 << 20));
            let mut decoder = PngDecoder::with_limits(reader, limits).map_err(DecodeError::of)?;
            let exif = decoder.exif_metadata().ok().flatten().map(Cow::Owned);
            (Box::new(decoder), 0, exif)
        }
        Format::WebP => {
            let decoder = WebPDecoder::new(reader).map_err(DecodeError::of)?;
            // A canvas, and a frame with its luma, chroma and transparency.
            (Box::new(decoder), 10, webp::exif(file).map(Cow::Borrowed))
        }
        // The first frame may be larger than the image; the decoder compares it with the limit.
        Format::Gif => (Box::new(GifDecoder::new(reader).map_err(DecodeError::of)?), 0, None),
        Format::Bmp => (Box::new(BmpDecoder::new(reader).map_err(DecodeError::of)?), 0, None),
        _ => {
            refuse_jpeg_in_tiff(file)?;
            let decoder = TiffDecoder::new(reader).map_err(DecodeError::of)?;
            // Decoded once more inside.
            let again = u64::from(decoder.color_type().bytes_per_pixel()).max(4);
            (Box::new(decoder), again, Some(Cow::Borrowed(file)))
        }
    })
}

/// The scans of a JPEG inside a TIFF could not be counted.
fn refuse_jpeg_in_tiff(file: &[u8]) -> Result<(), DecodeError> {
    /// "Compression", and its values for the old and the new kind of JPEG.
    const COMPRESSION: u16 = 259;
    const JPEG: [u16; 2] = [6, 7];
    let little = file.starts_with(b"II");
    let number = |at: usize| {
        let bytes = file.get(at..at.checked_add(2)?)?.try_into().ok()?;
        Some(if little { u16::from_le_bytes(bytes) } else { u16::from_be_bytes(bytes) })
    };
    let (Some(low), Some(high)) = (number(if little { 4 } else { 6 }), number(if little { 6 } else { 4 }))
    else {
        return Err(DecodeError::Truncated);
    };
    let first = (usize::from(high) << 16) + usize::from(low);
    for entry in 0..usize::from(number(first).ok_or(DecodeError::Truncated)?) {
        let at = first + 2 + 12 * entry;
        if number(at) == Some(COMPRESSION) && number(at + 8).is_some_and(|kind| JPEG.contains(&kind)) {
            return Err(DecodeError::Unsupported("TIFF with JPEG inside"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
