//! The perceptual hash of an image: 64 bits of which few change when the image is resized, re-encoded or slightly edited. As
//! `imagehash.phash` of the Python package `imagehash` computes it with Pillow, bit by bit: grey values, reduced to 32 x 32 with the
//! Lanczos filter, the 8 x 8 lowest frequencies of their discrete cosine transform (DCT-II), and a bit for each that is above
//! their median, in rows, the first one in the most significant bit.

use std::array::from_fn;
use std::cell::RefCell;
use std::f64::consts::PI;
use std::sync::LazyLock;

use fast_image_resize::{Filter, FilterType, ResizeAlg, ResizeOptions, Resizer};

use super::pixels::Pixels;
use super::resample::resample;
use crate::problem::Problem;

/// Side of the reduced image, and of the square of frequencies.
const SIDE: usize = 32;
const LOW: usize = 8;

/// Smallest side of a reduced image of which the hash is still that of the original but for a few bits.
pub(super) const MIN_SIDE: u32 = 128;

/// Bits after the point of Pillow's weights.
const PRECISION: u32 = 22;
/// A weight is stored in two parts of 16 bits, of which the lower has this many bits: for the products of 16 bits that every
/// processor computes several at a time.
const LOWER: u32 = 11;
/// Weights are filled up with zeros to a multiple of this.
const LANES: usize = 8;

/// Amounts below this are rounding errors of a frequency that the image does not have.
const NOISE: f64 = 1e-6;

/// By how much the quick reduction may move a frequency that is near to the median, times the shorter side of the image that it is given.
/// Of 484 COCO photos that were reduced to 256 pixels first, it changes the hash of 27, each in two bits; 13 more have three frequencies
/// that are nearer to the median than this.
const UNCERTAIN: f64 = 7200.0;

/// The hash of an upright image.
pub(super) fn phash(pixels: &Pixels) -> u64 {
    bits(&frequencies(&reduced(pixels)))
}

/// The hash of an image that may have been reduced or decoded at a reduced size, by a filter that is faster and rounds otherwise. Two bits may
/// differ from those of the whole image: those of the two frequencies on both sides of the median. `None` if a third frequency is so near
/// to it that more bits may differ.
pub(super) fn quick_phash(pixels: &Pixels) -> Option<u64> {
    let low = frequencies(&quickly_reduced(pixels).ok()?);
    let median = median(&low);
    let uncertain = UNCERTAIN / f64::from(pixels.width.min(pixels.height));
    let near = low.iter().filter(|&value| (value - median).abs() < uncertain).count();
    (near < 3).then(|| bits(&low))
}

/// The image without a border of one near-white colour, as padding leaves it. An image of nothing else stays as it is.
pub(super) fn without_border(pixels: &Pixels) -> Pixels {
    let row = pixels.width as usize * pixels.channels;
    let white = |values: &[u8]| values.iter().all(|&value| value >= WHITE);
    let rows: Vec<bool> = pixels.data.chunks_exact(row).map(white).collect();
    let column = |x: usize| {
        pixels.data.chunks_exact(row).all(|row| white(&row[x * pixels.channels..(x + 1) * pixels.channels]))
    };
    let (Some(top), Some(bottom)) =
        (rows.iter().position(|white| !white), rows.iter().rposition(|white| !white))
    else {
        return pixels.clone();
    };
    let columns = 0..pixels.width as usize;
    let left = columns.clone().find(|&x| !column(x)).unwrap_or(0);
    let right = columns.rev().find(|&x| !column(x)).unwrap_or(0);
    let keep = left * pixels.channels..(right + 1) * pixels.channels;
    let data = pixels.data.chunks_exact(row).take(bottom + 1).skip(top);
    Pixels {
        width: (right + 1 - left) as u32,
        height: (bottom + 1 - top) as u32,
        channels: pixels.channels,
        data: data.flat_map(|row| &row[keep.clone()]).copied().collect(),
    }
}

