//! Maps of similarities, and how a mask is cut from one.

/// Similarity of each pixel with an expression.
#[derive(Debug, Clone, PartialEq)]
pub struct Map {
    /// Pixels per row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Cosines, row by row.
    pub values: Vec<f32>,
}

/// Number of steps into which the range of a map is divided for the best threshold.
const STEPS: usize = 20;

/// The pixels above a threshold.
#[derive(Debug, Clone, PartialEq)]
pub struct Cut {
    /// The threshold, as a share of the range from the lowest to the highest value.
    pub share: f64,
    /// Which pixels are inside.
    pub inside: Vec<bool>,
}

impl Map {
    /// The lowest and the highest value.
    pub fn range(&self) -> (f32, f32) {
        self.values
            .iter()
            .fold((f32::INFINITY, f32::NEG_INFINITY), |(low, high), &v| (low.min(v), high.max(v)))
    }

    /// The pixels that are at least `share` of the range above the lowest value.
    pub fn cut_at(&self, share: f64) -> Cut {
        let least = self.threshold(share);
        Cut { share, inside: self.values.iter().map(|&value| value >= least).collect() }
    }

    /// The cut at 5 %, 10 % .. 95 % of the range whose pixels are, on average, the furthest above the others; the lowest of equal ones.
    pub fn best_cut(&self) -> Cut {
        let thresholds: Vec<f32> = (1..STEPS).map(|step| self.threshold(share_of(step))).collect();
        let mut bins = [(0u64, 0.0f64); STEPS];
        for &value in &self.values {
            let (count, sum) = &mut bins[thresholds.partition_point(|&least| least <= value)];
            *count += 1;
            *sum += f64::from(value);
        }
        let of =
            |bins: &[(u64, f64)]| bins.iter().fold((0, 0.0), |(n, all), (count, sum)| (n + count, all + sum));
        let mut best = (1, f64::NEG_INFINITY);
        for step in 1..STEPS {
            let ((outside, below), (inside, above)) = (of(&bins[..step]), of(&bins[step..]));
            if outside == 0 || inside == 0 {
                continue;
            }
            let apart = above / inside as f64 - below / outside as f64;
            if apart > best.1 {
                best = (step, apart);
            }
        }
        self.cut_at(share_of(best.0))
    }

    fn threshold(&self, share: f64) -> f32 {
        let (low, high) = self.range();
        (f64::from(low) + share * f64::from(high - low)) as f32
    }
}

fn share_of(step: usize) -> f64 {
    step as f64 / STEPS as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(values: &[f32]) -> Map {
        Map { width: values.len(), height: 1, values: values.to_vec() }
    }

    #[test]
    fn the_best_cut_by_hand() {
        // Above 5 % to 40 %: mean (0.4 + 0.9 + 1) / 3 - 0 = 0.77; above 45 % to 90 %: 0.95 - 0.4 / 3 = 0.82; above 95 %: 1 - 1.3 / 4 = 0.68.
        let cut = map(&[0.0, 0.4, 0.9, 1.0, 0.0]).best_cut();
        assert_eq!((cut.share, cut.inside), (0.45, vec![false, false, true, true, false]));
        // The same for any scale and offset of the values.
        let cut = map(&[-2.0, -1.2, -0.2, 0.0, -2.0]).best_cut();
        assert_eq!(cut.inside, [false, false, true, true, false]);
    }

    #[test]
    fn a_fixed_cut_and_a_flat_map() {
        assert_eq!(map(&[1.0, 2.0, 3.0]).cut_at(0.5).inside, [false, true, true]);
        assert_eq!(map(&[0.3, 0.3]).best_cut().inside, [true, true]);
    }
}
