//! The crops on which DINOv2's linear segmentation is trained: images at random scales, cropped, mirrored and with changed colours, by
//! the rules and numbers of mmsegmentation 0.27 (`Resize`, `RandomCrop`, `RandomFlip`, `PhotoMetricDistortion`, `Pad`).

use image::RgbImage;
use rand::Rng;
use rand_chacha::ChaCha8Rng;

use crate::evaluation::confusion::IGNORED;
use crate::evaluation::masks::Mask;
use crate::inference::opencv;
use crate::inference::window::Window;

/// The sides of the image are multiplied by a number of this range.
const SCALES: std::ops::Range<f64> = 0.5..2.0;
/// A crop should have at most this share of one class.
const MOST_OF_ONE_CLASS: f64 = 0.75;
/// Crops that are tried until one has not more.
const TRIES: usize = 10;

/// A square part of an image with its labels.
#[derive(Debug)]
pub struct Crop {
    /// [side, side, 3], 0..255.
    pub pixels: Vec<f32>,
    /// [side, side]; beyond the image they do not count.
    pub labels: Vec<u8>,
}

/// A random crop with the side of the window, from an image whose short side is that of the window times a random scale. Beyond the
/// image, the crop is filled with one colour.
pub fn crop(
    image: &RgbImage,
    mask: &Mask,
    window: &Window,
    filling: [f32; 3],
    random: &mut ChaCha8Rng,
) -> Crop {
    let side = window.side as u32;
    let scale = random.random_range(SCALES);
    let scaled = |length: i64| (length as f64 * scale) as i64;
    let fit = Window { short: scaled(window.short).max(1), long: scaled(window.long), ..*window };
    let (height, width) = fit.fit(image.height().into(), image.width().into());
    let (height, width) = (height as u32, width as u32);
    let image = opencv::resize(image, width, height);
    let labels = nearest(mask, height, width);
    let (high, wide) = (side.min(height), side.min(width));
    let mut place = (0, 0);
    for _ in 0..TRIES {
        place = (random.random_range(0..=height - high), random.random_range(0..=width - wide));
        if is_varied(&labels, width, place, (high, wide)) {
            break;
        }
    }
    let mirrored = random.random_bool(0.5);
    let colours = Colours::draw(random);
    let mut pixels = filling.repeat((side * side) as usize);
    let mut out = vec![IGNORED; (side * side) as usize];
    for row in 0..high {
        for column in 0..wide {
            let from = place.1 + if mirrored { wide - 1 - column } else { column };
            let at = (row * side + column) as usize;
            let pixel = image.get_pixel(from, place.0 + row).0.map(f32::from);
            pixels[3 * at..3 * at + 3].copy_from_slice(&colours.apply(pixel));
            out[at] = labels[((place.0 + row) * width + from) as usize];
        }
    }
    Crop { pixels, labels: out }
}

/// The labels of a mask that is resized by nearest neighbour, as OpenCV does it.
fn nearest(mask: &Mask, height: u32, width: u32) -> Vec<u8> {
    let from = |to: u32, size: u32, of: u32| (u64::from(to) * u64::from(of) / u64::from(size)) as usize;
    let columns: Vec<usize> = (0..width).map(|column| from(column, width, mask.width)).collect();
    let row = |row: u32| from(row, height, mask.height) * mask.width as usize;
    (0..height).flat_map(|to| columns.iter().map(move |column| mask.labels[row(to) + column])).collect()
}

/// Whether a part of an image has several classes and not too much of one; pixels that do not count are left out.
fn is_varied(labels: &[u8], width: u32, (top, left): (u32, u32), (high, wide): (u32, u32)) -> bool {
    let mut counts = [0_u32; 256];
    for row in top..top + high {
        for &label in &labels[(row * width + left) as usize..][..wide as usize] {
            counts[usize::from(label)] += 1;
        }
    }
    counts[usize::from(IGNORED)] = 0;
    let (sum, most) = (counts.iter().sum::<u32>(), counts.iter().copied().max().unwrap_or(0));
    counts.iter().filter(|&&count| count > 0).count() > 1
        && f64::from(most) < MOST_OF_ONE_CLASS * f64::from(sum)
}

