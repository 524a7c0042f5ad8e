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

/// Where a map is cut.
#[derive(Debug, Clone, Copy, Default, PartialEq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CutRule {
    /// At 5 %, 10 % .. 95 % of its range, where the variance between the pixels inside and those outside is highest: that of Otsu.
    #[default]
    Otsu,
    /// At one of these, where the mean inside is the furthest above the mean outside: that of Ref-Diff.
    Difference,
    /// At this share of its range.
    Share(f64),
}

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

    /// The cut by a rule; of equally good ones the lowest.
    pub fn cut(&self, rule: CutRule) -> Cut {
        let by_size = match rule {
            CutRule::Share(share) => return self.cut_at(share),
            CutRule::Otsu => true,
            CutRule::Difference => false,
        };
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
            let good = if by_size { apart * apart * inside as f64 * outside as f64 } else { apart };
            if good > best.1 {
                best = (step, good);
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
    fn cuts_by_hand() {
        // Difference: up to 40 % (0.4 + 0.9 + 1) / 3 - 0 = 0.77; to 90 % 0.95 - 0.4 / 3 = 0.82; at 95 % 1 - 1.3 / 4 = 0.68.
        // Otsu: 3 x 2 x 0.77 ^ 2 = 3.53; 2 x 3 x 0.82 ^ 2 = 4.00; 1 x 4 x 0.68 ^ 2 = 1.82.
        for rule in [CutRule::Difference, CutRule::Otsu] {
            let cut = map(&[0.0, 0.4, 0.9, 1.0, 0.0]).cut(rule);
            assert_eq!((cut.share, cut.inside), (0.45, vec![false, false, true, true, false]));
            // The same for any scale and offset of the values.
            let cut = map(&[-2.0, -1.2, -0.2, 0.0, -2.0]).cut(rule);
            assert_eq!(cut.inside, [false, false, true, true, false]);
        }
        // A slope with a peak: the difference is highest at the peak, 1 - 2.4 / 7 = 0.66 against 0.8 - 0.8 / 5 = 0.64 for three
        // pixels; Otsu has those, 3 x 5 x 0.64 ^ 2 = 6.1 against 1 x 7 x 0.66 ^ 2 = 3.0.
        let slope = map(&[0.0, 0.1, 0.2, 0.2, 0.3, 0.6, 0.8, 1.0]);
        assert_eq!(slope.cut(CutRule::Difference).inside.iter().filter(|inside| **inside).count(), 1);
        assert_eq!(slope.cut(CutRule::Otsu).inside.iter().filter(|inside| **inside).count(), 3);
    }

    #[test]
    fn a_fixed_cut_and_a_flat_map() {
        assert_eq!(map(&[1.0, 2.0, 3.0]).cut_at(0.5).inside, [false, true, true]);
        assert_eq!(map(&[1.0, 2.0, 3.0]).cut(CutRule::Share(0.5)).inside, [false, true, true]);
        assert_eq!(map(&[0.3, 0.3]).cut(CutRule::Otsu).inside, [true, true]);
    }
}
