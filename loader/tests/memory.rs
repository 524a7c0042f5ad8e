//! Memory over many epochs. One test in a program of its own: it looks at the whole process.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::fs;

use common::{settings, write_shards};
use loader::{Loader, Position};

/// Resident memory, bytes.
fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}

#[test]
fn twenty_epochs_take_the_memory_of_two() {
    let folder = tempfile::tempdir().unwrap();
    let shards = write_shards(folder.path(), &[60, 60], |shard, sample| {
        let mut state = (shard * 1000 + sample) as u64 + 1;
        let image = image::RgbImage::from_fn(160, 120, |_, _| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            image::Rgb([(state >> 40) as u8, (state >> 48) as u8, (state >> 56) as u8])
        });
        Some(loader::jpeg::encode(image.as_raw(), 160, 120, 95).unwrap())
    });
    let loader = Loader::open(settings(shards, 12)).unwrap();
    let steps = loader.steps_per_epoch() as usize;
    let mut batches = loader.batches(Position::default());
    let mut epochs = |count: usize| {
        for batch in batches.by_ref().take(count * steps) {
            assert!(batch.unwrap().counters.skipped.is_empty());
        }
        resident()
    };
    let after_two = epochs(2);
    let after_twenty = epochs(18);
    // An epoch reads some 3 MB: keeping any of it would show after eighteen.
    let grown = after_twenty.saturating_sub(after_two);
    assert!(grown < 8 << 20, "grew by {grown} bytes from {after_two}");
}