/// How the colours of a crop change. Steps that are not drawn are left out.
#[derive(Debug, Clone, Copy, Default)]
pub struct Colours {
    /// Added to each channel, -32 to 32.
    pub brightness: Option<f32>,
    /// Factor on each channel, 0.5 to 1.5.
    pub contrast: Option<f32>,
    /// Whether contrast changes before saturation and hue, or after them.
    pub contrast_first: bool,
    /// Factor on the saturation, 0.5 to 1.5.
    pub saturation: Option<f32>,
    /// Added to the hue, -36 to 36 degrees.
    pub hue: Option<f32>,
}

impl Colours {
    fn draw(random: &mut ChaCha8Rng) -> Self {
        let mut maybe = |low: f32, high: f32| random.random_bool(0.5).then(|| random.random_range(low..high));
        let brightness = maybe(-32.0, 32.0);
        let (contrast, saturation, hue) = (maybe(0.5, 1.5), maybe(0.5, 1.5), maybe(-36.0, 36.0));
        Self { brightness, contrast, contrast_first: random.random_bool(0.5), saturation, hue }
    }

    /// The changed colour of a pixel, 0..255. After each step it is cut to whole numbers of that range, as bytes are; hue and saturation
    /// themselves are not rounded.
    pub fn apply(&self, pixel: [f32; 3]) -> [f32; 3] {
        let bytes = |pixel: [f32; 3]| pixel.map(|value| value.clamp(0.0, 255.0).floor());
        let contrast =
            |pixel: [f32; 3]| self.contrast.map_or(pixel, |by| bytes(pixel.map(|value| value * by)));
        let mut pixel = self.brightness.map_or(pixel, |by| bytes(pixel.map(|value| value + by)));
        if self.contrast_first {
            pixel = contrast(pixel);
        }
        if self.saturation.is_some() || self.hue.is_some() {
            let [hue, saturation, value] = to_hsv(pixel);
            let saturation = (saturation * self.saturation.unwrap_or(1.0)).min(1.0);
            // Rounded, as OpenCV does.
            let rgb = from_hsv([hue + self.hue.unwrap_or(0.0), saturation, value]);
            pixel = rgb.map(|value| value.round().clamp(0.0, 255.0));
        }
        if self.contrast_first { pixel } else { contrast(pixel) }
    }
}

/// Hue in degrees, saturation 0..1, and value as the channels have it.
fn to_hsv([red, green, blue]: [f32; 3]) -> [f32; 3] {
    let value = red.max(green).max(blue);
    let range = value - red.min(green).min(blue);
    if range == 0.0 {
        return [0.0, 0.0, value];
    }
    let hue = if value == red {
        (green - blue) / range
    } else if value == green {
        2.0 + (blue - red) / range
    } else {
        4.0 + (red - green) / range
    };
    [60.0 * hue, range / value, value]
}

