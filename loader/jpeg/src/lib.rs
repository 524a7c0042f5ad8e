//! JPEG by libjpeg-turbo: decodes a whole image or a region of it, at full size or at a number of eighths of it, and
//! encodes.
//!
//! A full decode gives the pixels of Pillow, which uses the same library. A region costs little more than its share of
//! the image: rows below it are not decoded; of the rows above it and the columns next to it only the Huffman codes
//! are. Scaling is done in the frequency domain: at 4/8, each block of 8 x 8 pixels is decoded to 4 x 4 from its lower
//! frequencies. Huffman decoding, which is most of the work and where most bytes of a file are read, is done by safe Rust
//! code instead of the library (`entropy.rs`).
//!
//! The library fills missing data of a damaged file with grey, so a run would train on half images. Here, damage that
//! the decoder encounters is an error, and so is a file without an end-of-image marker. (If only a region is decoded,
//! damage outside it may go unnoticed.) What a file may cost is limited by the caller.
//!
//! ```
//! use jpeg::{Area, Decoder, Limits, Request};
//!
//! # fn main() -> Result<(), jpeg::Error> {
//! let file = jpeg::encode(&[200; 64 * 48 * 3], 64, 48, 90)?;
//!
//! // Files of up to 100 million pixels, 1 GiB of memory, and ten visits of every pixel.
//! let limits = Limits { pixels: 100_000_000, memory: 1 << 30, work: 3_000_000_000, scans: 100 };
//! let mut decoder = Decoder::new(limits);
//! // The right half of the image, at half its size.
//! let decoded = decoder.decode(&file, Vec::new(), |width, height| Request {
//!     eighths: 4,
//!     area: Some(Area { left: width / 4, top: 0, width: width / 4, height: height / 2 }),
//!     ..Request::WHOLE
//! })?;
//! assert_eq!(decoded.size, (32, 24));
//! // Some columns more than asked for.
//! assert_eq!((decoded.area.left, decoded.area.width), (8, 24));
//! assert_eq!(decoded.pixels, [200; 24 * 24 * 3]);
//! # Ok(())
//! # }
//! ```

mod bits;
mod codes;
mod entropy;
#[cfg(test)]
mod entropy_test;
mod error;
mod ffi;

pub use self::error::Error;
use self::ffi::Codec;

/// The first bytes of a JPEG: the start-of-image marker and the first byte of the next marker.
pub const START: [u8; 3] = [0xFF, 0xD8, 0xFF];

/// Maximum side of an image that libjpeg can encode, pixels.
const MAX_ENCODED_SIDE: u32 = 65_500;

/// How much one file may cost. They count bytes and work, not seconds, so that the same file is decoded or refused on every
/// machine; the whole image counts even if only a region of it is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Pixels of the stored image.
    pub pixels: u64,
    /// Bytes: the pixels, and the coefficients that are kept until all scans are read.
    pub memory: u64,
    /// Samples that all scans visit together; a pixel has up to four.
    pub work: u64,
    /// Scans. Each costs a pass over the image, so a small malicious file could otherwise take hours.
    pub scans: u32,
}

/// A decoder; its working memory is reused from image to image.
#[derive(Debug)]
pub struct Decoder {
    limits: Limits,
    codec: Option<Codec>,
    /// Rows of CMYK pixels, before they are converted to RGB.
    cmyk: Vec<u8>,
}

/// A region of an image, in pixels of the (scaled) image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Area {
    /// First column.
    pub left: u32,
    /// First row.
    pub top: u32,
    /// Columns, at least 1.
    pub width: u32,
    /// Rows, at least 1.
    pub height: u32,
}

/// What to decode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// Size of the decoded image in eighths of the stored one, rounded up: 1 to 8. 8, 4, 2 and 1 are fast; the others
    /// have no SIMD code.
    pub eighths: u32,
    /// Region of the scaled image; `None` for all of it.
    pub area: Option<Area>,
    /// Whether rounding may be coarser and chroma may be repeated instead of interpolated: a little faster, but the
    /// pixels differ from Pillow's.
    pub coarse: bool,
}

impl Request {
    /// The whole image at full size.
    pub const WHOLE: Self = Self { eighths: 8, area: None, coarse: false };
}

