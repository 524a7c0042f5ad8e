//! A selection: which samples of the shards an epoch has, and how often. See the specification in [`crate::order`]. No I/O
//! here.

use super::permutation::Draws;

/// Separates the draws of fractions from other keys.
const SELECTION: u64 = 6;

/// 1.0 as a fraction of a weight: fractions are integers, so that every machine draws the same samples.
const ONE: f64 = 4_294_967_296.0;

/// The entry of a shard's list with the samples that are drawn for their fraction; whole copies are numbered from 1.
pub(super) const DRAWN: u32 = 0;

/// The selected samples of a shard.
#[derive(Debug, Clone, Default)]
pub(crate) struct Selected {
    /// Samples with a weight of at least 1: those with a larger integer part first, then in tar order.
    whole: Vec<u32>,
    /// How many of them, the first ones, have an integer part of at least 1, 2, ..
    copies: Vec<u32>,
    /// Samples whose weight has a fraction, in tar order.
    fractional: Vec<u32>,
    /// For each, the sum of the fractions up to and including its own.
    ends: Vec<u64>,
}

impl Selected {
    /// Of distinct `samples`, in tar order, and their weights, which are finite and not negative; without weights, all have
    /// the weight 1.
    pub(crate) fn new(samples: Vec<u32>, weights: &[f32]) -> Self {
        if weights.is_empty() {
            let copies = if samples.is_empty() { Vec::new() } else { vec![samples.len() as u32] };
            return Self { whole: samples, copies, ..Self::default() };
        }
        let mut selected = Self::default();
        let mut whole = Vec::new();
        let mut sum = 0;
        for (&sample, &weight) in samples.iter().zip(weights) {
            let (integer, fraction) = (weight.trunc() as u32, f64::from(weight.fract()));
            let fraction = (fraction * ONE).round() as u64;
            if integer > 0 {
                whole.push((integer, sample));
            }
            if fraction > 0 {
                sum += fraction;
                selected.fractional.push(sample);
                selected.ends.push(sum);
            }
        }
        whole.sort_by_key(|&(integer, _)| std::cmp::Reverse(integer));
        let largest = whole.first().map_or(0, |&(integer, _)| integer);
        selected.copies =
            (1..=largest).map(|copy| whole.partition_point(|&(integer, _)| integer >= copy) as u32).collect();
        selected.whole = whole.into_iter().map(|(_, sample)| sample).collect();
        selected
    }

    fn fractions(&self) -> u64 {
        self.ends.last().copied().unwrap_or_default()
    }
}

/// The selected samples of all shards of a dataset.
#[derive(Debug, Clone)]
pub(super) struct Selection {
    shards: Vec<Selected>,
    /// For each shard, the sum of the fractions of the shards before it.
    starts: Vec<u64>,
    /// The sum of all fractions.
    fractions: u64,
    /// Number of samples that are drawn for their fractions in an epoch.
    drawn: u64,
    samples: u64,
    /// The parts of the list: a shard, and which copy of its samples.
    parts: Vec<(u32, u32)>,
}

impl Selection {
    pub(super) fn new(shards: Vec<Selected>) -> Self {
        let mut fractions = 0;
        let mut starts = Vec::with_capacity(shards.len());
        let mut parts: Vec<(u32, u32)> = (0..shards.len() as u32).map(|shard| (shard, 1)).collect();
        for (number, shard) in (0..).zip(&shards) {
            starts.push(fractions);
            fractions += shard.fractions();
            parts.extend((2..=shard.copies.len() as u32).map(|copy| (number, copy)));
            parts.extend((!shard.fractional.is_empty()).then_some((number, DRAWN)));
        }
        let drawn = (u128::from(fractions) + (1 << 31)) >> 32;
        let whole: u64 = shards.iter().flat_map(|shard| &shard.copies).map(|&copy| u64::from(copy)).sum();
        Self { shards, starts, fractions, drawn: drawn as u64, samples: whole + drawn as u64, parts }
    }

    /// Number of samples in an epoch, each as often as it comes.
    pub(super) fn samples(&self) -> u64 {
        self.samples
    }

    /// The parts of an epoch's list.
    pub(super) fn parts(&self) -> &[(u32, u32)] {
        &self.parts
    }

    /// What is drawn in an epoch.
    pub(super) fn draw(&self, seed: u64, epoch: u64) -> Drawing {
        let offset = Draws::new(&[seed, epoch, SELECTION]).below(self.fractions.max(1));
        Drawing { offset, fractions: self.fractions.max(1), drawn: self.drawn }
    }

    /// Number of samples of a part.
    pub(super) fn count(&self, drawing: &Drawing, (shard, copy): (u32, u32)) -> u64 {
        let selected = &self.shards[shard as usize];
        if copy == DRAWN {
            let start = self.starts[shard as usize];
            drawing.before(start + selected.fractions()) - drawing.before(start)
        } else {
            selected.copies.get(copy as usize - 1).copied().unwrap_or_default().into()
        }
    }

