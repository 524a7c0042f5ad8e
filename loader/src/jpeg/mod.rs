//! JPEG by libjpeg-turbo: all of an image or a part of it, at its size or at some eighths of it; and encoding.
//!
//! A full decode gives the pixels that Pillow gives, which uses the same library. A part costs little more than its
//! share: rows below it are not looked at, rows above and columns beside it only unpacked. Scaling happens in the
//! frequency domain: at 4/8, each block of 8 x 8 is made 4 x 4 from its lower frequencies. Huffman codes, which are most
//! of the work, are decoded by `entropy.c` instead.
//!
//! The library fills what damaged data leave out with grey, which would train on half pictures; here damage that it
//! meets is an error, and so is a file without its end. (With a part, damage outside it may go unseen.)

#[cfg(test)]
mod entropy_test;
mod ffi;

use image::RgbImage;

use self::ffi::Codec;

/// The first bytes of a JPEG: start of image, and the start of the next marker.
pub const START: [u8; 3] = [0xFF, 0xD8, 0xFF];

/// Longest side of an image that is decoded; beyond it are decompression bombs.
const LONGEST_SIDE: u32 = 1 << 15;

/// Most pixels of an image that is decoded: 512 MiB of red, green and blue.
const MOST_PIXELS: u64 = (512 << 20) / 3;

/// Longest side that the format can say.
const LONGEST_ENCODED: u32 = 65_500;

/// Decodes; keeps its working memory from image to image.
#[derive(Debug, Default)]
pub struct Decoder {
    codec: Option<Codec>,
    /// Rows of four channels on their way to three.
    inks: Vec<u8>,
}

/// A part of an image: pixels of the image, scaled if it is.
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
    /// Size of the decoded image in eighths of the stored one, rounded up: 1 to 8. 8, 4, 2 and 1 are quick, the others
    /// have no vector instructions.
    pub eighths: u32,
    /// Part of the scaled image; none for all of it.
    pub area: Option<Area>,
    /// Whether rounding may be coarser and colour may be repeated instead of interpolated: a little faster, with
    /// pixels that are not Pillow's.
    pub coarse: bool,
}

impl Request {
    /// All of the image, as stored.
    pub const WHOLE: Self = Self { eighths: 8, area: None, coarse: false };
}

/// Pixels of a JPEG.
#[derive(Debug)]
pub struct Decoded {
    /// Red, green, blue. May hold some columns beside the requested part, as blocks are decoded whole; the memory
    /// behind it may be longer than its pixels, if `buffer` was.
    pub pixels: RgbImage,
    /// Which part of the scaled image `pixels` is.
    pub area: Area,
    /// Width and height of the scaled image.
    pub size: (u32, u32),
}

impl Decoder {
    /// Decodes what `choose` asks for, which is told the stored width and height. Grey and CMYK become RGB as in
    /// Pillow; EXIF orientation is not applied. `buffer` becomes the pixels' memory.
    ///
    /// # Errors
    /// Why this is not a whole JPEG, as a phrase; a part outside the image.
    pub fn decode(
        &mut self,
        file: &[u8],
        buffer: Vec<u8>,
        choose: impl FnOnce(u32, u32) -> Request,
    ) -> Result<Decoded, String> {
        if !ends(file) {
            return Err("a truncated jpeg".to_owned());
        }
        if self.codec.is_none() {
            self.codec = Codec::new();
        }
        let codec = self.codec.as_mut().ok_or("no memory for the jpeg decoder")?;
        let opened = codec.open(file).map_err(damaged)?;
        let (width, height) = (opened.width, opened.height);
        if width.max(height) > LONGEST_SIDE || u64::from(width) * u64::from(height) > MOST_PIXELS {
            return Err(format!("an image of {width} x {height} pixels, which is too large"));
        }
        let request = choose(width, height);
        let eighths = request.eighths.clamp(1, 8);
        let area = request.area.unwrap_or_else(|| Area {
            left: 0,
            top: 0,
            width: scaled(width, eighths),
            height: scaled(height, eighths),
        });
        let started = opened
            .start(eighths, request.coarse, [area.left, area.top, area.width, area.height])
            .map_err(damaged)?;
        let [left, top, width, height] = started.area;
        let size = (started.size[0], started.size[1]);
        let mut pixels = buffer;
        let bytes = started.bytes();
        match started.channels {
            3 => {
                // Where the last image was larger, nothing has to be filled for this one.
                if pixels.len() < bytes {
                    pixels.resize(bytes, 0);
                }
                started.read(&mut pixels[..bytes]).map_err(damaged)?;
            }
            4 => {
                let inverted = started.inverted;
                self.inks.resize(bytes, 0);
                started.read(&mut self.inks).map_err(damaged)?;
                pixels.clear();
                pixels
                    .extend(self.inks.as_chunks::<4>().0.iter().flat_map(|&inks| from_inks(inks, inverted)));
            }
            other => return Err(format!("a jpeg of {other} channels")),
        }
        let pixels = RgbImage::from_raw(width, height, pixels).ok_or("a jpeg of an odd size")?;
        Ok(Decoded { pixels, area: Area { left, top, width, height }, size })
    }
}

