//! Downscaling by area: a target pixel is the mean of the source rectangle that it covers; pixels on the rectangle's edge are
//! weighted by the fraction inside. The same as `INTER_AREA` of `OpenCV`, which img2dataset uses.
//!
//! The filter is separable, so rows and columns are averaged one after the other, with the SIMD instructions of
//! `fast_image_resize`, which needs only the weight of each source position.

use std::cell::Cell;

use fast_image_resize::{Filter, FilterType, ResizeAlg, ResizeOptions, Resizer};

use super::buffer_pool;
use super::decode::undecodable;
use super::pixels::Pixels;
use super::resample::resample;
use crate::problem::Problem;

thread_local! {
    /// Source positions per target position. A thread local, because the filter function takes no other argument.
    static SCALE: Cell<f64> = const { Cell::new(1.0) };
    /// Reused, because it keeps its working memory.
    static RESIZER: std::cell::RefCell<Resizer> = std::cell::RefCell::new(Resizer::new());
}

/// The fraction of a source pixel that is inside the target pixel; `distance` is that between their centres.
fn covered(distance: f64) -> f64 {
    (f64::midpoint(SCALE.get(), 1.0) - distance.abs()).clamp(0.0, 1.0)
}

/// Reduces `source` to `width` x `height`, neither larger than the source.
pub(super) fn shrink(source: Pixels, width: u32, height: u32) -> Result<Pixels, Problem> {
    // The height first: it is the faster of the two passes, and leaves fewer pixels for the other.
    let low = along(source, |source| (source.width, height), |source| source.height)?;
    along(low, |low| (width, low.height), |low| low.width)
}

/// Reduces one side to that of `size`.
fn along(
    source: Pixels,
    size: impl Fn(&Pixels) -> (u32, u32),
    side: impl Fn(&Pixels) -> u32,
) -> Result<Pixels, Problem> {
    let (width, height) = size(&source);
    let from = side(&source);
    let channels = source.channels;
    let target = Pixels { width, height, channels, data: Vec::new() };
    let scale = f64::from(from) / f64::from(side(&target));
    if scale <= 1.0 {
        return Ok(source);
    }
    let data = buffer_pool::take(width as usize * height as usize * channels)
        .map_err(|refusal| undecodable(&refusal))?;
    let mut target = Pixels { width, height, channels, data };
    SCALE.set(scale);
    let filter = Filter::new("area", covered, f64::midpoint(scale, 1.0))
        .map_err(|_| Problem::resize("resizing failed"))?;
    // With `Interpolation`, distances are in source pixels.
    let options = ResizeOptions::new().resize_alg(ResizeAlg::Interpolation(FilterType::Custom(filter)));
    RESIZER.with_borrow_mut(|resizer| resample(resizer, &source, &mut target, &options))?;
    buffer_pool::recycle(source.data);
    Ok(target)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grey(width: u32, height: u32, data: &[u8]) -> Pixels {
        Pixels { width, height, channels: 1, data: data.to_vec() }
    }

    #[test]
    fn whole_blocks_are_means() {
        let source = grey(4, 2, &[0, 10, 100, 200, 20, 30, 100, 200]);
        assert_eq!(shrink(source, 2, 1).unwrap(), grey(2, 1, &[15, 150]));
    }

    #[test]
    fn edge_pixels_are_weighted_by_the_fraction_inside() {
        // 3 -> 2: the first target covers 0 and half of 1: (0 + 30 / 2) / 1.5 = 10; then (30 / 2 + 90) / 1.5 = 70.
        assert_eq!(shrink(grey(3, 1, &[0, 30, 90]), 2, 1).unwrap(), grey(2, 1, &[10, 70]));
    }

    #[test]
    fn the_same_size_gives_the_same_image() {
        let source = grey(3, 3, &[1, 2, 3, 4, 5, 6, 7, 8, 255]);
        assert_eq!(shrink(source.clone(), 3, 3).unwrap(), source);
    }

    /// The definition, for one pixel.
    fn mean(source: &Pixels, (width, height): (u32, u32), (x, y, channel): (u32, u32, usize)) -> f64 {
        let interval = |at: u32, from: u32, to: u32| {
            let scale = f64::from(from) / f64::from(to);
            (f64::from(at) * scale, f64::from(at + 1) * scale)
        };
        let inside = |(begin, end): (f64, f64), at: u32| {
            (end.min(f64::from(at) + 1.0) - begin.max(f64::from(at))).max(0.0)
        };
        let (across, down) = (interval(x, source.width, width), interval(y, source.height, height));
        let mut sum = 0.0;
        for row in 0..source.height {
            for column in 0..source.width {
                let at = (row * source.width + column) as usize * source.channels + channel;
                sum += inside(across, column) * inside(down, row) * f64::from(source.data[at]);
            }
        }
        sum / ((across.1 - across.0) * (down.1 - down.0))
    }

    #[test]
    fn every_pixel_is_the_mean_of_its_source_rectangle() {
        for (from, to, channels) in
            [((37, 23), (11, 7), 3), ((64, 48), (63, 47), 1), ((50, 9), (3, 9), 3), ((9, 50), (9, 1), 1)]
        {
            // Deterministic noise.
            let noise = |i: usize| (i.wrapping_mul(2_654_435_761) >> 13) as u8;
            let data = (0..(from.0 * from.1) as usize * channels).map(noise).collect();
            let source = Pixels { width: from.0, height: from.1, channels, data };
            let small = shrink(source.clone(), to.0, to.1).unwrap();
            for y in 0..to.1 {
                for x in 0..to.0 {
                    for channel in 0..channels {
                        let found = small.data[(y * to.0 + x) as usize * channels + channel];
                        let expected = mean(&source, to, (x, y, channel));
                        // The means of the first pass are rounded before the second.
                        let error = (f64::from(found) - expected).abs();
                        assert!(error <= 1.1, "{from:?} -> {to:?} at {x}, {y}: {found}, not {expected}");
                    }
                }
            }
        }
    }
}
