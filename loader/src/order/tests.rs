use std::collections::HashSet;

use proptest::prelude::*;
use serde_json::Value;

use super::*;

/// Step 4 of the specification.
fn global_batch(order: &Order, epoch: &Epoch, step: u64) -> Vec<SampleId> {
    let rows = order.plan.batch_size / order.plan.streams;
    let of_stream =
        |stream| (step * rows..(step + 1) * rows).map(move |position| epoch.sample(stream, position).id);
    (0..order.plan.streams).flat_map(of_stream).collect()
}

/// Compares the batches of the order that `order` makes of (case, streams, window, batch size) with those of a Python implementation
/// of the specification (`tests/fixtures/order.py`).
fn assert_as_specified(cases: &str, order: impl Fn(&Value, [usize; 3]) -> Order) {
    let cases: Vec<Value> = serde_json::from_str(cases).unwrap();
    for case in cases {
        let number = |name: &str| case[name].as_u64().unwrap();
        let expected: Vec<Vec<(u32, u32)>> = serde_json::from_value(case["batches"].clone()).unwrap();
        let order = order(&case, ["streams", "window", "batch"].map(|name| number(name) as usize));
        let epoch = order.epoch(number("epoch"));
        assert_eq!(order.steps_per_epoch(), expected.len() as u64);
        for (step, expected) in expected.into_iter().enumerate() {
            let batch: Vec<_> =
                global_batch(&order, &epoch, step as u64).iter().map(|id| (id.shard, id.sample)).collect();
            assert_eq!(batch, expected, "step {step} of {case}");
        }
    }
}

#[test]
fn agrees_with_the_independent_implementation() {
    assert_as_specified(include_str!("../../tests/fixtures/order.json"), |case, [streams, window, batch]| {
        let counts = serde_json::from_value(case["counts"].clone()).unwrap();
        Order::new(counts, None, case["seed"].as_u64().unwrap(), streams, window, batch).unwrap()
    });
}

#[test]
fn selections_agree_with_the_independent_implementation() {
    assert_as_specified(
        include_str!("../../tests/fixtures/selections.json"),
        |case, [streams, window, batch]| {
            let weights: Vec<Vec<f32>> = serde_json::from_value(case["weights"].clone()).unwrap();
            let (seed, selected) = (case["seed"].as_u64().unwrap(), Some(selected(&weights)));
            Order::new(counts(&weights), selected, seed, streams, window, batch).unwrap()
        },
    );
}

fn counts(weights: &[Vec<f32>]) -> Vec<u32> {
    weights.iter().map(|weights| weights.len() as u32).collect()
}

fn selected(weights: &[Vec<f32>]) -> Vec<Selected> {
    let of = |weights: &Vec<f32>| Selected::new((0..weights.len() as u32).collect(), weights);
    weights.iter().map(of).collect()
}

proptest! {
    #[test]
    fn a_selection_of_all_samples_changes_nothing(
        counts in prop::collection::vec(0_u32..60, 1..12), seed: u64, streams in 1_usize..80, batch_size in 1_usize..70,
    ) {
        let samples: u64 = counts.iter().map(|&n| u64::from(n)).sum();
        prop_assume!(samples >= batch_size as u64);
        let ones: Vec<Vec<f32>> = counts.iter().map(|&n| vec![1.0; n as usize]).collect();
        let selected = selected(&ones);
        let without_weights = counts.iter().map(|&n| Selected::new((0..n).collect(), &[])).collect();
        let [all, selected, without_weights] = [None, Some(selected), Some(without_weights)]
            .map(|selected| Order::new(counts.clone(), selected, seed, streams, 16, batch_size).unwrap());
        for epoch in 0..2 {
            let of = |order: &Order| {
                let epoch = order.epoch(epoch);
                (0..order.steps_per_epoch()).map(|step| global_batch(order, &epoch, step)).collect::<Vec<_>>()
            };
            prop_assert_eq!(of(&all), of(&selected));
            prop_assert_eq!(of(&all), of(&without_weights));
        }
    }

    #[test]
    fn every_sample_at_most_once_and_fewer_than_a_batch_left_out(
        counts in prop::collection::vec(0_u32..60, 1..12),
        seed: u64, epoch: u64, streams in 1_usize..80, window in 1_usize..50, batch_size in 1_usize..70,
    ) {
        let samples: u64 = counts.iter().map(|&n| u64::from(n)).sum();
        prop_assume!(samples >= batch_size as u64);
        let order = Order::new(counts.clone(), None, seed, streams, window, batch_size).unwrap();
        let epoch = order.epoch(epoch);
        let mut seen = HashSet::new();
        for step in 0..order.steps_per_epoch() {
            let batch = global_batch(&order, &epoch, step);
            prop_assert_eq!(batch.len(), batch_size);
            for id in batch {
                prop_assert!(id.sample < counts[id.shard as usize]);
                prop_assert!(seen.insert(id), "{:?} comes twice", id);
            }
        }
        prop_assert!(samples - (seen.len() as u64) < batch_size as u64);
        // The streams cover the whole dataset, including the samples that the batches leave out.
        for stream in 0..order.plan.streams {
            seen.extend((0..epoch.stream_len(stream)).map(|position| epoch.sample(stream, position).id));
        }
        prop_assert_eq!(seen.len() as u64, samples);
    }

    #[test]
    fn any_number_of_ranks_sees_the_same_batches(
        seed: u64, power in 0_u32..7, per_stream in 1_usize..4, world in 1_usize..=64, step_choice: u64,
    ) {
        let streams = 1_usize << power;
        let batch_size = streams * per_stream;
        let mixture = Mixture::new(vec![100, 57, 200, 31], None, &[], seed, streams, 32, batch_size).unwrap();
        let order = &mixture.sets()[0];
        let at = Position { epoch: seed % 7, step: step_choice % order.steps_per_epoch() };
        let epoch = order.epoch(at.epoch);
        let ranks: Result<Vec<_>, _> = (0..world).map(|rank| mixture.streams_of(rank, world)).collect();
        prop_assert_eq!(ranks.is_ok(), streams.is_multiple_of(world));
        if let Ok(ranks) = ranks {
            let rows: Vec<Vec<_>> = ranks.into_iter().map(|streams| mixture.rows(at, streams).collect()).collect();
            prop_assert!(rows.iter().all(|rows| rows.len() == batch_size / world));
            let joined: Vec<_> =
                rows.concat().into_iter().map(|row| epoch.sample(row.stream, row.position).id).collect();
            prop_assert_eq!(joined, global_batch(order, &epoch, at.step));
        }
    }

    #[test]
    fn parts_are_found_by_position(total in 1_u64..5000, parts in 1_u64..100, position: u64) {
        prop_assume!(parts <= total);
        let position = position % total;
        let range = cut(total, parts, part_of(total, parts, position));
        prop_assert!(range.contains(&position));
        prop_assert!((range.end - range.start).abs_diff(total / parts) <= 1);
    }
}

