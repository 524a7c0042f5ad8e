//! Colours, and the reproducible noise that all textures are made of.

use std::ops::{Add, Mul};

use rand::Rng;
use rand_chacha::ChaCha8Rng;

/// A colour. The components are display values, in 0..1 in the finished image.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Rgb(pub(crate) [f32; 3]);

impl Add for Rgb {
    type Output = Self;

    #[inline]
    fn add(self, other: Self) -> Self {
        let ([r, g, b], [x, y, z]) = (self.0, other.0);
        Self([r + x, g + y, b + z])
    }
}

impl Mul<f32> for Rgb {
    type Output = Self;

    #[inline]
    fn mul(self, by: f32) -> Self {
        let [r, g, b] = self.0;
        Self([r * by, g * by, b * by])
    }
}

impl Rgb {
    // Operations are written out per component and inlined: mapping over arrays would cost a third of the rendering
    // time.

    pub(crate) const WHITE: Self = Self([1.0; 3]);
    pub(crate) const INK: Self = Self([0.07, 0.06, 0.07]);

    /// A mix with the fraction `share` of `other`.
    #[inline]
    pub(crate) fn mix(self, other: Self, share: f32) -> Self {
        let share = share.clamp(0.0, 1.0);
        self * (1.0 - share) + other * share
    }
}

/// A colour from hue (0..1), saturation and value.
pub(crate) fn hsv(hue: f32, saturation: f32, value: f32) -> Rgb {
    let component = |n: f32| {
        let k = (n + hue.rem_euclid(1.0) * 6.0) % 6.0;
        value - value * saturation * k.min(4.0 - k).clamp(0.0, 1.0)
    };
    Rgb([component(5.0), component(3.0), component(1.0)])
}

/// [`hsv`] with a small random variation: objects of a class differ in colour, but the class stays recognisable.
pub(crate) fn shade_of(rng: &mut ChaCha8Rng, hue: f32, saturation: f32, value: f32) -> Rgb {
    let hue = hue + rng.random_range(-0.018..0.018);
    let saturation = (saturation + rng.random_range(-0.08..0.08)).clamp(0.0, 1.0);
    let value = (value + rng.random_range(-0.08..0.06)).clamp(0.0, 1.0);
    hsv(hue, saturation, value)
}

/// 0 below `from`, 1 above `to`, smooth in between. `from` may be greater than `to`, which reverses the direction.
#[inline]
pub(crate) fn smoothstep(from: f32, to: f32, x: f32) -> f32 {
    let t = ((x - from) / (to - from)).clamp(0.0, 1.0);
    t * t * (3.0 - 2.0 * t)
}

/// `f32::floor` as an integer. Several times faster on targets where the compiler has to call a library function.
#[inline]
pub(crate) fn floor(x: f32) -> i32 {
    let cut = x as i32;
    cut - i32::from(x < cut as f32)
}

/// A pseudo-random number in 0..1 for a cell of the integer grid, determined by cell and seed.
#[inline]
pub(crate) fn cell(x: i32, y: i32, seed: u32) -> f32 {
    // Odd multipliers spread neighbouring cells over all bits; the shifts move high bits down again.
    let mut h = (x as u32).wrapping_mul(0x9E37_79B1)
        ^ (y as u32).wrapping_mul(0x85EB_CA77)
        ^ seed.wrapping_mul(0xC2B2_AE3D);
    h = (h ^ (h >> 15)).wrapping_mul(0x27D4_EB2F);
    h = (h ^ (h >> 13)).wrapping_mul(0x1656_67B1);
    ((h ^ (h >> 16)) >> 8) as f32 / (1 << 24) as f32
}

/// Smooth noise in 0..1 with mean 0.5. Its features are about one unit wide.
#[inline]
pub(crate) fn noise(x: f32, y: f32, seed: u32) -> f32 {
    let (column, row) = (floor(x), floor(y));
    let (dx, dy) = (x - column as f32, y - row as f32);
    let (dx, dy) = (dx * dx * (3.0 - 2.0 * dx), dy * dy * (3.0 - 2.0 * dy));
    let (a, b) = (cell(column, row, seed), cell(column + 1, row, seed));
    let (c, d) = (cell(column, row + 1, seed), cell(column + 1, row + 1, seed));
    let (top, bottom) = (a + (b - a) * dx, c + (d - c) * dx);
    top + (bottom - top) * dy
}

/// Two octaves of [`noise`]: large shapes with some detail.
pub(crate) fn noise2(x: f32, y: f32, seed: u32) -> f32 {
    0.67 * noise(x, y, seed) + 0.33 * noise(2.1 * x + 17.3, 2.1 * y + 5.9, seed ^ 0x5555)
}

/// Thin lines where [`noise`] crosses 0.5: 1 on the line, 0 far from it.
pub(crate) fn ridge(x: f32, y: f32, seed: u32) -> f32 {
    1.0 - (2.0 * noise(x, y, seed) - 1.0).abs()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hsv_agrees_with_the_corners_of_the_colour_wheel() {
        for (hue, wanted) in [
            (0.0, [1.0, 0.0, 0.0]),
            (1.0 / 6.0, [1.0, 1.0, 0.0]),
            (1.0 / 3.0, [0.0, 1.0, 0.0]),
            (0.5, [0.0, 1.0, 1.0]),
            (2.0 / 3.0, [0.0, 0.0, 1.0]),
            (5.0 / 6.0, [1.0, 0.0, 1.0]),
        ] {
            let Rgb(got) = hsv(hue, 1.0, 1.0);
            for (a, b) in got.iter().zip(wanted) {
                assert!((a - b).abs() < 1e-5, "hue {hue}: {got:?}");
            }
        }
        assert_eq!(hsv(0.3, 0.0, 0.5).0, [0.5; 3], "no saturation is grey");
    }

    #[test]
    fn floor_agrees_with_the_library() {
        for x in [-2.5_f32, -2.0, -0.1, 0.0, 0.1, 1.0, 7.9] {
            assert_eq!(floor(x), x.floor() as i32);
        }
    }

    #[test]
    fn noise_is_bounded_and_centred() {
        let values: Vec<f32> = (0..4000).map(|i| noise(i as f32 * 0.37, (i / 50) as f32 * 0.41, 7)).collect();
        assert!(values.iter().all(|v| (0.0..=1.0).contains(v)));
        let mean = values.iter().sum::<f32>() / values.len() as f32;
        assert!((mean - 0.5).abs() < 0.05, "{mean}");
    }
}
