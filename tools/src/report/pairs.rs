//! Chooses the pairs of concepts to show, in one pass over all pairs.

use std::cmp::Ordering;
use std::collections::HashMap;

use concepts::statistics::{Counts, Pair};

/// Number of pairs shown in each table.
pub(super) const SHOWN: usize = 20;

/// Rare pairs have a high mutual information by chance, so a pair needs at least this many samples ...
const MIN_SAMPLES: u64 = 5;
/// ... and at least one sample in this many.
const MIN_SHARE: u64 = 10_000;

/// A pair that owns its names.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Chosen {
    pub(super) a: String,
    pub(super) b: String,
    pub(super) samples: u64,
    pub(super) pmi: f64,
}

/// The pairs to show.
#[derive(Debug)]
pub(super) struct Pairs {
    /// The pairs in the largest number of samples.
    pub(super) frequent: Vec<Chosen>,
    /// The pairs with the highest mutual information.
    pub(super) highest_pmi: Vec<Chosen>,
    /// Minimum number of samples of a pair in [`Pairs::highest_pmi`].
    pub(super) min_samples: u64,
    /// For each concept given to [`Pairs::choose`]: the concept it is most often mentioned with, and in how many
    /// samples.
    pub(super) companions: Vec<Option<(String, u64)>>,
}

impl Pairs {
    /// The best of all pairs, and the companion of each of these concepts.
    pub(super) fn choose(counts: &Counts, concepts: &[&str]) -> Self {
        let min_samples = MIN_SAMPLES.max(counts.totals().samples.div_ceil(MIN_SHARE));
        let places: HashMap<&str, usize> =
            concepts.iter().enumerate().map(|(at, name)| (*name, at)).collect();
        let mut companions: Vec<Option<(&str, u64)>> = vec![None; concepts.len()];
        let (mut frequent, mut highest_pmi) = (Vec::new(), Vec::new());
        for pair in counts.pairs() {
            keep(&mut frequent, pair, by_samples);
            if pair.samples >= min_samples {
                keep(&mut highest_pmi, pair, by_pmi);
            }
            for (one, other) in [(pair.a, pair.b), (pair.b, pair.a)] {
                let Some(&place) = places.get(one) else { continue };
                let best = &mut companions[place];
                if best.is_none_or(|(name, samples)| (pair.samples, name) > (samples, other)) {
                    *best = Some((other, pair.samples));
                }
            }
        }
        let owned = |pairs: Vec<Pair<'_>>| {
            let own = |p: Pair<'_>| Chosen { a: p.a.into(), b: p.b.into(), samples: p.samples, pmi: p.pmi };
            pairs.into_iter().map(own).collect()
        };
        Self {
            frequent: owned(frequent),
            highest_pmi: owned(highest_pmi),
            min_samples,
            companions: companions
                .into_iter()
                .map(|best| best.map(|(name, samples)| (name.to_owned(), samples)))
                .collect(),
        }
    }
}

type Order = fn(&Pair<'_>, &Pair<'_>) -> Ordering;

/// Best first. Equal pairs are in the order of their names, so that the page does not depend on a hash table's order.
fn by_samples(x: &Pair<'_>, y: &Pair<'_>) -> Ordering {
    y.samples.cmp(&x.samples).then_with(|| (x.a, x.b).cmp(&(y.a, y.b)))
}

fn by_pmi(x: &Pair<'_>, y: &Pair<'_>) -> Ordering {
    y.pmi.total_cmp(&x.pmi).then_with(|| by_samples(x, y))
}

/// Keeps the first [`SHOWN`] in this order.
fn keep<'a>(best: &mut Vec<Pair<'a>>, pair: Pair<'a>, order: Order) {
    let at = best.partition_point(|kept| order(kept, &pair) == Ordering::Less);
    if at < SHOWN {
        best.insert(at, pair);
        best.truncate(SHOWN);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_stay_in_order() {
        let names: Vec<String> = (0..100).map(|number| format!("{number:02}")).collect();
        let mut best = Vec::new();
        for (number, name) in names.iter().enumerate() {
            // Every count occurs twice, in an order that goes up and down.
            let samples = (number * 37 % 50) as u64;
            keep(&mut best, Pair { a: name, b: "z", samples, pmi: 0.0 }, by_samples);
        }
        let counts: Vec<u64> = best.iter().map(|pair| pair.samples).collect();
        assert_eq!(counts, (0..SHOWN).map(|at| 49 - at as u64 / 2).collect::<Vec<_>>());
        assert!(best.chunks(2).all(|two| two[0].a < two[1].a));
    }
}