    /// Number `index` of the samples of a part, below its [`Self::count`].
    pub(super) fn sample(&self, drawing: &Drawing, (shard, copy): (u32, u32), index: u64) -> u32 {
        let selected = &self.shards[shard as usize];
        if copy != DRAWN {
            return selected.whole[index as usize];
        }
        let start = self.starts[shard as usize];
        let point = drawing.point(drawing.before(start) + index) - start;
        selected.fractional[selected.ends.partition_point(|&end| end <= point)]
    }
}

/// What is drawn in one epoch: `drawn` points at equal distances on the line of all fractions, beginning at random. A sample is
/// drawn as often as points fall on its fraction.
#[derive(Debug, Clone, Copy)]
pub(super) struct Drawing {
    offset: u64,
    fractions: u64,
    drawn: u64,
}

impl Drawing {
    /// Where point number `i` is.
    fn point(&self, i: u64) -> u64 {
        let all = u128::from(i) * u128::from(self.fractions) + u128::from(self.offset);
        (all / u128::from(self.drawn.max(1))) as u64
    }

    /// Number of points before a place.
    fn before(&self, place: u64) -> u64 {
        let scaled = u128::from(place) * u128::from(self.drawn);
        let points = scaled.saturating_sub(self.offset.into()).div_ceil(self.fractions.into());
        (points as u64).min(self.drawn)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// How often each sample of one shard comes in an epoch.
    fn times(selection: &Selection, drawing: &Drawing, samples: usize) -> Vec<u64> {
        let mut times = vec![0; samples];
        for &part in selection.parts() {
            for index in 0..selection.count(drawing, part) {
                times[selection.sample(drawing, part, index) as usize] += 1;
            }
        }
        times
    }

    fn of(weights: &[f32]) -> Selection {
        let samples = (0..weights.len() as u32).collect();
        Selection::new(vec![Selected::new(samples, weights)])
    }

    proptest! {
        /// Over all offsets, a sample comes exactly as often as its weight says, if the fractions have an integer sum.
        #[test]
        fn the_expectation_is_the_weight(eighths in prop::collection::vec(0_u32..40, 1..12)) {
            let rest = (8 - eighths.iter().sum::<u32>() % 8) % 8;
            let weights: Vec<f32> = eighths.iter().chain([&rest]).map(|&n| n as f32 / 8.0).collect();
            let selection = of(&weights);
            prop_assert_eq!(selection.samples() as f32, weights.iter().sum::<f32>());
            let fractions = selection.fractions.max(1);
            // Offsets within an eighth of a weight give the same draw.
            let step = (fractions / (8 * u64::from(weights.len() as u32) * 8)).max(1);
            let mut sums = vec![0; weights.len()];
            let mut draws = 0;
            for offset in (step / 2..fractions).step_by(step as usize) {
                let drawing = Drawing { offset, fractions, drawn: selection.drawn };
                let times = times(&selection, &drawing, weights.len());
                for (i, (&times, &weight)) in times.iter().zip(&weights).enumerate() {
                    prop_assert!(times == weight.floor() as u64 || times == weight.ceil() as u64, "{times} for {weight}");
                    sums[i] += times;
                }
                draws += 1;
            }
            for (&sum, &weight) in sums.iter().zip(&weights) {
                let mean = sum as f32 / draws as f32;
                prop_assert!((mean - weight).abs() < 0.02, "{mean} for {weight}");
            }
        }

        #[test]
        fn an_epoch_has_the_rounded_sum_of_the_weights(
            weights in prop::collection::vec(0_f32..3.0, 1..50), seed: u64, epoch: u64,
        ) {
            let selection = of(&weights);
            let sum: f64 = weights.iter().map(|&weight| f64::from(weight)).sum();
            prop_assume!((sum.fract() - 0.5).abs() > 1e-6);
            prop_assert_eq!(selection.samples(), sum.round() as u64);
            let drawing = selection.draw(seed, epoch);
            let times = times(&selection, &drawing, weights.len());
            prop_assert_eq!(times.iter().sum::<u64>(), selection.samples());
        }
    }

    #[test]
    fn integer_weights_repeat_exactly() {
        let selection = of(&[2.0, 0.0, 1.0, 5.0]);
        let drawing = selection.draw(1, 2);
        assert_eq!(times(&selection, &drawing, 4), [2, 0, 1, 5]);
        // The first copies, then the second ones, ..: copies of a sample are not neighbours in a part.
        assert_eq!(selection.parts(), [(0, 1), (0, 2), (0, 3), (0, 4), (0, 5)]);
    }
}
