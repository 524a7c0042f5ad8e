//! Chooses the crop of an image: a function of the seed, the epoch and the sample only.

use crate::order::SampleId;
use crate::order::permutation::Draws;
use crate::settings::{Crop, ImageSettings};

/// Separates the draws of the augmentation from the keys of the order.
const AUGMENTATION: u64 = 3;

/// Number of random crops that are tried, as in torchvision.
const TRIES: usize = 10;

/// The region of an image that is used, and whether it is flipped.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct View {
    /// The crop region.
    pub region: CropRegion,
    /// Whether it is flipped horizontally.
    pub flip: bool,
}

/// A crop region, in pixels of the image.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum CropRegion {
    /// Crop, then resize: pixels outside the region have no influence on the result.
    CropThenResize {
        /// First column.
        left: u32,
        /// First row.
        top: u32,
        /// Columns.
        width: u32,
        /// Rows.
        height: u32,
    },
    /// Resize the whole image, then crop: pixels just outside the region influence the result, as the resampling filter
    /// covers them.
    ResizeThenCrop {
        /// Left edge.
        left: f64,
        /// Upper edge.
        top: f64,
        /// Width.
        width: f64,
        /// Height.
        height: f64,
    },
}

impl CropRegion {
    /// Width and height.
    pub fn extent(self) -> (f64, f64) {
        match self {
            Self::CropThenResize { width, height, .. } => (width.into(), height.into()),
            Self::ResizeThenCrop { width, height, .. } => (width, height),
        }
    }

    /// The same region in an image of `width` x `height` pixels that is scaled to `eighths` / 8. If the edges of a
    /// [`CropRegion::CropThenResize`] then lie between pixels, the result is a [`CropRegion::ResizeThenCrop`].
    #[must_use]
    pub fn scaled(self, eighths: u32, width: u32, height: u32) -> Self {
        if eighths == 8 {
            return self;
        }
        let (left, top, w, h) = match self {
            Self::CropThenResize { left, top, width, height } => {
                (f64::from(left), f64::from(top), f64::from(width), f64::from(height))
            }
            Self::ResizeThenCrop { left, top, width, height } => (left, top, width, height),
        };
        // The last pixel of the scaled image may cover fewer pixels than the others, so the region stays inside.
        let by = f64::from(eighths) / 8.0;
        debug_assert!(left + w <= f64::from(width) + 1e-6 && top + h <= f64::from(height) + 1e-6);
        Self::ResizeThenCrop { left: left * by, top: top * by, width: w * by, height: h * by }
    }

    /// The same region with coordinates relative to this column and row of the image.
    #[must_use]
    pub fn seen_from(self, column: u32, row: u32) -> Self {
        match self {
            Self::CropThenResize { left, top, width, height } => {
                Self::CropThenResize { left: left - column, top: top - row, width, height }
            }
            Self::ResizeThenCrop { left, top, width, height } => Self::ResizeThenCrop {
                left: left - f64::from(column),
                top: top - f64::from(row),
                width,
                height,
            },
        }
    }
}

/// The random draws for one sample in one epoch.
fn draws(seed: u64, epoch: u64, sample: SampleId) -> Draws {
    Draws::new(&[seed, epoch, AUGMENTATION, sample.shard.into(), sample.sample.into()])
}

impl View {
    /// Chooses the view of a sample's image of `width` x `height` pixels, both at least 1, in an epoch.
    pub fn choose(
        settings: &ImageSettings,
        (seed, epoch, sample): (u64, u64, SampleId),
        width: u32,
        height: u32,
    ) -> Self {
        let mut draws = draws(seed, epoch, sample);
        let flip = draws.uniform(0.0, 1.0) < f64::from(settings.flip);
        let region = match settings.crop {
            Crop::RandomResized { scale, ratio, .. } => {
                let range = |(low, high): (f32, f32)| (f64::from(low), f64::from(high));
                random_region(&mut draws, range(scale), range(ratio), width, height)
            }
            Crop::Centre { size } => centre(size, width, height),
        };
        Self { region, flip }
    }
}

