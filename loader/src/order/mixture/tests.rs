use std::collections::{HashMap, HashSet};

use proptest::prelude::*;

use super::*;

fn share(shards: usize, weight: f64) -> Share {
    Share { shards, weight }
}

fn batch(mixture: &Mixture, epoch: u64, step: u64) -> Vec<Place> {
    mixture.rows(Position { epoch, step }, 0..mixture.streams()).collect()
}

/// Worked by hand (Hare's method): of 10 seats, 41.6, 33.3 and 25.1 % get 4.16, 3.33 and 2.51; the last gets the tenth.
#[test]
fn shares_are_rounded_by_largest_remainder() {
    assert_eq!(apportion(10, &[41.6, 33.3, 25.1]), [4, 3, 3]);
    assert_eq!(apportion(7, &[1.0, 1.0, 1.0]), [3, 2, 2]);
    assert_eq!(apportion(64, &[0.7, 0.3]), [45, 19]);
    assert_eq!(assign(&[2, 4]), [(1, 0), (0, 0), (1, 1), (1, 2), (0, 1), (1, 3)]);
}

/// The expected batches come from a Python implementation of the specification (`tests/fixtures/order.py`).
#[test]
fn agrees_with_the_independent_implementation() {
    let cases: serde_json::Value =
        serde_json::from_str(include_str!("../../../tests/fixtures/mixtures.json")).unwrap();
    for case in cases.as_array().unwrap() {
        let number = |name: &str| case[name].as_u64().unwrap();
        let counts: Vec<u32> = serde_json::from_value(case["counts"].clone()).unwrap();
        let shares: Vec<(usize, f64)> = serde_json::from_value(case["shares"].clone()).unwrap();
        let shares: Vec<Share> = shares.into_iter().map(|(shards, weight)| share(shards, weight)).collect();
        let expected: Vec<Vec<(u32, u32)>> = serde_json::from_value(case["batches"].clone()).unwrap();
        let [streams, window, batch_size] = ["streams", "window", "batch"].map(|name| number(name) as usize);
        let mixture =
            Mixture::new(counts, None, &shares, number("seed"), streams, window, batch_size).unwrap();
        for (number, expected) in (number("first")..).zip(expected) {
            let steps = mixture.steps_per_epoch();
            let rows: Vec<_> = batch(&mixture, number / steps, number % steps)
                .into_iter()
                .map(|row| {
                    let id = mixture.sets()[row.set].epoch(row.epoch).sample(row.stream, row.position).id;
                    (id.shard + mixture.first_shard(row.set), id.sample)
                })
                .collect();
            assert_eq!(rows, expected, "batch {number} of {:?}", case["shares"]);
        }
    }
}

#[test]
fn a_mixture_of_one_dataset_is_the_order_of_that_dataset() {
    let counts = vec![40, 7, 30];
    let order = Order::new(counts.clone(), None, 9, 8, 5, 16).unwrap();
    for shares in [vec![], vec![share(3, 0.2)]] {
        let mixture = Mixture::new(counts.clone(), None, &shares, 9, 8, 5, 16).unwrap();
        assert_eq!(mixture.steps_per_epoch(), order.steps_per_epoch());
        assert_eq!(mixture.streams_of(1, 4).unwrap(), 2..4);
        for (epoch, step) in [(0, 0), (0, 3), (5, 2)] {
            // Two rows of each of the eight streams.
            let row = |row: u64| Place { set: 0, epoch, stream: row / 2, position: 2 * step + row % 2 };
            assert!(batch(&mixture, epoch, step).into_iter().eq((0..16).map(row)));
        }
    }
}

#[test]
fn invalid_mixtures_are_rejected() {
    let refused = |shares: &[Share], part: &str| {
        let error = Mixture::new(vec![100, 10], None, shares, 0, 64, 10, 64).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    };
    refused(&[share(1, 1.0)], "1 shards together, but 2");
    refused(&[share(1, 1.0), share(1, 0.0)], "weight of dataset 2 is 0");
    refused(&[share(1, f64::NAN), share(1, 1.0)], "weight of dataset 1");
    refused(&[share(1, 1.0), share(1, 1e-9)], "dataset 2 is too small");
    refused(&[share(1, 1.0), share(1, 1.0)], "dataset 2 has 10 samples, fewer than its 32");
}

proptest! {
    #[test]
    fn every_dataset_goes_through_its_own_epochs(
        sets in prop::collection::vec((prop::collection::vec(1_u32..40, 1..4), 0.2_f64..5.0), 1..4),
        seed: u64, power in 2_u32..5, rows in 1_u64..4, window in 1_usize..20,
    ) {
        let streams = 1_u64 << power;
        let size = streams * rows;
        let counts: Vec<u32> = sets.iter().flat_map(|(counts, _)| counts.clone()).collect();
        let shares: Vec<Share> = sets.iter().map(|(counts, weight)| share(counts.len(), *weight)).collect();
        let Ok(mixture) = Mixture::new(counts, None, &shares, seed, streams as usize, window, size as usize) else {
            // A dataset smaller than its rows of a batch; the test above covers the other errors.
            return Ok(());
        };
        let total: f64 = shares.iter().map(|share| share.weight).sum();
        let mut seen: HashMap<(usize, u64), HashSet<_>> = HashMap::new();
        let steps = mixture.steps_per_epoch();
        for number in 0..3 * steps {
            let rows = batch(&mixture, number / steps, number % steps);
            prop_assert_eq!(rows.len() as u64, size);
            for (set, share) in shares.iter().enumerate() {
                let own = rows.iter().filter(|row| row.set == set).count() as f64;
                let exact = size as f64 * share.weight / total;
                prop_assert!((own - exact).abs() < (size / streams) as f64 + 1e-6, "{} rows, {} wanted", own, exact);
            }
            for row in rows {
                let sample = mixture.sets()[row.set].epoch(row.epoch).sample(row.stream, row.position).id;
                prop_assert!(seen.entry((row.set, row.epoch)).or_default().insert(sample), "twice in an epoch");
            }
        }
        // An epoch is over when fewer samples are left than the dataset's rows of a batch.
        for ((set, epoch), samples) in &seen {
            if seen.contains_key(&(*set, epoch + 1)) {
                let order = &mixture.sets()[*set];
                let of_a_batch = order.plan.batch_size;
                prop_assert!(order.samples() - (samples.len() as u64) < of_a_batch);
            }
        }
    }

    #[test]
    fn ranks_share_a_batch_of_several_datasets(
        weight in 0.1_f64..0.9, power in 0_u32..5, epoch in 0_u64..9, step in 0_u64..9, seed: u64,
    ) {
        let shares = [share(2, weight), share(1, 1.0 - weight)];
        let mixture = Mixture::new(vec![300, 100, 200], None, &shares, seed, 32, 16, 64).unwrap();
        let world = 1 << power;
        let ranks = (0..world).map(|rank| mixture.streams_of(rank, world).unwrap());
        let at = Position { epoch, step };
        let joined: Vec<_> = ranks.clone().flat_map(|streams| mixture.rows(at, streams).collect::<Vec<_>>()).collect();
        prop_assert_eq!(joined, batch(&mixture, epoch, step));
        // Every rank has its share of both datasets, with an error of at most one stream.
        for streams in ranks {
            let first = mixture.rows(at, streams.clone()).filter(|row| row.set == 0).count() as f64;
            let exact = weight * (64 / world) as f64;
            prop_assert!((first - exact).abs() <= 4.0, "{} of {}", first, exact);
        }
    }
}
