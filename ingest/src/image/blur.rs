//! Blurs faces and other regions as in ImageNet's face obfuscation (Yang et al. 2022), which img2dataset also uses: boxes
//! are enlarged by a tenth of their longer side, the image is blurred with a tenth of the longest side of all boxes as
//! sigma, and the blurred image is blended in with the equally blurred mask of the boxes, so that there is no visible edge.

use super::pixels::Pixels;
use crate::rows::Region;

/// Fraction of a box's longer side by which it is enlarged on each side; fraction of the longest side that is the sigma.
const FRACTION: f64 = 0.1;

/// Blurs the regions. Nothing outside a box and its soft edge changes.
pub(super) fn blur(pixels: &mut Pixels, regions: &[Region]) {
    let (width, height) = (pixels.width as usize, pixels.height as usize);
    let mut mask = vec![0.0f32; width * height];
    let mut longest = 0.0f64;
    for &[left, top, right, bottom] in regions {
        let (left, right) = (left * width as f64, right * width as f64);
        let (top, bottom) = (top * height as f64, bottom * height as f64);
        let side = (right - left).max(bottom - top);
        longest = longest.max(side);
        let grow = FRACTION * side;
        let columns = span(left - grow, right + grow, width);
        for row in span(top - grow, bottom + grow, height) {
            mask[row * width + columns.start..row * width + columns.end].fill(1.0);
        }
    }
    if longest == 0.0 {
        return;
    }
    let radius = box_radius(FRACTION * longest);
    smooth(&mut mask, width, height, radius);
    let channels = pixels.channels;
    for channel in 0..channels {
        let mut plane: Vec<f32> =
            pixels.data.iter().skip(channel).step_by(channels).map(|&value| f32::from(value)).collect();
        smooth(&mut plane, width, height, radius);
        let values = pixels.data.iter_mut().skip(channel).step_by(channels);
        for ((value, blurred), weight) in values.zip(plane).zip(&mask) {
            *value = (f32::from(*value) * (1.0 - weight) + blurred * weight + 0.5) as u8;
        }
    }
}

/// Whole positions from `from` to `to`, clipped to the image.
fn span(from: f64, to: f64, length: usize) -> std::ops::Range<usize> {
    let start = (from.floor().max(0.0) as usize).min(length);
    start..(to.ceil().max(0.0) as usize).clamp(start, length)
}

/// Radius for which three box filters have the variance of a Gaussian with `sigma`: each has (w^2 - 1) / 12, w = 2 r + 1.
fn box_radius(sigma: f64) -> usize {
    let width = (4.0 * sigma * sigma + 1.0).sqrt();
    (((width - 1.0) / 2.0).round() as usize).max(1)
}

/// Three box filters along rows and columns: close to a Gaussian, at a cost that does not depend on the radius.
fn smooth(plane: &mut [f32], width: usize, height: usize, radius: usize) {
    let mut line = vec![0.0f32; width.max(height)];
    for _ in 0..3 {
        for row in 0..height {
            filter(plane, row * width, 1, &mut line[..width], radius);
        }
        for column in 0..width {
            filter(plane, column, width, &mut line[..height], radius);
        }
    }
}

/// One box filter along the line that starts at `start`; at its ends the line is extended with its first and last values.
fn filter(plane: &mut [f32], start: usize, step: usize, line: &mut [f32], radius: usize) {
    let length = line.len();
    for (at, value) in line.iter_mut().enumerate() {
        *value = plane[start + at * step];
    }
    let value = |at: isize| f64::from(line[at.clamp(0, length as isize - 1) as usize]);
    let reach = radius as isize;
    // The filter may reach much further than the line, which one by one would take longer than all of the line.
    let inside = radius.min(length - 1);
    let mut sum: f64 = radius as f64 * value(0)
        + line[..=inside].iter().map(|&value| f64::from(value)).sum::<f64>()
        + (radius - inside) as f64 * value(reach);
    let size = (2 * radius + 1) as f64;
    for at in 0..length {
        plane[start + at * step] = (sum / size) as f32;
        sum += value(at as isize + reach + 1) - value(at as isize - reach);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A chessboard of single pixels: grey where it is blurred, black and white where it is not.
    fn chessboard(width: u32, height: u32, channels: usize) -> Pixels {
        let data = (0..height)
            .flat_map(|y| {
                (0..width).flat_map(move |x| vec![if (x + y) % 2 == 0 { 0 } else { 255 }; channels])
            })
            .collect();
        Pixels { width, height, channels, data }
    }

    #[test]
    fn boxes_are_blurred_and_the_rest_is_unchanged() {
        for channels in [1, 3] {
            let before = chessboard(100, 80, channels);
            let mut after = before.clone();
            blur(&mut after, &[[0.1, 0.1, 0.4, 0.5]]);
            let at = |pixels: &Pixels, x: usize, y: usize| pixels.data[(y * 100 + x) * channels];
            // 10..40 x 8..40 is enlarged by 3.2 and blurred with sigma 3.2.
            assert!((i32::from(at(&after, 25, 24)) - 127).abs() < 12, "{}", at(&after, 25, 24));
            assert!(
                (i32::from(at(&after, 12, 10)) - 127).abs() < 60,
                "the corner, too: {}",
                at(&after, 12, 10)
            );
            for (x, y) in [(70, 24), (25, 70), (99, 79), (60, 60)] {
                assert_eq!(at(&after, x, y), at(&before, x, y), "{x}, {y}");
            }
        }
    }

    #[test]
    fn a_filter_may_reach_further_than_the_line() {
        let mut plane = [10.0, 20.0, 60.0];
        filter(&mut plane, 0, 1, &mut [0.0; 3], 5);
        // Five times what is before the line, the line, and the rest of eleven after it.
        let sums = [50.0 + 90.0 + 3.0 * 60.0, 40.0 + 90.0 + 4.0 * 60.0, 30.0 + 90.0 + 5.0 * 60.0];
        assert_eq!(plane, sums.map(|sum| (sum / 11.0_f64) as f32));
    }

    /// The columns have one pixel each, and the filter reaches 80,000 further: hours if it went there for each of them.
    #[test]
    fn a_wide_image_takes_the_time_of_its_pixels() {
        let mut wide = chessboard(1 << 20, 1, 1);
        blur(&mut wide, &[[0.1, 0.0, 0.9, 1.0]]);
        assert!((i32::from(wide.data[1 << 19]) - 127).abs() < 2);
    }

    #[test]
    fn no_box_and_an_empty_box_change_nothing() {
        let before = chessboard(20, 20, 3);
        for regions in [vec![], vec![[0.5, 0.5, 0.5, 0.5]]] {
            let mut after = before.clone();
            blur(&mut after, &regions);
            assert_eq!(after, before);
        }
    }

    #[test]
    fn a_uniform_image_is_unchanged_and_boxes_may_touch_every_edge() {
        let mut flat = Pixels { width: 7, height: 5, channels: 3, data: vec![200; 7 * 5 * 3] };
        blur(&mut flat, &[[0.0, 0.0, 1.0, 1.0]]);
        assert!(flat.data.iter().all(|&value| value == 200));
    }
}