/// A decoded JPEG.
#[derive(Debug)]
pub struct Decoded {
    /// RGB, `area.height` rows of `area.width` pixels of 3 bytes. Longer if `buffer` was.
    pub pixels: Vec<u8>,
    /// The region of the scaled image that `pixels` shows. May have more columns than the requested one, because blocks are
    /// decoded as a whole.
    pub area: Area,
    /// Width and height of the scaled image.
    pub size: (u32, u32),
}

impl Decoder {
    /// A decoder of files within these limits. Its memory is allocated by the first file.
    pub fn new(limits: Limits) -> Self {
        Self { limits, codec: None, cmyk: Vec::new() }
    }

    /// Decodes what `choose` asks for; `choose` gets the stored width and height. Greyscale and CMYK become RGB as in
    /// Pillow; EXIF orientation is not applied. The memory of `buffer` is reused for the pixels.
    ///
    /// # Errors
    /// This is not a complete JPEG, it is over the limits, the region is outside the image, or there is not enough memory.
    pub fn decode(
        &mut self,
        file: &[u8],
        buffer: Vec<u8>,
        choose: impl FnOnce(u32, u32) -> Request,
    ) -> Result<Decoded, Error> {
        if !ends(file) {
            return Err(Error::Truncated);
        }
        if self.codec.is_none() {
            self.codec = Codec::new(self.limits);
        }
        let codec = self.codec.as_mut().ok_or(Error::Memory)?;
        let opened = codec.open(file)?;
        let [width, height] = opened.size();
        if u64::from(width) * u64::from(height) > self.limits.pixels {
            return Err(Error::TooManyPixels { width, height });
        }
        let request = choose(width, height);
        let eighths = request.eighths.clamp(1, 8);
        let area = request.area.unwrap_or_else(|| Area {
            left: 0,
            top: 0,
            width: scaled(width, eighths),
            height: scaled(height, eighths),
        });
        let started =
            opened.start(eighths, request.coarse, [area.left, area.top, area.width, area.height])?;
        let [left, top, width, height] = started.area();
        let size = started.size().into();
        let mut pixels = buffer;
        let bytes = started.bytes();
        if started.channels() == 3 {
            // If the last image was larger, the buffer is long enough already.
            lengthen(&mut pixels, bytes)?;
            started.read(&mut pixels[..bytes])?;
        } else {
            lengthen(&mut self.cmyk, bytes)?;
            pixels.clear();
            pixels.try_reserve_exact(bytes / 4 * 3).map_err(|_| Error::Memory)?;
            started.read(&mut self.cmyk[..bytes])?;
            pixels.extend(self.cmyk[..bytes].as_chunks::<4>().0.iter().flat_map(|&cmyk| from_cmyk(cmyk)));
        }
        Ok(Decoded { pixels, area: Area { left, top, width, height }, size })
    }
}

/// Encodes 8-bit pixels as libjpeg-turbo does by default. `pixels` is `width` x `height` x 3 (RGB, encoded with 4:2:0
/// chroma subsampling) or `width` x `height` x 1 (greyscale). `quality` is 1 to 100.
///
/// # Errors
/// A side is 0 or more than 65,500 pixels, `pixels` has the wrong length, or there is not enough memory.
pub fn encode(pixels: &[u8], width: u32, height: u32, quality: u8) -> Result<Vec<u8>, Error> {
    let sides = 1..=MAX_ENCODED_SIDE;
    let area = u64::from(width) * u64::from(height);
    let channels = pixels.len() as u64 / area.max(1);
    if !sides.contains(&width)
        || !sides.contains(&height)
        || ![1, 3].contains(&channels)
        || channels * area != pixels.len() as u64
    {
        return Err(Error::Unencodable { bytes: pixels.len(), width, height });
    }
    ffi::encode(pixels, width, height, channels as u32, quality.clamp(1, 100))
}

/// Whether SIMD code is used. It needs `nasm` at build time and is faster.
pub fn vectorised() -> bool {
    ffi::vectorised()
}

/// The length of a side of an image that is scaled to `eighths` / 8.
pub fn scaled(side: u32, eighths: u32) -> u32 {
    (u64::from(side) * u64::from(eighths)).div_ceil(8) as u32
}

/// Makes a buffer at least `length` bytes long. That there is no memory left is a failure of this image, not of the program.
fn lengthen(buffer: &mut Vec<u8>, length: usize) -> Result<(), Error> {
    if buffer.len() < length {
        buffer.try_reserve_exact(length - buffer.len()).map_err(|_| Error::Memory)?;
        buffer.resize(length, 0);
    }
    Ok(())
}

