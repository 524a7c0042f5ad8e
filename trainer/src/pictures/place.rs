//! Finds the place in a segment with the most room for its name.

/// One class per pixel, row by row.
pub(super) struct Labels<'a> {
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) labels: &'a [u8],
}

impl Labels<'_> {
    /// For each class the pixel with the largest distance to other classes and to the border of the image, as (x, y, distance in
    /// pixels); `None` for classes without pixels.
    pub(super) fn places(&self, classes: usize) -> Vec<Option<(u32, u32, u32)>> {
        let mut best = vec![None; classes];
        for (at, &distance) in self.distances().iter().enumerate() {
            let Some(best) = best.get_mut(usize::from(self.labels[at])) else { continue };
            if best.is_none_or(|(_, _, most)| distance > most) {
                *best = Some((at as u32 % self.width, at as u32 / self.width, distance));
            }
        }
        // A horizontal or vertical step counts 3 in `distances`.
        best.into_iter().map(|place| place.map(|(x, y, distance)| (x, y, distance / 3))).collect()
    }

    /// Distance of each pixel to the nearest pixel of another class or outside, computed in two passes: a horizontal or vertical step
    /// counts 3, a diagonal one 4 (Borgefors, 1986).
    fn distances(&self) -> Vec<u32> {
        let (width, height) = (i64::from(self.width), i64::from(self.height));
        let mut out = vec![u32::MAX; self.labels.len()];
        let mut relax = |x: i64, y: i64, steps: [(i64, i64, u32); 4]| {
            let at = (y * width + x) as usize;
            for (dx, dy, cost) in steps {
                let (nx, ny) = (x + dx, y + dy);
                let there = (ny * width + nx) as usize;
                let inside = (0..width).contains(&nx) && (0..height).contains(&ny);
                let reached = if inside && self.labels[there] == self.labels[at] { out[there] } else { 0 };
                out[at] = out[at].min(reached.saturating_add(cost));
            }
        };
        for y in 0..height {
            for x in 0..width {
                relax(x, y, [(-1, 0, 3), (0, -1, 3), (-1, -1, 4), (1, -1, 4)]);
            }
        }
        for y in (0..height).rev() {
            for x in (0..width).rev() {
                relax(x, y, [(1, 0, 3), (0, 1, 3), (1, 1, 4), (-1, 1, 4)]);
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_of_the_larger_segment() {
        // Class 1 has a block of 3 x 3 in the corner and one of 7 x 7 around (13, 8); the rest is class 0.
        let inside = |x: u32, y: u32| (x < 3 && y < 3) || ((10..17).contains(&x) && (5..12).contains(&y));
        let labels: Vec<u8> = (0..20 * 14).map(|i| u8::from(inside(i % 20, i / 20))).collect();
        let places = Labels { width: 20, height: 14, labels: &labels }.places(3);
        assert_eq!(places[1], Some((13, 8, 4)));
        assert_eq!(places[2], None);
    }
}