/// As torchvision's `RandomResizedCrop`: draws an area (uniform) and an aspect ratio (log-uniform) up to ten times,
/// then a position. If none fits into the image, the largest centred region with an allowed ratio is used. Values are
/// rounded half to even, as in Python.
fn random_region(
    draws: &mut Draws,
    scale: (f64, f64),
    ratio: (f64, f64),
    width: u32,
    height: u32,
) -> CropRegion {
    let (full_width, full_height) = (f64::from(width), f64::from(height));
    for _ in 0..TRIES {
        let area = full_width * full_height * draws.uniform(scale.0, scale.1);
        let aspect = draws.uniform(ratio.0.ln(), ratio.1.ln()).exp();
        let w = (area * aspect).sqrt().round_ties_even() as u32;
        let h = (area / aspect).sqrt().round_ties_even() as u32;
        if (1..=width).contains(&w) && (1..=height).contains(&h) {
            let top = draws.below(u64::from(height - h) + 1) as u32;
            let left = draws.below(u64::from(width - w) + 1) as u32;
            return CropRegion::CropThenResize { left, top, width: w, height: h };
        }
    }
    let aspect = full_width / full_height;
    let (mut w, mut h) = (width, height);
    if aspect < ratio.0 {
        h = ((full_width / ratio.0).round_ties_even() as u32).clamp(1, height);
    } else if aspect > ratio.1 {
        w = ((full_height * ratio.1).round_ties_even() as u32).clamp(1, width);
    }
    CropRegion::CropThenResize { left: (width - w) / 2, top: (height - h) / 2, width: w, height: h }
}

