//! The bicubic resize of 8-bit images of Pillow (`Image.resize`, `BICUBIC`), to the last bit: torchvision resizes images with it that
//! are not tensors yet. The filter is widened where the image shrinks. Weights have 22 bits, and rows are rounded in between.

use image::RgbImage;

const CHANNELS: usize = 3;
/// Bits of a weight after the point.
const BITS: u32 = 22;
/// Radius of the filter in source pixels, where the image does not shrink.
const RADIUS: f64 = 2.0;

/// The source pixels of a pixel along one axis, from `first` on, and their weights.
struct Tap {
    first: usize,
    weights: Vec<i64>,
}

/// Resizes an image to `width` x `height` pixels.
pub fn resize(image: &RgbImage, width: u32, height: u32) -> RgbImage {
    let (from_width, from_height) = (image.width() as usize, image.height() as usize);
    let (width, height) = (width as usize, height as usize);
    let mut pixels = image.as_raw().clone();
    if width != from_width {
        let taps = taps(from_width, width);
        let rows = pixels.chunks_exact(from_width * CHANNELS);
        pixels = rows.flat_map(|row| taps.iter().flat_map(|tap| mixed(row, tap, CHANNELS, 0))).collect();
    }
    if height != from_height {
        let line = width * CHANNELS;
        let down =
            |tap: &Tap| (0..width).flat_map(|x| mixed(&pixels, tap, line, x * CHANNELS)).collect::<Vec<u8>>();
        pixels = taps(from_height, height).iter().flat_map(down).collect();
    }
    // The buffer has the size of the image.
    RgbImage::from_raw(width as u32, height as u32, pixels).unwrap_or_default()
}

/// The channels of a pixel from those that a tap names, `step` values apart from `start` on.
fn mixed(values: &[u8], tap: &Tap, step: usize, start: usize) -> [u8; CHANNELS] {
    [0, 1, 2].map(|channel| {
        let places = (tap.first..).map(|at| i64::from(values[start + at * step + channel]));
        let sum: i64 = places.zip(&tap.weights).map(|(value, weight)| value * weight).sum();
        ((sum + (1 << (BITS - 1))) >> BITS).clamp(0, 255) as u8
    })
}

fn taps(from: usize, to: usize) -> Vec<Tap> {
    let scale = from as f64 / to as f64;
    let stretch = scale.max(1.0);
    let radius = RADIUS * stretch;
    let tap = |at: usize| {
        let centre = (at as f64 + 0.5) * scale;
        let first = (centre - radius + 0.5).max(0.0) as usize;
        let end = ((centre + radius + 0.5) as usize).min(from);
        let weights: Vec<f64> =
            (first..end).map(|x| cubic((x as f64 - centre + 0.5) * (1.0 / stretch))).collect();
        let sum: f64 = weights.iter().sum();
        let whole = |weight: &f64| (weight / sum * f64::from(1 << BITS)).round() as i64;
        Tap { first, weights: weights.iter().map(whole).collect() }
    };
    (0..to).map(tap).collect()
}

/// Keys' cubic with a = -0.5.
fn cubic(x: f64) -> f64 {
    const A: f64 = -0.5;
    let x = x.abs();
    if x < 1.0 {
        ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        (((x - 5.0) * x + 8.0) * x - 4.0) * A
    } else {
        0.0
    }
}
