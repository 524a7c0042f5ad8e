//! Downscaling by area: a target pixel is the mean of the rectangle of the source that it covers, edge pixels counted
//! by the part that lies inside. The same as `OpenCV`'s `INTER_AREA`, which img2dataset uses.

use super::decode::Pixels;

/// A run of source positions and the share of a target pixel that each has.
struct Span {
    start: usize,
    weights: Vec<f32>,
}

/// Target pixel `i` of `to` covers `[i, i + 1) * from / to` of the source.
fn spans(from: u32, to: u32) -> Vec<Span> {
    let scale = f64::from(from) / f64::from(to);
    (0..to)
        .map(|target| {
            let begin = f64::from(target) * scale;
            let end = (begin + scale).min(f64::from(from));
            let first = begin as usize;
            let last = (end.ceil() as usize).clamp(first + 1, from as usize);
            let covered = |source: usize| {
                let left = begin.max(source as f64);
                let right = end.min(source as f64 + 1.0);
                ((right - left).max(0.0) / scale) as f32
            };
            Span { start: first, weights: (first..last).map(covered).collect() }
        })
        .collect()
}

/// Shrinks `source` to `width` x `height`, neither larger than the source's.
pub(super) fn shrink(source: &Pixels, width: u32, height: u32) -> Pixels {
    let channels = source.channels;
    let row = source.width as usize * channels;
    let columns = spans(source.width, width);
    let mut sums = vec![0.0f32; row];
    let mut data = Vec::with_capacity(width as usize * height as usize * channels);
    for span in spans(source.height, height) {
        sums.fill(0.0);
        for (line, &weight) in source.data[span.start * row..].chunks_exact(row).zip(&span.weights) {
            for (sum, &value) in sums.iter_mut().zip(line) {
                *sum += weight * f32::from(value);
            }
        }
        if channels == 3 {
            across::<3>(&sums, &columns, &mut data);
        } else {
            across::<1>(&sums, &columns, &mut data);
        }
    }
    Pixels { width, height, channels, data }
}

fn across<const C: usize>(sums: &[f32], columns: &[Span], out: &mut Vec<u8>) {
    let (pixels, _) = sums.as_chunks::<C>();
    for column in columns {
        let mut total = [0.0f32; C];
        for (pixel, &weight) in pixels[column.start..].iter().zip(&column.weights) {
            for (total, value) in total.iter_mut().zip(pixel) {
                *total += weight * value;
            }
        }
        out.extend(total.map(|value| (value + 0.5) as u8));
    }
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
        assert_eq!(shrink(&source, 2, 1), grey(2, 1, &[15, 150]));
    }

    #[test]
    fn edge_pixels_count_by_the_part_inside() {
        // 3 -> 2: the first target covers 0 and half of 1: (0 + 30 / 2) / 1.5 = 10; then (30 / 2 + 90) / 1.5 = 70.
        assert_eq!(shrink(&grey(3, 1, &[0, 30, 90]), 2, 1), grey(2, 1, &[10, 70]));
    }

    #[test]
    fn the_same_size_is_the_same_picture() {
        let source = grey(3, 3, &[1, 2, 3, 4, 5, 6, 7, 8, 255]);
        assert_eq!(shrink(&source, 3, 3), source);
    }

    #[test]
    fn weights_add_up_to_one() {
        for (from, to) in [(7, 3), (640, 341), (1000, 999), (65_535, 1), (5, 5)] {
            for span in spans(from, to) {
                let sum: f64 = span.weights.iter().map(|&w| f64::from(w)).sum();
                assert!((sum - 1.0).abs() < 1e-4, "{from} -> {to}: {sum}");
                assert!(span.start + span.weights.len() <= from as usize);
            }
        }
    }
}
