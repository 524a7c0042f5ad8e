use std::fs;
use std::path::Path;

use super::*;
use crate::rows::Row;

fn fixture(name: &str) -> Vec<u8> {
    fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)).unwrap()
}

/// No resizing, lossless output.
fn plain() -> Settings {
    Settings { mode: Mode::No, encoding: Encoding::Png(6), ..Settings::default() }
}

fn pixel(image: &EncodedImage, x: u32, y: u32) -> [u8; 3] {
    ::image::load_from_memory(&image.bytes).unwrap().to_rgb8().get_pixel(x, y).0
}

fn near(found: [u8; 3], expected: [u8; 3], tolerance: u8) {
    let close = found.iter().zip(expected).all(|(&a, b)| a.abs_diff(b) <= tolerance);
    assert!(close, "{found:?}, not {expected:?}");
}

/// Checks the four colours of `quarters()` in make.py, at the centre of each quarter.
fn quarters(image: &EncodedImage, tolerance: u8) {
    let (width, height) = (image.width, image.height);
    near(pixel(image, width / 4, height / 4), [200, 30, 30], tolerance);
    near(pixel(image, width * 3 / 4, height / 4), [30, 200, 30], tolerance);
    near(pixel(image, width / 4, height * 3 / 4), [30, 30, 200], tolerance);
    near(pixel(image, width * 3 / 4, height * 3 / 4), [200, 200, 30], tolerance);
}

#[test]
fn the_exif_orientation_is_applied_unless_it_is_ignored() {
    let image = plain().process(&fixture("orientation.jpg"), &Row::default()).unwrap();
    assert_eq!((image.width, image.height), (64, 32));
    assert_eq!((image.original_width, image.original_height), (64, 32));
    quarters(&image, 8);
    let exif: serde_json::Value = serde_json::from_str(&image.exif).unwrap();
    assert!(exif["Image Make"].as_str().unwrap().contains("Maker"), "{exif}");
    assert!(exif.get("Image Orientation").is_some(), "{exif}");

    let as_stored = Settings { ignore_orientation: true, ..plain() };
    let image = as_stored.process(&fixture("orientation.jpg"), &Row::default()).unwrap();
    assert_eq!((image.width, image.height), (32, 64));
}

#[test]
fn cmyk_progressive_animated_and_16_bit_images_become_8_bit_rgb_or_grey() {
    quarters(&plain().process(&fixture("cmyk.jpg"), &Row::default()).unwrap(), 8);
    quarters(&plain().process(&fixture("progressive.jpg"), &Row::default()).unwrap(), 8);
    quarters(&plain().process(&fixture("animated.gif"), &Row::default()).unwrap(), 8);
    let grey = plain().process(&fixture("grey16.png"), &Row::default()).unwrap();
    assert_eq!((pixel(&grey, 0, 0), pixel(&grey, 7, 7)), ([128; 3], [255; 3]));
}

#[test]
fn transparent_pixels_are_blended_onto_white() {
    let image = plain().process(&fixture("alpha.png"), &Row::default()).unwrap();
    assert_eq!(pixel(&image, 0, 0), [200, 30, 30]);
    // 128 / 255 of (0, 0, 200) on white: 255 - 128 = 127, and 200 * 128 / 255 + 127 = 227.4.
    assert_eq!(pixel(&image, 1, 0), [127, 127, 227]);
    assert_eq!(pixel(&image, 2, 0), [255; 3]);
    let image = plain().process(&fixture("palette.png"), &Row::default()).unwrap();
    assert_eq!((pixel(&image, 0, 0), pixel(&image, 1, 0)), ([10, 20, 30], [255; 3]));
}

#[test]
fn original_bytes_are_stored_only_if_nothing_changes() {
    let keep = |encoding| Settings { skip_reencode: true, encoding, ..plain() };
    let original = fixture("cmyk.jpg");
    assert_eq!(keep(Encoding::Jpg(95)).process(&original, &Row::default()).unwrap().bytes, original);
    assert_ne!(keep(Encoding::Png(6)).process(&original, &Row::default()).unwrap().bytes, original);
    let turned = fixture("orientation.jpg");
    assert_ne!(keep(Encoding::Jpg(95)).process(&turned, &Row::default()).unwrap().bytes, turned);
    let resized = Settings { mode: Mode::KeepRatio, size: 16, ..keep(Encoding::Jpg(95)) };
    assert_ne!(resized.process(&original, &Row::default()).unwrap().bytes, original);
    let alpha = fixture("alpha.png");
    assert_ne!(keep(Encoding::Png(6)).process(&alpha, &Row::default()).unwrap().bytes, alpha);
}

#[test]
fn every_filter_has_its_cause() {
    let cause =
        |settings: Settings| settings.process(&fixture("cmyk.jpg"), &Row::default()).unwrap_err().cause;
    assert_eq!(cause(Settings { min_side: 33, ..plain() }), "image too small");
    assert_eq!(cause(Settings { max_area: Some(2047), ..plain() }), "image area too large");
    assert_eq!(cause(Settings { max_aspect: Some(1.9), ..plain() }), "aspect ratio too large");
    assert_eq!(
        cause(Settings { max_pixels: 2047, ..plain() }),
        "image header declares more pixels than --max-pixels"
    );
    // 64 x 32 with its shorter side resized to 4096 would be 8192 x 4096.
    let enlarged = Settings { mode: Mode::KeepRatio, size: 4096, max_pixels: 1_000_000, ..plain() };
    assert_eq!(cause(enlarged), "aspect ratio too large");
    assert!(
        Settings { min_side: 32, max_area: Some(2048), max_aspect: Some(2.0), ..plain() }
            .process(&fixture("cmyk.jpg"), &Row::default())
            .is_ok()
    );
}

#[test]
fn truncated_and_modified_files_never_panic() {
    for name in ["orientation.jpg", "progressive.jpg", "alpha.png", "grey16.png", "animated.gif"] {
        let whole = fixture(name);
        for length in (0..whole.len()).step_by(whole.len() / 60 + 1) {
            let _ = plain().process(&whole[..length], &Row::default());
        }
        for at in (0..whole.len()).step_by(whole.len() / 200 + 1) {
            let mut changed = whole.clone();
            changed[at] ^= 0x55;
            let _ = plain().process(&changed, &Row::default());
        }
    }
    let cut = &fixture("progressive.jpg")[..300];
    assert_eq!(
        plain().process(cut, &Row::default()).unwrap_err().cause,
        "Image decoding error: the file is truncated"
    );
}

#[test]
fn unsupported_formats_are_named() {
    let cause = |bytes: &[u8]| plain().process(bytes, &Row::default()).unwrap_err().cause;
    // The first boxes of the formats: length, "ftyp", brand (ISO/IEC 14496-12; AVIF and HEIF specifications).
    assert_eq!(cause(b"\0\0\0\x1cftypavif\0\0\0\0avifmif1"), "Image decoding error: AVIF is not supported");
    assert_eq!(cause(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"), "Image decoding error: HEIC is not supported");
    assert_eq!(cause(b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom"), "Image decoding error: a video, not an image");
    assert_eq!(cause(b"\0\0\0\x0cjP  \r\n\x87\n"), "Image decoding error: JPEG 2000 is not supported");
    assert_eq!(cause(b"<svg xmlns=''></svg>"), "Image decoding error: SVG is not supported");
    assert_eq!(cause(b"\n<html>"), "Image decoding error: a web page, not an image");
    assert_eq!(cause(b""), "Image decoding error: 0 bytes");
}