/// All pixels of a JPEG, as Pillow decodes it: see [`Decoder::decode`].
pub fn decode(file: &[u8]) -> Result<RgbImage, String> {
    Ok(Decoder::default().decode(file, Vec::new(), |_, _| Request::WHOLE)?.pixels)
}

/// Encodes 8-bit pixels, `width` x `height` x 3 (red, green, blue; colour is stored at half the resolution both ways,
/// "4:2:0") or x 1 (grey), as libjpeg-turbo does by default. `quality` is 1 to 100.
///
/// # Errors
/// A side of 0 or beyond 65,500; pixels of another length.
pub fn encode(pixels: &[u8], width: u32, height: u32, quality: u8) -> Result<Vec<u8>, String> {
    let area = u64::from(width) * u64::from(height);
    if !(1..=LONGEST_ENCODED).contains(&width) || !(1..=LONGEST_ENCODED).contains(&height) {
        return Err(format!("{width} x {height} pixels do not fit into a jpeg"));
    }
    let channels = pixels.len() as u64 / area;
    if ![1, 3].contains(&channels) || channels * area != pixels.len() as u64 {
        return Err(format!("{} bytes are not {width} x {height} pixels", pixels.len()));
    }
    ffi::encode(pixels, width, height, channels as u32, quality.clamp(1, 100))
}

/// Whether vector instructions are used: needs `nasm` at build time, and is several times as fast.
pub fn vectorised() -> bool {
    ffi::vectorised()
}

/// A side of the image at `eighths` / 8 of its size.
pub fn scaled(side: u32, eighths: u32) -> u32 {
    (u64::from(side) * u64::from(eighths)).div_ceil(8) as u32
}

fn damaged(mut message: String) -> String {
    message.insert_str(0, "a damaged jpeg: ");
    message
}

/// Pillow's conversion: the ink that a colour and black together leave white.
fn from_inks(inks: [u8; 4], inverted: bool) -> [u8; 3] {
    let [cyan, magenta, yellow, black] = if inverted { inks.map(|ink| 255 - ink) } else { inks };
    let white = 255 - black;
    [cyan, magenta, yellow].map(|ink| white - multiply(ink, white))
}

/// a b / 255, rounded.
fn multiply(a: u8, b: u8) -> u8 {
    ((u32::from(a) * u32::from(b) + 127) / 255) as u8
}

