//! The bilinear resize of 8-bit images of OpenCV (`cv2.resize`, `INTER_LINEAR`), to the last bit. mmcv, with which the published
//! segmentation scores were computed, resizes images with it. Weights have 11 bits, and the result is truncated in between.

use image::RgbImage;

const CHANNELS: usize = 3;
/// The weight 1.
const ONE: f32 = 2048.0;

/// The two source pixels of a pixel along one axis, and their weights.
struct Tap {
    pixels: [usize; 2],
    weights: [i32; 2],
}

/// Resizes an image to `width` x `height` pixels.
pub fn resize(image: &RgbImage, width: u32, height: u32) -> RgbImage {
    if image.dimensions() == (2 * width, 2 * height) {
        return halve(image);
    }
    let columns: Vec<Tap> = taps(image.width(), width)
        .map(|(first, share)| {
            // Beyond the first and the last column, only that column counts.
            let inside = first >= 0 && first + 1 < i64::from(image.width());
            tap(first, if inside { share } else { 0.0 }, image.width())
        })
        .collect();
    let mut out = RgbImage::new(width, height);
    let source = image.width() as usize * CHANNELS;
    // The last two source rows that were resized horizontally: even ones in the first place, odd ones in the second.
    let mut rows = [(usize::MAX, Vec::new()), (usize::MAX, Vec::new())];
    let lines = out.chunks_exact_mut(width as usize * CHANNELS);
    for (line, (first, share)) in lines.zip(taps(image.height(), height)) {
        let Tap { pixels, weights: [upper, lower] } = tap(first, share, image.height());
        for at in pixels {
            let (held, row) = &mut rows[at % 2];
            if *held != at {
                *held = at;
                across(&image.as_raw()[at * source..][..source], &columns, row);
            }
        }
        let [above, below] = pixels.map(|at| &rows[at % 2].1);
        for ((value, a), b) in line.iter_mut().zip(above).zip(below) {
            let sum = ((upper * (a >> 4)) >> 16) + ((lower * (b >> 4)) >> 16);
            *value = ((sum + 2) >> 2) as u8;
        }
    }
    out
}

/// For each pixel of a side that is resized: the source pixel before its centre (-1 before the first), and how far it is from there
/// to the next one.
fn taps(from: u32, to: u32) -> impl Iterator<Item = (i64, f32)> {
    let scale = 1.0 / (f64::from(to) / f64::from(from));
    (0..to).map(move |at| {
        let place = ((f64::from(at) + 0.5) * scale - 0.5) as f32;
        (place.floor() as i64, place - place.floor())
    })
}

fn tap(first: i64, share: f32, length: u32) -> Tap {
    let inside = |at: i64| at.clamp(0, i64::from(length) - 1) as usize;
    let weight = |share: f32| (share * ONE).round_ties_even() as i32;
    Tap { pixels: [inside(first), inside(first + 1)], weights: [weight(1.0 - share), weight(share)] }
}

/// Resizes a row horizontally; the values are multiplied by [`ONE`].
fn across(row: &[u8], columns: &[Tap], out: &mut Vec<i32>) {
    out.clear();
    for Tap { pixels: [left, right], weights } in columns {
        for channel in 0..CHANNELS {
            let value = |pixel: usize| i32::from(row[pixel * CHANNELS + channel]);
            out.push(value(*left) * weights[0] + value(*right) * weights[1]);
        }
    }
}

/// Half of both sides: OpenCV takes the mean of each four pixels.
fn halve(image: &RgbImage) -> RgbImage {
    RgbImage::from_fn(image.width() / 2, image.height() / 2, |x, y| {
        let four = [(0, 0), (1, 0), (0, 1), (1, 1)].map(|(dx, dy)| image.get_pixel(2 * x + dx, 2 * y + dy).0);
        let mean = |channel: usize| (four.iter().map(|pixel| u32::from(pixel[channel])).sum::<u32>() + 2) / 4;
        image::Rgb([0, 1, 2].map(|channel| mean(channel) as u8))
    })
}