/// Pillow's conversion from CMYK to RGB. The values are stored inverted, as 255 minus the ink, whether or not the file has
/// Adobe's marker, which says so.
fn from_cmyk(stored: [u8; 4]) -> [u8; 3] {
    let [cyan, magenta, yellow, white] = stored;
    [cyan, magenta, yellow].map(|value| white - multiply(255 - value, white))
}

/// a b / 255, rounded.
fn multiply(a: u8, b: u8) -> u8 {
    ((u32::from(a) * u32::from(b) + 127) / 255) as u8
}

/// Whether a JPEG has its end-of-image marker after the image data.
fn ends(jpeg: &[u8]) -> bool {
    const START_OF_SCAN: u8 = 0xDA;
    const END_OF_IMAGE: [u8; 2] = [0xFF, 0xD9];
    // Skip from segment to segment up to the image data, because a thumbnail inside a segment has its own end marker.
    // If the segments cannot be followed, the decoder reports the damage.
    let Some(mut rest) = jpeg.get(2..) else { return false };
    while let [0xFF, marker, high, low, ..] = *rest {
        if marker == START_OF_SCAN {
            break;
        }
        let length = usize::from(u16::from_be_bytes([high, low]));
        let Some(after) = rest.get(2 + length.max(2)..) else { return false };
        rest = after;
    }
    // In image data 0xFF is followed by 0 or by a marker, so these bytes are the end marker and nothing else.
    rest.windows(2).rev().any(|pair| pair == END_OF_IMAGE)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(crate) const LIMITS: Limits =
        Limits { pixels: (512 << 20) / 3, memory: 1 << 30, work: 1 << 30, scans: 100 };

    /// The whole image.
    pub(crate) fn decode(file: &[u8]) -> Result<Decoded, Error> {
        Decoder::new(LIMITS).decode(file, Vec::new(), |_, _| Request::WHOLE)
    }

    fn fixture() -> serde_json::Value {
        serde_json::from_str(include_str!("../tests/fixtures/jpeg.json")).unwrap()
    }

    fn bytes(hex: &serde_json::Value) -> Vec<u8> {
        let hex = hex.as_str().unwrap();
        (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap()).collect()
    }

    fn case(kind: &str) -> Vec<u8> {
        let fixture = fixture();
        let cases = fixture["cases"].as_array().unwrap();
        bytes(&cases.iter().find(|case| case["kind"] == kind).unwrap()["file"])
    }

    #[test]
    fn every_kind_is_decoded_as_by_pillow() {
        let fixture = fixture();
        for case in fixture["cases"].as_array().unwrap() {
            let image = decode(&bytes(&case["file"])).unwrap();
            assert_eq!(image.size, (37, 29));
            assert!(image.pixels == bytes(&case["pixels"]), "{} differs", case["kind"]);
        }
    }

    #[test]
    fn encoded_pixels_are_those_of_pillows_encoder() {
        let fixture = fixture();
        let source = bytes(&fixture["source"]);
        for case in fixture["encoded"].as_array().unwrap() {
            let file = encode(&source, 37, 29, case["quality"].as_u64().unwrap() as u8).unwrap();
            assert!(decode(&file).unwrap().pixels == bytes(&case["pixels"]), "{}", case["quality"]);
        }
        let grey = encode(&[200; 12], 4, 3, 90).unwrap();
        assert_eq!(decode(&grey).unwrap().pixels, [200; 36]);
        for (bytes, width, height) in [(12, 4, 2), (0, 0, 0), (70_000, 70_000, 1)] {
            let expected = Error::Unencodable { bytes, width, height };
            assert_eq!(encode(&vec![0; bytes], width, height, 90), Err(expected));
        }
    }

    /// SIMD code needs an assembler at build time; without it, decoding would be slow and no test would notice.
    #[test]
    fn continuous_integration_builds_with_simd() {
        if std::env::var("CI").is_ok_and(|ci| ci == "true") {
            assert!(vectorised(), "nasm was missing when mozjpeg-sys was built");
        }
    }

    #[test]
    fn a_truncated_file_is_an_error() {
        for kind in ["4:2:0", "progressive", "cmyk", "grey"] {
            let file = case(kind);
            for part in 0..file.len() {
                let error = decode(&file[..part]).unwrap_err();
                assert_eq!(error, Error::Truncated, "{kind}, the first {part} bytes");
            }
            // With an end marker, but without the data before it.
            let mut gap = file[..file.len() * 3 / 4].to_vec();
            gap.extend([0xFF, 0xD9]);
            assert!(matches!(decode(&gap), Err(Error::Damaged(_))), "{kind}");
        }
    }

    #[test]
    fn a_too_large_image_is_rejected_before_it_is_decoded() {
        let mut file = case("grey");
        let frame = file.windows(2).position(|pair| pair == [0xFF, 0xC0]).unwrap();
        file[frame + 5..frame + 9].copy_from_slice(&[0x7F, 0xFF, 0x7F, 0xFF]);
        let expected = Error::TooManyPixels { width: 0x7FFF, height: 0x7FFF };
        assert_eq!(decode(&file).unwrap_err(), expected);
        file[frame + 5..frame + 9].copy_from_slice(&[0, 0, 0, 9]);
        assert!(decode(&file).is_err());
    }

    /// The sums of these sides and corners wrap around to numbers inside the image.
    #[test]
    fn a_region_outside_the_image_is_an_error_however_large_its_numbers_are() {
        let file = case("4:2:0");
        let inside = Area { left: 8, top: 8, width: 5, height: 5 };
        let far = u32::MAX - 3;
        for area in [
            Area { left: far, ..inside },
            Area { top: far, ..inside },
            Area { width: far, ..inside },
            Area { height: far, ..inside },
            Area { left: far, top: far, ..inside },
            Area { left: 37, ..inside },
            Area { width: 0, ..inside },
        ] {
            let request = Request { area: Some(area), ..Request::WHOLE };
            let error = Decoder::new(LIMITS).decode(&file, Vec::new(), |_, _| request).unwrap_err();
            assert_eq!(error, Error::Outside, "{area:?}");
        }
    }

    proptest! {
        /// A decoded region has the pixels of the whole image, at every scale.
        #[test]
        fn regions_have_the_pixels_of_the_whole_image(
            kind in prop::sample::select(vec!["4:4:4", "4:2:2", "4:2:0", "progressive", "grey", "cmyk", "restart markers"]),
            eighths in 1_u32..=8, coarse: bool, corner in (0.0..1.0, 0.0..1.0), extent in (0.0..1.0, 0.0..1.0),
        ) {
            let file = case(kind);
            let mut decoder = Decoder::new(LIMITS);
            let whole =
                decoder.decode(&file, Vec::new(), |_, _| Request { eighths, area: None, coarse }).unwrap();
            prop_assert_eq!(whole.size, (scaled(37, eighths), scaled(29, eighths)));
            let within = |side: u32, from: f64, extent: f64| {
                let start = (f64::from(side) * from) as u32;
                (start, 1 + (f64::from(side - start - 1) * extent) as u32)
            };
            let (left, width) = within(whole.size.0, corner.0, extent.0);
            let (top, height) = within(whole.size.1, corner.1, extent.1);
            let area = Area { left, top, width, height };
            let request = Request { eighths, area: Some(area), coarse };
            let part = decoder.decode(&file, vec![9; 100], |_, _| request).unwrap();
            for y in top..top + height {
                let [part, whole] = [&part, &whole].map(|decoded| {
                    let row = (y - decoded.area.top) * decoded.area.width;
                    let first = 3 * (row + left - decoded.area.left) as usize;
                    &decoded.pixels[first..first + 3 * width as usize]
                });
                prop_assert_eq!(part, whole, "row {}", y);
            }
        }

        /// Damage anywhere gives pixels or an error, never a crash, and the decoder still works afterwards.
        #[test]
        fn damage_is_survived(place in 0.0..1.0, value: u8, kind in prop::sample::select(vec!["4:2:0", "progressive", "cmyk"])) {
            let (whole, mut file) = (case(kind), case(kind));
            let place = (file.len() as f64 * place) as usize;
            file[place] = value;
            let mut decoder = Decoder::new(LIMITS);
            let _ = decoder.decode(&file, Vec::new(), |_, _| Request::WHOLE);
            prop_assert_eq!(
                decoder.decode(&whole, Vec::new(), |_, _| Request::WHOLE).unwrap().pixels,
                decode(&whole).unwrap().pixels
            );
        }
    }
}