/// Whether a JPEG has its end-of-image marker.
fn ends(jpeg: &[u8]) -> bool {
    const START_OF_SCAN: u8 = 0xDA;
    const END_OF_IMAGE: [u8; 2] = [0xFF, 0xD9];
    // From segment to segment up to the image data: a thumbnail inside a segment has an end of its own. Where
    // the segments cannot be followed, the decoder will know better.
    let Some(mut rest) = jpeg.get(2..) else { return false };
    while let [0xFF, marker, high, low, ..] = *rest {
        if marker == START_OF_SCAN {
            break;
        }
        let length = usize::from(u16::from_be_bytes([high, low]));
        let Some(after) = rest.get(2 + length.max(2)..) else { return false };
        rest = after;
    }
    // In image data 0xFF is followed by 0 or by a marker, so this is the end and nothing else.
    rest.windows(2).rev().any(|pair| pair == END_OF_IMAGE)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fixture() -> serde_json::Value {
        serde_json::from_str(include_str!("../../tests/fixtures/jpeg.json")).unwrap()
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
    fn every_kind_is_decoded_as_pillow_does() {
        let fixture = fixture();
        for case in fixture["cases"].as_array().unwrap() {
            let image = decode(&bytes(&case["file"])).unwrap();
            assert_eq!(image.dimensions(), (37, 29));
            assert!(*image.as_raw() == bytes(&case["pixels"]), "{} differs", case["kind"]);
        }
    }

    #[test]
    fn encoded_pixels_are_those_of_pillows_encoder() {
        let fixture = fixture();
        let source = bytes(&fixture["source"]);
        for case in fixture["encoded"].as_array().unwrap() {
            let file = encode(&source, 37, 29, case["quality"].as_u64().unwrap() as u8).unwrap();
            assert!(*decode(&file).unwrap().as_raw() == bytes(&case["pixels"]), "{}", case["quality"]);
        }
        let grey = encode(&[200; 12], 4, 3, 90).unwrap();
        assert_eq!(decode(&grey).unwrap(), RgbImage::from_pixel(4, 3, image::Rgb([200; 3])));
        assert!(encode(&[0; 12], 4, 2, 90).is_err());
        assert!(encode(&[], 0, 0, 90).is_err());
        assert!(encode(&vec![0; 70_000], 70_000, 1, 90).is_err());
    }

    /// Vector instructions need an assembler at build time; a build without them would be slow and never say so.
    #[test]
    fn continuous_integration_builds_with_vector_instructions() {
        if std::env::var("CI").is_ok_and(|ci| ci == "true") {
            assert!(vectorised(), "nasm was missing when mozjpeg-sys was built");
        }
    }

    #[test]
    fn a_part_of_a_file_is_refused() {
        for kind in ["4:2:0", "progressive", "cmyk", "grey"] {
            let file = case(kind);
            for part in 0..file.len() {
                let error = decode(&file[..part]).unwrap_err();
                assert!(error.contains("jpeg"), "{kind}, the first {part} bytes: {error}");
            }
            // The end is there, but not what should be before it.
            let mut gap = file[..file.len() * 3 / 4].to_vec();
            gap.extend([0xFF, 0xD9]);
            assert!(decode(&gap).unwrap_err().contains("damaged"), "{kind}");
        }
    }

    #[test]
    fn too_large_an_image_is_refused_before_it_is_decoded() {
        let mut file = case("grey");
        let frame = file.windows(2).position(|pair| pair == [0xFF, 0xC0]).unwrap();
        file[frame + 5..frame + 9].copy_from_slice(&[0x7F, 0xFF, 0x7F, 0xFF]);
        assert!(decode(&file).unwrap_err().contains("too large"));
        file[frame + 5..frame + 9].copy_from_slice(&[0, 0, 0, 9]);
        assert!(decode(&file).is_err());
    }

    proptest! {
        /// Whatever the part: its pixels are those of the whole image, at every scale.
        #[test]
        fn parts_are_parts_of_the_whole(
            kind in prop::sample::select(vec!["4:4:4", "4:2:2", "4:2:0", "progressive", "grey", "cmyk", "restart markers"]),
            eighths in 1_u32..=8, coarse: bool, corner in (0.0..1.0, 0.0..1.0), extent in (0.0..1.0, 0.0..1.0),
        ) {
            let file = case(kind);
            let mut decoder = Decoder::default();
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
            for row in 0..height {
                for column in 0..width {
                    prop_assert_eq!(
                        part.pixels.get_pixel(left - part.area.left + column, top - part.area.top + row),
                        whole.pixels.get_pixel(left + column, top + row),
                    );
                }
            }
        }

        /// Damage anywhere gives pixels or an error, never anything else, and the decoder goes on working.
        #[test]
        fn damage_is_survived(place in 0.0..1.0, value: u8, kind in prop::sample::select(vec!["4:2:0", "progressive", "cmyk"])) {
            let (whole, mut file) = (case(kind), case(kind));
            let place = (file.len() as f64 * place) as usize;
            file[place] = value;
            let mut decoder = Decoder::default();
            let _ = decoder.decode(&file, Vec::new(), |_, _| Request::WHOLE);
            prop_assert_eq!(
                decoder.decode(&whole, Vec::new(), |_, _| Request::WHOLE).unwrap().pixels,
                decode(&whole).unwrap()
            );
        }
    }
}
