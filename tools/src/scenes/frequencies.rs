//! How often the classes of objects come.

use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::classes::{CLASSES, GROUNDS};

/// How often the classes of objects come.
#[derive(Debug, Clone, Default)]
pub(crate) struct Frequencies {
    /// For each, its chance and those of the classes before it, in sum; empty: all are as likely.
    sums: Vec<f64>,
}

impl Frequencies {
    /// By Zipf's law: the class of rank `r`, in the order of [`CLASSES`], comes in proportion to `r^-exponent`.
    pub(crate) fn zipf(exponent: f64) -> Self {
        let weights = (1..=CLASSES.len() - GROUNDS).map(|rank| (rank as f64).powf(-exponent));
        let sums: Vec<f64> = weights
            .scan(0.0, |sum, weight| {
                *sum += weight;
                Some(*sum)
            })
            .collect();
        let total = sums.last().copied().unwrap_or(1.0);
        Self { sums: sums.into_iter().map(|sum| sum / total).collect() }
    }

    /// A random class.
    pub(super) fn class(&self, rng: &mut ChaCha8Rng) -> usize {
        if self.sums.is_empty() {
            return rng.random_range(GROUNDS..CLASSES.len());
        }
        let at: f64 = rng.random();
        GROUNDS + self.sums.partition_point(|&sum| sum <= at).min(self.sums.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn classes_come_by_zipfs_law() {
        let frequencies = Frequencies::zipf(1.0);
        let mut rng = ChaCha8Rng::seed_from_u64(0);
        let mut counts = [0.0_f64; CLASSES.len()];
        for _ in 0..100_000 {
            counts[frequencies.class(&mut rng)] += 1.0;
        }
        assert!(counts[..GROUNDS].iter().all(|&count| count == 0.0));
        // 1 / (1 + 1/2 + .. + 1/12) = 0.3222
        for (rank, &count) in (1..).zip(&counts[GROUNDS..]) {
            let expected = 32_225.0 / f64::from(rank);
            assert!(
                (count - expected).abs() < 5.0 * expected.sqrt(),
                "rank {rank}: {count}, expected {expected}"
            );
        }
    }
}
