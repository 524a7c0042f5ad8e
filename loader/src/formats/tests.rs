use std::io::Write;

use super::*;
use crate::samples::pixels::decode;

/// Joins parts of a file.
fn file(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}

/// A chunk of a PNG, with its check sum.
fn chunk(name: &str, data: &[u8]) -> Vec<u8> {
    let mut sum = flate2::Crc::new();
    sum.update(name.as_bytes());
    sum.update(data);
    file(&[&(data.len() as u32).to_be_bytes(), name.as_bytes(), data, &sum.sum().to_be_bytes()])
}

fn zlib(data: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

/// A PNG of one red pixel with a colour profile that has this many zeros.
fn png_with_profile(length: usize) -> Vec<u8> {
    let header = file(&[&1u32.to_be_bytes(), &1u32.to_be_bytes(), &[8, 2, 0, 0, 0]]);
    file(&[
        b"\x89PNG\r\n\x1a\n",
        &chunk("IHDR", &header),
        &chunk("iCCP", &file(&[b"a\0\0", &zlib(&vec![0; length])])),
        &chunk("IDAT", &zlib(&[0, 200, 30, 30])),
        &chunk("IEND", &[]),
    ])
}

/// A GIF of 1 x 1 pixels whose first frame has other sides.
fn gif(width: u16, height: u16) -> Vec<u8> {
    file(&[
        b"GIF89a\x01\0\x01\0\x80\0\0\0\0\0\xff\xff\xff,\0\0\0\0",
        &width.to_le_bytes(),
        &height.to_le_bytes(),
        // Without a palette; codes of 2 bits: clear, 1, end.
        &[0, 2, 2, 0x4c, 0x01, 0, b';'],
    ])
}

/// A grey progressive JPEG; one scan has the mean of each block, and the others no further detail. `side` is a multiple of
/// 1024.
fn progressive(side: u16, scans: usize) -> Vec<u8> {
    let blocks = usize::from(side / 8).pow(2);
    let mut table = [0; 17];
    table[1] = 1;
    let mut jpeg = file(&[
        &[0xff, 0xd8],
        &[0xff, 0xdb, 0, 67, 0],
        &[1; 64],
        &[0xff, 0xc2, 0, 11, 8],
        &side.to_be_bytes(),
        &side.to_be_bytes(),
        &[1, 1, 0x11, 0],
        // One code, 0: the mean does not change.
        &[0xff, 0xc4, 0, 20],
        &table,
        &[0],
        // One code, 0: 2^14 blocks end here, and as many more as the next 14 bits say.
        &[0xff, 0xc4, 0, 20, 0x10],
        &table[1..],
        &[0xe0],
    ]);
    jpeg.extend([0xff, 0xda, 0, 8, 1, 1, 0, 0, 0, 0]);
    jpeg.resize(jpeg.len() + blocks / 8, 0);
    for _ in 1..scans {
        jpeg.extend([0xff, 0xda, 0, 8, 1, 1, 0, 1, 63, 0]);
        // 15 bits a run.
        jpeg.resize(jpeg.len() + (blocks / (1 << 14) * 15).div_ceil(8), 0);
    }
    jpeg.extend([0xff, 0xd9]);
    jpeg
}

#[test]
fn a_profile_that_decompresses_to_gigabytes_costs_its_image_nothing() {
    for length in [1000, 100 << 20] {
        assert_eq!(decode(&png_with_profile(length)).unwrap().get_pixel(0, 0).0, [200, 30, 30], "{length}");
    }
}

#[test]
fn a_frame_larger_than_the_budget_is_refused_and_a_small_one_is_not() {
    assert_eq!(decode(&gif(1, 1)).unwrap().get_pixel(0, 0).0, [255; 3]);
    let refused = ImageFile::open(&gif(65_535, 65_535)).unwrap().decode().unwrap_err();
    assert_eq!(refused.kind(), "too large");
}

/// 2^20 samples a scan are little work, so that only the number of scans counts; 2^24 are 2^30 after 64 scans.
#[test]
fn the_scans_of_a_jpeg_are_limited_in_number_and_in_work() {
    assert_eq!(decode(&progressive(1024, 100)).unwrap().get_pixel(5, 5).0, [128; 3]);
    for (side, scans, why) in
        [(1024, 101, "100 scans"), (1024, 499, "100 scans"), (4096, 65, "1073 million samples")]
    {
        let file = progressive(side, scans);
        let refusal = ImageFile::open(&file).unwrap().decode().unwrap_err();
        assert_eq!(refusal.kind(), "too much work to decode");
        assert!(refusal.to_string().contains(why), "{side}, {scans}: {refusal}");
    }
    assert!(decode(&progressive(4096, 64)).is_ok());
}

#[test]
fn the_memory_of_a_progressive_jpeg_includes_its_coefficients() {
    // 13,312 x 13,312 pixels: 177 million, of 3 bytes and, if there are several scans, of 2 bytes per sample.
    let (grey, mut colour) = (progressive(13_312, 1), progressive(13_312, 1));
    let frame = grey.windows(2).position(|pair| pair == [0xff, 0xc2]).unwrap();
    colour.splice(frame + 3..frame + 13, file(&[&[17, 8], &colour[frame + 5..frame + 9], &[3, 1, 0x11, 0]]));
    colour.splice(frame + 13..frame + 13, [2, 0x11, 0, 3, 0x11, 0]);
    let problem = decode(&colour).unwrap_err().to_string();
    assert!(problem.contains("too large") && problem.contains("1024 MB"), "{problem}");
}

/// The bytes by hand from Microsoft's description of BITMAPINFOHEADER and from TIFF 6.0.
#[test]
fn bitmaps_and_tiffs_have_the_pixels_that_are_written() {
    let mut bmp = b"BM\x46\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0".to_vec();
    bmp.extend([2, 0, 0, 0, 2, 0, 0, 0, 1, 0, 24, 0]);
    bmp.extend([0; 24]);
    // The lower row first; blue, green, red; rows of a multiple of 4 bytes.
    bmp.extend([30, 30, 200, 30, 200, 30, 0, 0, 200, 30, 30, 1, 2, 3, 0, 0]);
    let image = decode(&bmp).unwrap();
    let pixels: Vec<[u8; 3]> = image.pixels().map(|pixel| pixel.0).collect();
    assert_eq!(pixels, [[30, 30, 200], [3, 2, 1], [200, 30, 30], [30, 200, 30]]);

    let tiff = |compression: u8, bits: u8, orientation: u8| {
        let entry = |tag: u16, kind: u8, value: u8| {
            let tag = tag.to_le_bytes();
            [tag[0], tag[1], kind, 0, 1, 0, 0, 0, value, 0, 0, 0]
        };
        let mut tiff = b"II*\0\x08\0\0\0\x0a\0".to_vec();
        for (tag, value) in [
            (256, 2),
            (257, 1),
            (258, bits),
            (259, compression),
            (262, 1),
            // The pixels are after ten entries.
            (273, 134),
            (274, orientation),
            (277, 1),
            (278, 1),
            (279, bits / 4),
        ] {
            tiff.extend(entry(tag, 3, value));
        }
        tiff.extend([0; 4]);
        tiff.extend(if bits == 8 { &[7, 250][..] } else { &[0, 0x80, 0xff, 0xff] });
        tiff
    };
    let grey = |file: &[u8]| decode(file).unwrap().pixels().map(|pixel| pixel.0[0]).collect::<Vec<_>>();
    assert_eq!(grey(&tiff(1, 8, 1)), [7, 250]);
    // 0x8000 / 257 = 127.5, rounded up.
    assert_eq!(grey(&tiff(1, 16, 1)), [128, 255]);
    let turned = tiff(1, 8, 6);
    assert_eq!(ImageFile::open(&turned).unwrap().orientation(), Orientation::Rotate90);
    assert_eq!(
        ImageFile::open(&tiff(7, 8, 1)).unwrap_err(),
        DecodeError::Unsupported("TIFF with JPEG inside")
    );
    for length in 0..turned.len() {
        assert!(decode(&turned[..length]).is_err(), "{length} bytes");
    }
}

/// The first bytes of each format, from its specification.
#[test]
fn formats_that_are_not_read_are_refused_by_name() {
    for (start, kind) in [
        (&b"\0\0\0\x1cftypavif\0\0\0\0avifmif1miaf"[..], "AVIF is not supported"),
        // Its main brand is any image; the list of brands says which.
        (b"\0\0\0\x1cftypmif1\0\0\0\0mif1avifmiaf", "AVIF is not supported"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC is not supported"),
        (b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom", "a video, not an image"),
        (b"\0\0\0\x0cjP  \r\n\x87\n\0\0\0\x14ftypjp2 ", "JPEG 2000 is not supported"),
        (b"\xff\x4f\xff\x51\0\x2f", "JPEG 2000 is not supported"),
        (b"\xff\x0a\xfa", "JPEG XL is not supported"),
        (b"8BPS\0\x01", "PSD is not supported"),
        (b"<svg xmlns=''></svg>", "SVG is not supported"),
        (b"\n<!DOCTYPE html>", "a web page, not an image"),
        (b"BMW sells cars, and this is a text", "not an image"),
        (b"", "0 bytes"),
    ] {
        assert_eq!(Format::of(start).unwrap_err().kind(), kind);
    }
}

#[test]
fn grey_and_transparent_pixels_become_rgb() {
    let grey = GrayAlphaImage::from_raw(2, 1, vec![1, 9, 2, 0]).unwrap();
    let rgba = RgbaImage::from_raw(2, 1, vec![1, 2, 3, 4, 5, 6, 7, 8]).unwrap();
    assert_eq!(to_rgb(DynamicImage::ImageLumaA8(grey)).unwrap().into_raw(), [1, 1, 1, 2, 2, 2]);
    assert_eq!(to_rgb(DynamicImage::ImageRgba8(rgba)).unwrap().into_raw(), [1, 2, 3, 5, 6, 7]);
}