/// As torchvision's `Resize(size)` (which rounds the long side down) followed by `CenterCrop(size)`, as one region. All
/// centre crops use it: the loader's ([`Crop::Centre`]) and [`centre_crop`](crate::samples::pixels::centre_crop).
pub(crate) fn centre(size: u32, width: u32, height: u32) -> CropRegion {
    let long = |long: u32, short: u32| (u64::from(size) * u64::from(long) / u64::from(short)) as u32;
    let (resized_width, resized_height) =
        if width <= height { (size, long(height, width)) } else { (long(width, height), size) };
    let (across, down) =
        (f64::from(width) / f64::from(resized_width), f64::from(height) / f64::from(resized_height));
    let middle = |resized: u32| (f64::from(resized - size) / 2.0).round_ties_even();
    let (left, top) = (middle(resized_width) * across, middle(resized_height) * down);
    CropRegion::ResizeThenCrop {
        left,
        top,
        // Rounding must not push the region outside: in f64, 112 * (225 / 112) is a little more than 225.
        width: (f64::from(size) * across).min(f64::from(width) - left),
        height: (f64::from(size) * down).min(f64::from(height) - top),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Options;

    fn fixture() -> serde_json::Value {
        serde_json::from_str(include_str!("../../tests/fixtures/crop.json")).unwrap()
    }

    #[test]
    fn the_centre_crop_is_inside_the_image() {
        for size in [112, 224, 448] {
            for (width, height) in (1..1500).flat_map(|side| [(side, 640), (640, side)]) {
                let CropRegion::ResizeThenCrop { left, top, width: w, height: h } =
                    centre(size, width, height)
                else {
                    panic!("a centre crop is part of the resized image")
                };
                let inside = left + w <= f64::from(width) && top + h <= f64::from(height);
                assert!(inside && left >= 0.0 && top >= 0.0, "{size} px of {width} x {height}");
            }
        }
    }

    fn id(sample: u32) -> SampleId {
        SampleId { shard: 0, sample }
    }

    const RATIO: (f64, f64) = (3.0 / 4.0, 4.0 / 3.0);

    #[test]
    fn falls_back_as_torchvision_does() {
        for case in fixture()["fallbacks"].as_array().unwrap() {
            let [width, height] = ["width", "height"].map(|name| case[name].as_u64().unwrap() as u32);
            let [left, top, w, h] = serde_json::from_value(case["part"].clone()).unwrap();
            let region = random_region(&mut draws(0, 0, id(0)), (2.0, 2.0), RATIO, width, height);
            assert_eq!(
                region,
                CropRegion::CropThenResize { left, top, width: w, height: h },
                "{width} x {height}"
            );
        }
    }

    /// Position, size, area and aspect ratio: the share of draws at or below each decile of torchvision's 50,000 draws.
    #[test]
    fn draws_are_distributed_as_torchvisions() {
        for case in fixture()["marginals"].as_array().unwrap() {
            let [width, height] = ["width", "height"].map(|name| case[name].as_u64().unwrap() as u32);
            let scale: (f64, f64) = serde_json::from_value(case["scale"].clone()).unwrap();
            let count = 50_000;
            let mut drawn: [Vec<f64>; 6] = Default::default();
            for sample in 0..count {
                let region = random_region(&mut draws(1, 2, id(sample)), scale, RATIO, width, height);
                let CropRegion::CropThenResize { left, top, width: w, height: h } = region else {
                    panic!("not cropped first: {region:?}")
                };
                assert!(w > 0 && h > 0 && left + w <= width && top + h <= height);
                let [left, top, w, h] = [left, top, w, h].map(f64::from);
                for (values, value) in drawn.iter_mut().zip([left, top, w, h, w * h, w / h]) {
                    values.push(value);
                }
            }
            let names = ["left", "top", "width", "height", "area", "ratio"];
            for (name, values) in names.iter().zip(&drawn) {
                let list = |part: &str| -> Vec<f64> {
                    serde_json::from_value(case[format!("{name}_{part}")].clone()).unwrap()
                };
                for (at, expected) in list("at").into_iter().zip(list("share")) {
                    let share =
                        values.iter().filter(|&&value| value <= at + 1e-9).count() as f64 / f64::from(count);
                    // The standard deviation of a difference of two shares of 50,000 draws is at most 0.0032.
                    let apart = (share - expected).abs();
                    let what = format!("{width} x {height}, {scale:?}: {name} <= {at}");
                    assert!(apart < 0.014, "{what} in {share} of the draws, not in {expected}");
                }
            }
        }
    }

    #[test]
    fn the_view_depends_only_on_seed_epoch_and_sample() {
        let crop = Crop::RandomResized { size: 224, scale: (0.25, 1.0), ratio: (3.0 / 4.0, 4.0 / 3.0) };
        let settings = ImageSettings { crop, flip: 0.5 };
        let view = |seed, epoch, sample| View::choose(&settings, (seed, epoch, id(sample)), 640, 480);
        assert_eq!(view(1, 2, 3), view(1, 2, 3));
        for other in [view(2, 2, 3), view(1, 3, 3), view(1, 2, 4)] {
            assert_ne!(view(1, 2, 3), other);
        }
        let flipped = (0..10_000).filter(|&sample| view(0, 0, sample).flip).count();
        assert!((4_800..5_200).contains(&flipped), "{flipped} of 10,000 flipped");
    }

    #[test]
    fn tiny_and_extreme_images_have_a_view() {
        for (width, height) in [(1, 1), (1, 5000), (5000, 1), (2, 3), (30_000, 20)] {
            for crop in [Options::default().image().crop, Crop::Centre { size: 16 }] {
                let settings = ImageSettings { crop, flip: 0.0 };
                let (left, top, w, h) = match View::choose(&settings, (0, 0, id(0)), width, height).region {
                    CropRegion::CropThenResize { left, top, width, height } => {
                        (left.into(), top.into(), width.into(), height.into())
                    }
                    CropRegion::ResizeThenCrop { left, top, width, height } => (left, top, width, height),
                };
                assert!(w > 0.0 && h > 0.0 && left >= 0.0 && top >= 0.0);
                assert!(left + w <= f64::from(width) + 1e-9 && top + h <= f64::from(height) + 1e-9);
            }
        }
    }
}