/// The darkest value of a white border, which JPEG compression makes uneven next to the image.
const WHITE: u8 = 245;

/// The grey image in 32 x 32, by columns.
fn reduced(pixels: &Pixels) -> [[i16; SIDE]; SIDE] {
    let (width, height) = (pixels.width as usize, pixels.height as usize);
    let (across, down) = (Weights::new(width), Weights::new(height));
    // First along the rows. The result is stored by columns, which the second step reads from start to end.
    let column = height + down.length;
    let mut narrow = vec![0i16; SIDE * column];
    let mut row = vec![0i16; width + across.length];
    for (y, values) in pixels.data.chunks_exact(width * pixels.channels).enumerate() {
        grey(values, pixels.channels, &mut row[..width]);
        for x in 0..SIDE {
            narrow[x * column + y] = across.apply(&row, x);
        }
    }
    let mut small = [[0; SIDE]; SIDE];
    for (column, values) in small.iter_mut().zip(narrow.chunks_exact(column)) {
        for (y, value) in column.iter_mut().enumerate() {
            *value = down.apply(values, y);
        }
    }
    small
}

thread_local! {
    /// Reused, because it keeps its working memory.
    static RESIZER: RefCell<Resizer> = RefCell::new(Resizer::new());
}

/// The same by another library, with the colours reduced before they become grey.
fn quickly_reduced(pixels: &Pixels) -> Result<[[i16; SIDE]; SIDE], Problem> {
    let failed = |_| Problem::resize("resizing failed");
    let filter = Filter::new("lanczos", tabulated, 3.0).map_err(failed)?;
    let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Custom(filter)));
    let channels = pixels.channels;
    let mut target =
        Pixels { width: SIDE as u32, height: SIDE as u32, channels, data: vec![0; SIDE * SIDE * channels] };
    RESIZER.with_borrow_mut(|resizer| resample(resizer, pixels, &mut target, &options))?;
    let mut small = [[0; SIDE]; SIDE];
    let mut row = [0; SIDE];
    for (y, values) in target.data.chunks_exact(SIDE * channels).enumerate() {
        grey(values, channels, &mut row);
        for (column, &value) in small.iter_mut().zip(&row) {
            column[y] = value;
        }
    }
    Ok(small)
}

/// Steps of the table in which the filter is looked up, per unit.
const STEPS: usize = 1024;

/// The Lanczos filter for distances from 0 to 3, and one value more.
static TABLE: LazyLock<Vec<f64>> = LazyLock::new(|| {
    let mut table = Vec::new();
    lanczos(0.0, STEPS as f64, 3 * STEPS + 2, &mut table);
    table
});

/// The Lanczos filter, by linear interpolation.
fn tabulated(x: f64) -> f64 {
    let place = x.abs() * STEPS as f64;
    let (at, part) = (place as usize, place.fract());
    match TABLE.get(at..at + 2) {
        Some(&[low, high]) => low + part * (high - low),
        _ => 0.0,
    }
}

/// Pillow's grey values of a row: ITU-R BT.601 in 16 bits after the point.
fn grey(values: &[u8], channels: usize, row: &mut [i16]) {
    if channels == 1 {
        for (grey, &value) in row.iter_mut().zip(values) {
            *grey = i16::from(value);
        }
        return;
    }
    for (grey, &[red, green, blue]) in row.iter_mut().zip(values.as_chunks::<3>().0) {
        let sum = 19595 * u32::from(red) + 38470 * u32::from(green) + 7471 * u32::from(blue);
        *grey = ((sum + 0x8000) >> 16) as i16;
    }
}

/// The weights of Pillow's Lanczos filter for reducing a side to 32, as integers with 22 bits after the point.
struct Weights {
    /// For each of the 32, the first source position, and `length` weights in two parts.
    first: [usize; SIDE],
    length: usize,
    upper: Vec<i16>,
    lower: Vec<i16>,
}

