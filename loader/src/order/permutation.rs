//! Keyed permutations that need no table, and the random draws behind every random choice of the loader.
//!
//! Both are implemented here instead of taken from a crate. Checkpoints rely on the order of samples, also those
//! written by earlier builds, so an update of a dependency must not be able to change it.

/// 2^64 divided by the golden ratio: the increment of the SplitMix64 generator.
const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

/// Feistel rounds. Four give a pseudo-random permutation of a large domain; a small one (a few shards) needs more until
/// every order is equally likely.
const ROUNDS: u64 = 10;

/// The output function of SplitMix64 (Steele, Lea and Flood, 2014): a bijection of 64 bits.
pub(crate) const fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

/// Combines several numbers into one key: `h = mix((h + GOLDEN) ^ part)` for each part in turn, starting from 0.
pub(crate) fn key(parts: &[u64]) -> u64 {
    parts.iter().fold(0, |h: u64, &part| mix(h.wrapping_add(GOLDEN) ^ part))
}

/// Maps 64 random bits to a number below `n`: the upper half of their product.
const fn below(bits: u64, n: u64) -> u64 {
    ((bits as u128 * n as u128) >> 64) as u64
}

/// A permutation of 0..n. It computes any single value in constant time and needs no memory.
///
/// The numbers are laid out in a grid of `rows` = ceil(sqrt n) by `columns` = ceil(n / rows). A round moves every
/// number along its column by an amount that depends on the column, and then along its row by an amount that depends on
/// the row it has reached: a generalised Feistel network (Black and Rogaway, 2002). A value that is not below n is
/// permuted again until it is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Permutation {
    key: u64,
    n: u64,
    rows: u64,
    columns: u64,
}

impl Permutation {
    /// The permutation of 0..n for this key; `n` must be below 2^48.
    pub(crate) fn new(key: u64, n: u64) -> Self {
        let root = n.isqrt();
        let rows = (root + u64::from(root * root < n)).max(1);
        Self { key, n, rows, columns: n.div_ceil(rows).max(1) }
    }

    /// The value at `i` < n.
    pub(crate) fn apply(&self, i: u64) -> u64 {
        debug_assert!(i < self.n);
        let mut value = i;
        loop {
            let (mut row, mut column) = (value % self.rows, value / self.rows);
            for round in 0..ROUNDS {
                row = (row + below(self.bits(2 * round, column), self.rows)) % self.rows;
                column = (column + below(self.bits(2 * round + 1, row), self.columns)) % self.columns;
            }
            value = row + column * self.rows;
            if value < self.n {
                return value;
            }
        }
    }

    /// 64 pseudo-random bits for a half-round and a coordinate (which is below 2^32, because n is below 2^48).
    fn bits(&self, half_round: u64, coordinate: u64) -> u64 {
        mix(self.key ^ mix(coordinate + (half_round << 32)))
    }
}

/// Random draws from one key: value `i` is `mix(key + (i + 1) GOLDEN)`, which is SplitMix64 seeded with the key.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Draws(u64);

impl Draws {
    /// Draws that depend only on these numbers.
    pub(crate) fn new(parts: &[u64]) -> Self {
        Self(key(parts))
    }

    fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(GOLDEN);
        mix(self.0)
    }

    /// A uniform draw from [low, high), made of 53 random bits.
    pub(crate) fn uniform(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * ((self.bits() >> 11) as f64 / (1_u64 << 53) as f64)
    }

    /// A uniform draw from 0..n.
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        below(self.bits(), n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn splitmix_gives_its_published_values() {
        // First outputs for seed 1234567, as listed with the generator's reference code.
        let mut state = 1_234_567_u64;
        let outputs: Vec<u64> = (0..3)
            .map(|_| {
                state = state.wrapping_add(GOLDEN);
                mix(state)
            })
            .collect();
        assert_eq!(
            outputs,
            [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]
        );
    }

    proptest! {
        #[test]
        fn every_value_once(key: u64, n in 1_u64..3000) {
            let permutation = Permutation::new(key, n);
            let mut seen = vec![false; n as usize];
            for i in 0..n {
                let seen = &mut seen[permutation.apply(i) as usize];
                prop_assert!(!std::mem::replace(seen, true));
            }
        }
    }

    /// All orders of a few shards must be equally likely: chi-square over the n! outcomes.
    #[test]
    fn small_permutations_are_uniform() {
        for (n, outcomes) in [(2_u64, 2_usize), (3, 6), (4, 24), (5, 120)] {
            let mut counts = std::collections::HashMap::new();
            let trials = outcomes * 500;
            for trial in 0..trials {
                let permutation = Permutation::new(key(&[trial as u64, 17]), n);
                *counts.entry((0..n).map(|i| permutation.apply(i)).collect::<Vec<_>>()).or_insert(0_usize) +=
                    1;
            }
            let expected = trials as f64 / outcomes as f64;
            let missing = (outcomes - counts.len()) as f64 * expected;
            let chi: f64 =
                counts.values().map(|&c| (c as f64 - expected).powi(2) / expected).sum::<f64>() + missing;
            let degrees = (outcomes - 1) as f64;
            // The mean of the chi-square distribution plus five standard deviations.
            assert!(
                chi < degrees + 5.0 * (2.0 * degrees).sqrt(),
                "n {n}: chi-square {chi} of {degrees} degrees"
            );
        }
    }

    /// In a large permutation, neighbours must not stay neighbours, and positions must not correlate.
    #[test]
    fn large_permutations_scatter() {
        for n in [1000_u64, 4096, 9973] {
            let permutation = Permutation::new(key(&[n]), n);
            let values: Vec<f64> = (0..n).map(|i| permutation.apply(i) as f64).collect();
            let mean = (n - 1) as f64 / 2.0;
            let variance = ((n * n - 1) as f64) / 12.0;
            for lag in [0_usize, 1, 2, 64] {
                let pairs = values.len() - lag;
                let correlation: f64 = if lag == 0 {
                    values.iter().enumerate().map(|(i, v)| (i as f64 - mean) * (v - mean)).sum::<f64>()
                } else {
                    values.windows(lag + 1).map(|w| (w[0] - mean) * (w[lag] - mean)).sum::<f64>()
                } / (pairs as f64 * variance);
                assert!(correlation.abs() < 5.0 / (n as f64).sqrt(), "n {n}, lag {lag}: {correlation}");
            }
        }
    }
}
