//! Heat maps.

use image::{Rgb, RgbImage};

use super::mix;

/// Opacity of the colours in a heat map; under them is the photograph in grey, so that shapes stay visible.
const OPACITY: f32 = 0.72;

/// Colour of a value between 0 and 1: viridis (Smith and van der Walt, 2015), whose brightness increases with the value, also for
/// colour-blind readers and in print without colours. Nine of its colours, interpolated.
pub fn ramp(value: f32) -> Rgb<u8> {
    const STOPS: [[u8; 3]; 9] = [
        [68, 1, 84],
        [71, 45, 123],
        [59, 82, 139],
        [44, 114, 142],
        [33, 145, 140],
        [40, 174, 128],
        [94, 201, 98],
        [173, 220, 48],
        [253, 231, 37],
    ];
    let place = value.clamp(0.0, 1.0) * (STOPS.len() - 1) as f32;
    let below = (place as usize).min(STOPS.len() - 2);
    mix(Rgb(STOPS[below]), Rgb(STOPS[below + 1]), place - below as f32)
}

/// The photograph in grey under the colours of `values`, one per pixel, row by row. `low` is the dark end of the colour scale and
/// `high` the light end.
pub fn heat(photo: &RgbImage, values: &[f32], low: f32, high: f32) -> RgbImage {
    debug_assert_eq!(values.len(), (photo.width() * photo.height()) as usize);
    let span = (high - low).max(f32::MIN_POSITIVE);
    let mut out = photo.clone();
    for (pixel, &value) in out.pixels_mut().zip(values) {
        let [red, green, blue] = pixel.0.map(f32::from);
        let grey = (0.299 * red + 0.587 * green + 0.114 * blue).round() as u8;
        *pixel = mix(Rgb([grey; 3]), ramp((value - low) / span), OPACITY);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ramp_grows_lighter_all_the_way() {
        let light = |value: f32| {
            let [red, green, blue] = ramp(value).0.map(f32::from);
            0.2126 * red + 0.7152 * green + 0.0722 * blue
        };
        for step in 0..100 {
            let (here, next) = (step as f32 / 100.0, (step + 1) as f32 / 100.0);
            assert!(light(next) > light(here), "at {here}");
        }
        assert_eq!((ramp(-3.0), ramp(9.0)), (Rgb([68, 1, 84]), Rgb([253, 231, 37])));
    }
}