#[test]
fn epochs_and_seeds_differ_and_shards_move() {
    let batches = |seed, epoch| {
        let order = Order::new(vec![50; 8], None, seed, 4, 64, 40).unwrap();
        let epoch = order.epoch(epoch);
        (0..order.steps_per_epoch()).flat_map(|step| global_batch(&order, &epoch, step)).collect::<Vec<_>>()
    };
    let first = batches(0, 0);
    assert_eq!(first, batches(0, 0));
    assert_ne!(first, batches(0, 1));
    assert_ne!(first, batches(1, 0));
}

/// With one shard, the samples left out must differ between epochs.
#[test]
fn samples_left_out_differ_between_epochs() {
    let order = Order::new(vec![390], None, 0, 64, 4096, 32).unwrap();
    let mut seen = HashSet::new();
    for epoch in 0..4 {
        let epoch = order.epoch(epoch);
        seen.extend((0..order.steps_per_epoch()).flat_map(|step| global_batch(&order, &epoch, step)));
    }
    assert_eq!(seen.len(), 390);
}

#[test]
fn streams_shrink_to_a_divisor_of_the_batch() {
    let order = |streams, batch| Mixture::new(vec![1000], None, &[], 0, streams, 10, batch);
    assert_eq!(order(64, 32).unwrap().streams(), 32);
    assert_eq!(order(64, 100).unwrap().streams(), 4);
    assert_eq!(order(64, 256).unwrap().rows_per_stream(), 4);
    let error = order(64, 100).unwrap().streams_of(0, 8).unwrap_err().to_string();
    assert!(error.contains("8 ranks cannot share 4 streams"), "{error}");
    assert!(order(64, 64).unwrap().streams_of(8, 8).is_err());
    assert!(order(64, 1001).unwrap_err().to_string().contains("1000 samples"));
    assert!(order(0, 10).is_err() && order(4, 0).is_err());
}

/// 400 million samples in 40,000 shards: any position is reached at once, without a list of the samples.
#[test]
fn a_large_dataset_can_be_entered_anywhere() {
    let order = Order::new(vec![10_000; 40_000], None, 3, 64, 4096, 4096).unwrap();
    let epoch = order.epoch(7);
    let batch = global_batch(&order, &epoch, 10_000_000 / 4096);
    assert_eq!(batch.len(), 4096);
    // An epoch keeps one entry per shard and none per sample. `examples/resume.rs` measures the time.
    assert_eq!(epoch.listed.len(), 40_000);
    assert_eq!(std::mem::size_of_val(epoch.listed.as_slice()), 40_000 * 16);
    let windows: HashSet<_> = batch.iter().map(|id| id.shard).collect();
    assert!(
        windows.len() <= 3 * 64,
        "the batch needs {} shards, of 64 windows of less than a shard",
        windows.len()
    );
}

#[test]
fn positions_continue_in_the_next_epoch() {
    let at = |epoch, step| Position { epoch, step };
    assert_eq!(at(0, 8).next(10), at(0, 9));
    assert_eq!(at(0, 9).next(10), at(1, 0));
    assert_eq!(at(2, 25).normalised(10), at(4, 5));
    assert_eq!(at(2, 0).normalised(10), at(2, 0));
}
