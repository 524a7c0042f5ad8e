//! Conversions of decoded pixels, in the same memory where that is possible. A copy for which there is no memory is an error.

use image::metadata::Orientation;
use image::{ColorType, DynamicImage, RgbImage};

use super::DecodeError;
use crate::budget;

/// Halves numbers of 16 bits, in place, rounded as by the `image` crate.
pub(super) fn to_8_bits(kind: ColorType, mut data: Vec<u8>) -> Vec<u8> {
    if kind.bytes_per_pixel() == kind.channel_count() {
        return data;
    }
    let count = data.len() / 2;
    for at in 0..count {
        let wide = u32::from(u16::from_ne_bytes([data[2 * at], data[2 * at + 1]]));
        data[at] = ((wide + 128) / 257) as u8;
    }
    data.truncate(count);
    data
}

/// Turns an image upright.
///
/// # Errors
/// There is not enough memory.
pub fn upright(mut image: DynamicImage, orientation: Orientation) -> Result<DynamicImage, DecodeError> {
    if orientation != Orientation::NoTransforms {
        // The `image` crate copies the pixels without asking whether there is memory.
        budget::reserve(&mut Vec::<u8>::new(), image.as_bytes().len())?;
        image.apply_orientation(orientation);
    }
    Ok(image)
}

/// Grey becomes RGB, and transparency is dropped.
///
/// # Errors
/// There is not enough memory.
pub fn to_rgb(image: DynamicImage) -> Result<RgbImage, DecodeError> {
    let (width, height) = (image.width(), image.height());
    let data = match image {
        DynamicImage::ImageRgb8(rgb) => return Ok(rgb),
        DynamicImage::ImageLuma8(grey) => expand::<1>(grey.as_raw(), |[grey]| [grey; 3])?,
        DynamicImage::ImageLumaA8(grey) => expand::<2>(grey.as_raw(), |[grey, _]| [grey; 3])?,
        DynamicImage::ImageRgba8(rgba) => {
            let mut data = rgba.into_raw();
            let count = data.len() / 4;
            for at in 0..count {
                data.copy_within(4 * at..4 * at + 3, 3 * at);
            }
            data.truncate(3 * count);
            data
        }
        other => other.into_rgb8().into_raw(),
    };
    RgbImage::from_raw(width, height, data).ok_or(DecodeError::Memory)
}

fn expand<const N: usize>(
    pixels: &[u8],
    colour: impl Fn([u8; N]) -> [u8; 3],
) -> Result<Vec<u8>, DecodeError> {
    let pixels = pixels.as_chunks::<N>().0;
    let mut data = Vec::new();
    budget::reserve(&mut data, 3 * pixels.len())?;
    data.extend(pixels.iter().flat_map(|&pixel| colour(pixel)));
    Ok(data)
}