impl Weights {
    fn new(side: usize) -> Self {
        let scale = side as f64 / SIDE as f64;
        let widened = scale.max(1.0);
        let reach = 3.0 * widened;
        let length = (2 * reach.ceil() as usize + 1).next_multiple_of(LANES);
        let (mut upper, mut lower) = (vec![0; SIDE * length], vec![0; SIDE * length]);
        let mut first = [0; SIDE];
        let mut weights = Vec::with_capacity(length);
        for (target, first) in first.iter_mut().enumerate() {
            let centre = (target as f64 + 0.5) * scale;
            *first = (centre - reach + 0.5).max(0.0) as usize;
            let end = ((centre + reach + 0.5) as usize).min(side);
            lanczos(*first as f64 + 0.5 - centre, widened, end - *first, &mut weights);
            let sum: f64 = weights.iter().sum();
            for (at, weight) in (target * length..).zip(&weights) {
                // Rounded half away from zero, as Pillow does.
                let weight = (weight / sum * f64::from(1u32 << PRECISION)).round() as i32;
                upper[at] = (weight >> LOWER) as i16;
                lower[at] = (weight & ((1 << LOWER) - 1)) as i16;
            }
        }
        Self { first, length, upper, lower }
    }

    /// A value of the reduced side. `values` has `length` values more than the side, of which none counts.
    fn apply(&self, values: &[i16], target: usize) -> i16 {
        let values = &values[self.first[target]..][..self.length];
        let part = |weights: &[i16]| {
            let weights = &weights[target * self.length..][..self.length];
            // Sums of the parts may overflow, their sum does not.
            values
                .iter()
                .zip(weights)
                .fold(0i32, |sum, (&value, &weight)| sum.wrapping_add(i32::from(value) * i32::from(weight)))
        };
        let sum = part(&self.upper).wrapping_shl(LOWER).wrapping_add(part(&self.lower));
        (sum.wrapping_add(1 << (PRECISION - 1)) >> PRECISION).clamp(0, 255) as i16
    }
}

/// The Lanczos filter with three lobes, sinc(x) sinc(x / 3), at `count` positions from `start` in steps of 1, all in units of
/// `widened`.
fn lanczos(start: f64, widened: f64, count: usize, weights: &mut Vec<f64>) {
    weights.clear();
    // sin(pi x / 3) and its cosine are turned from position to position, and sin(pi x) follows from them.
    let (turn_sin, turn_cos) = (PI / 3.0 / widened).sin_cos();
    let (mut sin, mut cos) = (PI / 3.0 * start / widened).sin_cos();
    for at in 0..count {
        let x = (start + at as f64) / widened;
        let square = PI * PI * x * x;
        weights.push(if !(-3.0..3.0).contains(&x) {
            0.0
        } else if square < 1e-6 {
            1.0 - square * (10.0 / 54.0)
        } else {
            3.0 * (3.0 * sin - 4.0 * sin * sin * sin) * sin / square
        });
        (sin, cos) = (sin * turn_cos + cos * turn_sin, cos * turn_cos - sin * turn_sin);
    }
}

/// Twice the cosines of the lowest frequencies.
static COSINES: LazyLock<[[f64; SIDE]; LOW]> = LazyLock::new(|| {
    from_fn(|frequency| {
        from_fn(|at| 2.0 * (PI * frequency as f64 * (2 * at + 1) as f64 / (2 * SIDE) as f64).cos())
    })
});

