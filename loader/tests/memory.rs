//! Memory over many epochs. The only test of its test binary, because it measures the whole process.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::fs;
use std::path::PathBuf;

use common::{settings, with, write_shards};
use loader::{CropKind, Loader, Position};

/// Resident memory, bytes.
fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}

/// Peak of the resident memory since it was last reset, bytes.
fn peak() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}

#[test]
fn memory_is_flat_and_bounded() {
    let folder = tempfile::tempdir().unwrap();
    let shards = write_shards(folder.path(), &[60, 60], |shard, sample| {
        let mut state = (shard * 1000 + sample) as u64 + 1;
        let image = image::RgbImage::from_fn(160, 120, |_, _| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            image::Rgb([(state >> 40) as u8, (state >> 48) as u8, (state >> 56) as u8])
        });
        Some(loader::jpeg::encode(image.as_raw(), 160, 120, 95).unwrap())
    });
    twenty_epochs_take_the_memory_of_two(&shards);
    batches_take_what_the_formula_says(&shards);
}

fn twenty_epochs_take_the_memory_of_two(shards: &[PathBuf]) {
    let loader = Loader::open(settings(shards.to_vec(), 12)).unwrap();
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
    // An epoch reads about 3 MB: if any of it were kept, eighteen epochs would show it.
    let grown = after_twenty.saturating_sub(after_two);
    assert!(grown < 8 << 20, "grew by {grown} bytes from {after_two}");
}

/// Checks the formula of `pipeline.rs`, with images so large that they outweigh everything else.
fn batches_take_what_the_formula_says(shards: &[PathBuf]) {
    let (size, rows) = (640_u64, 8_u64);
    for prefetch in [0, 3] {
        let settings = with(settings(shards.to_vec(), rows as usize), |s| {
            s.options.prefetch = prefetch as usize;
            (s.options.size, s.options.crop) = (size as u32, CropKind::Centre);
        });
        let loader = Loader::open(settings).unwrap();
        // Resets the peak.
        fs::write("/proc/self/clear_refs", "5").unwrap();
        let before = resident();
        for batch in loader.batches(Position::default()).take(40) {
            batch.unwrap();
        }
        let grown = peak().saturating_sub(before);
        let batches = (prefetch + 2) * rows * (size * size * 3 + 8 * 77);
        // Memory outside the formula: decoded images of two threads, rows between the two passes of a resize, stacks.
        let other = 12 << 20;
        assert!(grown < batches + other, "prefetch {prefetch}: {grown} bytes, {batches} by the formula");
        // The bound is tight.
        assert!(grown + other > batches, "prefetch {prefetch}: {grown} bytes, {batches} by the formula");
    }
}