fn from_hsv([hue, saturation, value]: [f32; 3]) -> [f32; 3] {
    [5.0, 3.0, 1.0].map(|of_channel| {
        let place = (of_channel + hue / 60.0).rem_euclid(6.0);
        value * (1.0 - saturation * place.min(4.0 - place).clamp(0.0, 1.0))
    })
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    /// Calculated by hand: (200, 100, 50) has hue 20 degrees, saturation 0.75 and value 200.
    #[test]
    fn colours_change_as_calculated() {
        let pixel = [200.0, 100.0, 50.0];
        let none = Colours::default();
        for (colours, expected) in [
            (none, pixel),
            (Colours { brightness: Some(32.0), ..none }, [232.0, 132.0, 82.0]),
            (Colours { brightness: Some(-60.0), ..none }, [140.0, 40.0, 0.0]),
            (Colours { contrast: Some(1.5), ..none }, [255.0, 150.0, 75.0]),
            (Colours { saturation: Some(0.5), ..none }, [200.0, 150.0, 125.0]),
            // No more than full saturation.
            (Colours { saturation: Some(1.5), ..none }, [200.0, 67.0, 0.0]),
            (Colours { hue: Some(60.0), ..none }, [150.0, 200.0, 50.0]),
            (Colours { hue: Some(-60.0), ..none }, [200.0, 50.0, 150.0]),
            // Half of the contrast before more brightness would be cut off, or after it.
            (
                Colours { contrast: Some(0.5), contrast_first: true, hue: Some(60.0), ..none },
                [75.0, 100.0, 25.0],
            ),
            (Colours { contrast: Some(2.0), saturation: Some(0.5), ..none }, [255.0, 255.0, 250.0]),
            (
                Colours { contrast: Some(2.0), contrast_first: true, saturation: Some(0.5), ..none },
                [255.0, 228.0, 178.0],
            ),
        ] {
            let found = colours.apply(pixel);
            let apart = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(apart <= 1.0, "{colours:?}: {found:?}, expected {expected:?}");
        }
    }

    /// Labels stay with their pixels, whatever the scale, the place and the side.
    #[test]
    fn crops_have_the_labels_of_their_pixels() {
        // Squares of 20 pixels in the grey level 10 x label, without a change of colours.
        let label = |x: u32, y: u32| 3 + ((x / 20 + 2 * (y / 20)) % 7) as u8;
        let image = RgbImage::from_fn(120, 90, |x, y| image::Rgb([10 * label(x, y); 3]));
        let labels = (0..90).flat_map(|y| (0..120).map(move |x| label(x, y))).collect();
        let mask = Mask { width: 120, height: 90, labels };
        let window = Window { short: 60, long: 2048, side: 60, stride: 60, ..Window::PUBLISHED };
        let (mut inside, mut beyond, mut same) = (0, 0, 0);
        for seed in 0..80 {
            let crop = crop(&image, &mask, &window, [1.0, 2.0, 3.0], &mut ChaCha8Rng::seed_from_u64(seed));
            assert_eq!((crop.pixels.len(), crop.labels.len()), (3 * 60 * 60, 60 * 60));
            let mut greys = std::collections::BTreeMap::<u8, Vec<f32>>::new();
            for (label, pixel) in crop.labels.iter().zip(crop.pixels.chunks(3)) {
                greys.entry(*label).or_default().push(pixel[0]);
            }
            for (label, mut greys) in greys {
                if label == IGNORED {
                    beyond += greys.len();
                    assert!(greys.iter().all(|&grey| grey == 1.0));
                    continue;
                }
                inside += greys.len();
                // Colours differ by crop, but most pixels of a label have one.
                greys.sort_by(f32::total_cmp);
                let middle = greys[greys.len() / 2];
                same += greys.iter().filter(|&&grey| (grey - middle).abs() <= 2.0).count();
            }
        }
        assert!(beyond > 0 && inside > 5 * beyond, "{inside}, {beyond}");
        assert!(same as f64 > 0.75 * inside as f64, "{same} of {inside}");
    }

    #[test]
    fn crops_of_one_class_are_avoided() {
        // The left tenth is of another class; the rest is one class or does not count.
        let labels: Vec<u8> = (0..100 * 100).map(|at| u8::from(at % 100 >= 20)).collect();
        assert!(!is_varied(&labels, 100, (0, 40), (50, 50)), "one class");
        assert!(!is_varied(&labels, 100, (0, 10), (50, 50)), "80 % of one");
        assert!(is_varied(&labels, 100, (0, 0), (50, 50)), "60 % of one");
        let ignored: Vec<u8> = labels.iter().map(|&label| if label == 1 { IGNORED } else { label }).collect();
        assert!(!is_varied(&ignored, 100, (0, 0), (50, 50)));
    }
}