/// The lowest frequencies, by rows: DCT-II of the columns, then of the rows, without normalisation.
fn frequencies(small: &[[i16; SIDE]; SIDE]) -> [f64; LOW * LOW] {
    let along = |values: &[f64; SIDE], cosines: &[f64; SIDE]| -> f64 {
        values.iter().zip(cosines).map(|(value, cosine)| value * cosine).sum()
    };
    let mut half = [[0.0; SIDE]; LOW];
    for (x, column) in small.iter().enumerate() {
        let column = column.map(f64::from);
        for (half, cosines) in half.iter_mut().zip(&*COSINES) {
            half[x] = along(&column, cosines);
        }
    }
    let mut low = [0.0; LOW * LOW];
    for (row, half) in low.chunks_exact_mut(LOW).zip(&half) {
        for (value, cosines) in row.iter_mut().zip(&*COSINES) {
            *value = along(half, cosines);
        }
    }
    low.map(|value| if value.abs() < NOISE { 0.0 } else { value })
}

fn median(low: &[f64; LOW * LOW]) -> f64 {
    let mut sorted = *low;
    sorted.sort_by(f64::total_cmp);
    f64::midpoint(sorted[LOW * LOW / 2 - 1], sorted[LOW * LOW / 2])
}

/// A bit for every frequency above the median.
fn bits(low: &[f64; LOW * LOW]) -> u64 {
    let median = median(low);
    low.iter().fold(0, |bits, &value| bits << 1 | u64::from(value > median))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::Value;

    use super::*;
    use crate::image::{Encoding, Mode, Settings};
    use crate::rows::Row;

    fn fixture(name: &str) -> Value {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/phash").join(name);
        serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
    }

    /// The images of tests/fixtures/phash/make.py.
    fn generated(width: u32, height: u32, channels: usize, seed: u64, smooth: bool) -> Pixels {
        let divisor = if smooth { u64::from(width) * u64::from(height) / 64 + 1 } else { 1 };
        let value = |x: u32, y: u32, c: usize| {
            let (x, y, c) = (u64::from(x), u64::from(y), c as u64);
            let value = (seed + 1) * x * x * 3 + (seed + 2) * y * y * 5;
            let value = value + (c + 1) * x * y * 7 + (x * seed + y * 31 + c * 17) * 64;
            let value = value / divisor % 512;
            if value > 255 { (511 - value) as u8 } else { value as u8 }
        };
        let places = (0..height).flat_map(|y| (0..width).map(move |x| (x, y)));
        let data = places.flat_map(|(x, y)| (0..channels).map(move |c| value(x, y, c))).collect();
        Pixels { width, height, channels, data }
    }

    #[test]
    fn hashes_are_those_of_imagehash() {
        let rows = fixture("generated.json");
        let rows = rows.as_array().unwrap();
        assert_eq!(rows.len(), 60);
        for row in rows {
            let number = |name: &str| row[name].as_u64().unwrap();
            let image = generated(
                number("width") as u32,
                number("height") as u32,
                number("channels") as usize,
                number("seed"),
                row["smooth"].as_bool().unwrap(),
            );
            assert_eq!(format!("{:016x}", phash(&image)), row["phash"].as_str().unwrap(), "{row}");
        }
    }

    /// The photos of the real data, by the names of photos.json.
    fn photos() -> Vec<(u64, Vec<u8>)> {
        let Some(data) = ::tests::real_data() else { return Vec::new() };
        let known = fixture("photos.json");
        let mut photos = Vec::new();
        for folder in ["coco/images", "coco/semantic_train2017_images"] {
            let Ok(entries) = std::fs::read_dir(data.join(folder)) else { continue };
            for entry in entries {
                let bytes = std::fs::read(entry.unwrap().path()).unwrap();
                let name = &concepts::checksums::sha256(&bytes)[..16];
                if let Some(hash) = known.get(name).and_then(Value::as_str) {
                    photos.push((u64::from_str_radix(hash, 16).unwrap(), bytes));
                }
            }
        }
        photos
    }

    /// How many photos differ from imagehash's value in how many bits, for the settings of a run.
    fn differences(photos: &[(u64, Vec<u8>)], settings: &Settings) -> Vec<usize> {
        let mut counts = vec![0; 65];
        for (expected, bytes) in photos {
            let image = settings.process(bytes, &Row::default()).unwrap();
            counts[(image.phash.unwrap() ^ expected).count_ones() as usize] += 1;
        }
        while counts.last() == Some(&0) {
            counts.pop();
        }
        counts
    }

    #[test]
    fn photos_have_the_hashes_of_imagehash_and_hardly_others_where_they_are_decoded_smaller() {
        let photos = photos();
        if photos.is_empty() {
            println!("skipped: no photos");
            return;
        }
        let whole = Settings { mode: Mode::No, ..Settings::default() };
        assert_eq!(differences(&photos, &whole), [photos.len()]);
        for (mode, size, exact) in [
            (Mode::Border, 256, false),
            (Mode::Border, 256, true),
            (Mode::KeepRatio, 64, false),
            (Mode::Border, 90, false),
            (Mode::CenterCrop, 32, false),
            (Mode::KeepRatio, 512, false),
        ] {
            let settings = Settings { mode, size, exact, ..Settings::default() };
            let counts = differences(&photos, &settings);
            println!("{mode:?} {size} exact {exact}: photos by bits that differ {counts:?}");
            assert!(counts.len() <= 3, "at most 2 bits: {mode:?} {size} exact {exact}: {counts:?}");
        }
    }

    #[test]
    fn few_bits_change_when_photos_are_reduced_and_compressed_again() {
        let photos = photos();
        if photos.is_empty() {
            println!("skipped: no photos");
            return;
        }
        let smaller =
            Settings { mode: Mode::KeepRatio, size: 256, encoding: Encoding::Jpg(75), ..Settings::default() };
        let again: Vec<_> = photos
            .iter()
            .map(|(hash, bytes)| (*hash, smaller.process(bytes, &Row::default()).unwrap().bytes))
            .collect();
        let counts = differences(&again, &Settings { mode: Mode::No, ..Settings::default() });
        println!("reduced to 256 pixels, quality 75: photos by bits that differ {counts:?}");
        let near: usize = counts.iter().take(7).sum();
        assert!(100 * near >= 99 * photos.len(), "{counts:?}");
        // Others differ in about half of all bits.
        let different = |pair: &[(u64, Vec<u8>)]| (pair[0].0 ^ pair[1].0).count_ones() > 6;
        assert!(photos.windows(2).all(different));
    }

    #[test]
    fn an_image_of_one_colour_has_no_frequency_but_the_lowest() {
        for value in [0, 1, 77, 255] {
            let image = Pixels { width: 50, height: 70, channels: 3, data: vec![value; 50 * 70 * 3] };
            let expected = if value == 0 { 0 } else { 1 << 63 };
            assert_eq!(phash(&image), expected, "{value}");
        }
        let one = Pixels { width: 1, height: 1, channels: 1, data: vec![9] };
        assert_eq!(phash(&one), 1 << 63);
    }

    #[test]
    fn a_white_border_is_cut_off_and_white_inside_is_kept() {
        let image = |width: u32, data: &[u8]| Pixels {
            width,
            height: data.len() as u32 / width,
            channels: 1,
            data: data.to_vec(),
        };
        let framed = image(
            5,
            &[255, 250, 255, 255, 255, 255, 9, 255, 8, 250, 255, 255, 7, 255, 255, 255, 255, 255, 255, 255],
        );
        assert_eq!(without_border(&framed), image(3, &[9, 255, 8, 255, 7, 255]));
        let none = image(2, &[1, 255, 255, 2]);
        assert_eq!(without_border(&none), none);
        let white = image(2, &[255; 6]);
        assert_eq!(without_border(&white), white);
        let colour = Pixels {
            width: 3,
            height: 1,
            channels: 3,
            data: vec![255, 255, 255, 255, 0, 255, 255, 255, 255],
        };
        assert_eq!(without_border(&colour).data, [255, 0, 255]);
    }
}
