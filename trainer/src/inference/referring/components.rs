//! The connected parts of a mask, and what the rules ask of them.

use super::map::Map;
use super::words::{Place, Side};

/// A connected part of a mask. Positions are shares of the width and the height of the image.
#[derive(Debug, Clone, PartialEq)]
pub struct Component {
    /// Number of pixels.
    pub area: usize,
    /// Mean over its pixels of the similarity, as a share of the range of the map.
    pub similarity: f64,
    /// Mean position of its pixels from the left.
    pub x: f64,
    /// Mean position of its pixels from the top.
    pub y: f64,
    /// Mean over its pixels of the ramp that is 1 in the centre and 0 in the corners.
    middle: f64,
    /// Mean over its pixels of the ramp that is 1 in the corners and 0 along the axes of the image.
    corner: f64,
}

impl Component {
    /// Mean over its pixels of the ramp of a place: from 1 at the place to 0 at the opposite end of the image.
    pub fn at(&self, place: Place) -> f64 {
        match place {
            Place::At(Side::Left) => 1.0 - self.x,
            Place::At(Side::Right) => self.x,
            Place::At(Side::Top) => 1.0 - self.y,
            Place::At(Side::Bottom) => self.y,
            Place::Middle => self.middle,
            Place::Corner => self.corner,
        }
    }
}

/// The parts of a mask, with the number of its part for each pixel; `NONE` outside.
#[derive(Debug)]
pub struct Components {
    /// For each pixel.
    pub numbers: Vec<u32>,
    /// In the order of their first pixels, row by row.
    pub all: Vec<Component>,
}

/// The number of pixels outside.
pub const NONE: u32 = u32::MAX;

impl Components {
    /// The parts of a mask of the map in which pixels are connected to their four neighbours.
    pub fn new(map: &Map, inside: &[bool]) -> Self {
        let (width, height) = (map.width, map.height);
        let (low, high) = map.range();
        let range = f64::from(high - low);
        let mut numbers = vec![NONE; inside.len()];
        let mut all = Vec::new();
        let mut open = Vec::new();
        for first in 0..inside.len() {
            if !inside[first] || numbers[first] != NONE {
                continue;
            }
            let number = all.len() as u32;
            let mut sums = [0.0f64; 5];
            let mut area = 0;
            numbers[first] = number;
            open.push(first);
            while let Some(at) = open.pop() {
                let (column, row) = (at % width, at / width);
                let (x, y) = ((column as f64 + 0.5) / width as f64, (row as f64 + 0.5) / height as f64);
                let (across, down) = ((2.0 * x - 1.0).abs(), (2.0 * y - 1.0).abs());
                let value = f64::from(map.values[at] - low);
                let similarity = if range > 0.0 { value / range } else { 1.0 };
                let own = [similarity, x, y, 1.0 - f64::midpoint(across, down), across * down];
                sums.iter_mut().zip(own).for_each(|(sum, value)| *sum += value);
                area += 1;
                let neighbours = [
                    (column > 0).then(|| at - 1),
                    (column + 1 < width).then_some(at + 1),
                    (row > 0).then(|| at - width),
                    (row + 1 < height).then_some(at + width),
                ];
                for next in neighbours.into_iter().flatten() {
                    if inside[next] && numbers[next] == NONE {
                        numbers[next] = number;
                        open.push(next);
                    }
                }
            }
            let [similarity, x, y, middle, corner] = sums.map(|sum| sum / area as f64);
            all.push(Component { area, similarity, x, y, middle, corner });
        }
        Self { numbers, all }
    }

    /// The pixels of some of the parts.
    pub fn mask(&self, chosen: &[usize]) -> Vec<bool> {
        let mut wanted = vec![false; self.all.len()];
        for &number in chosen {
            wanted[number] = true;
        }
        self.numbers.iter().map(|&number| wanted.get(number as usize).copied().unwrap_or(false)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_by_hand() {
        // Diagonal neighbours are not connected.
        #[rustfmt::skip]
        let values = [
            1.0, 0.0, 0.0, 0.5,
            0.5, 0.0, 0.5, 0.0,
        ];
        let map = Map { width: 4, height: 2, values: values.to_vec() };
        let parts = Components::new(&map, &values.map(|value| value > 0.0));
        let [left, top, low] = &parts.all[..] else { panic!("{parts:?}") };
        assert_eq!((left.area, left.similarity, left.x, left.y), (2, 0.75, 0.125, 0.5));
        assert_eq!((top.area, top.x, top.y), (1, 0.875, 0.25));
        assert_eq!((low.x, low.y), (0.625, 0.75));
        let at = |place| [left, top, low].map(|part| part.at(place));
        assert_eq!(at(Place::At(Side::Left)), [0.875, 0.125, 0.375]);
        assert_eq!(at(Place::At(Side::Bottom)), [0.5, 0.25, 0.75]);
        // |2x - 1| = 0.75, 0.75, 0.25 and |2y - 1| = 0.5 everywhere.
        assert_eq!(at(Place::Middle), [0.375, 0.375, 0.625]);
        assert_eq!(at(Place::Corner), [0.375, 0.375, 0.125]);
        assert_eq!(parts.mask(&[0, 2]), [true, false, false, false, true, false, true, false]);
    }
}
