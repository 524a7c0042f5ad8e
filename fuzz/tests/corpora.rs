//! Every target on every stored input, of which `examples/seeds.rs` makes the ones with a name; the fuzzer found the others.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::path::{Path, PathBuf};

/// The most memory that one input may take, bytes: what a program has room for many times over. (The inputs are some kB each.)
const MEMORY: u64 = 512 << 20;

/// The most that all inputs may take in the repository, bytes.
const STORED: u64 = 300_000;

/// A line of /proc/self/status, bytes: `VmRSS` is the memory that this process has now, `VmHWM` the most that it had.
fn memory(line: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|found| found.strip_prefix(line)).unwrap();
    line.trim_matches([':', '\t', ' ', 'k', 'B']).parse::<u64>().unwrap() << 10
}

fn inputs(target: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    let mut inputs: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    inputs.sort();
    inputs
}

/// The names in a folder, without their extensions.
fn names(folder: &str) -> Vec<String> {
    let entries = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)).unwrap();
    let stem = |path: PathBuf| path.file_stem().unwrap().to_string_lossy().into_owned();
    let mut names: Vec<_> = entries.map(|entry| stem(entry.unwrap().path())).collect();
    names.sort();
    names
}

#[test]
fn every_target_has_a_program_and_a_corpus() {
    let targets = fuzz::TARGETS.map(|(name, _)| name.to_owned());
    assert_eq!(names("corpus"), targets);
    assert_eq!(names("fuzz_targets"), targets);
}

/// One test for all, because it measures the memory of the whole process.
#[test]
fn no_stored_input_breaks_its_target() {
    let (mut failed, mut count, mut stored) = (Vec::new(), 0, 0);
    for (target, run) in fuzz::TARGETS {
        let inputs = inputs(target);
        assert!(inputs.len() > 9, "{target} has {} inputs", inputs.len());
        for path in inputs {
            let bytes = fs::read(&path).unwrap();
            (count, stored) = (count + 1, stored + bytes.len() as u64);
            // The peak becomes what there is now.
            fs::write("/proc/self/clear_refs", "5").unwrap();
            let before = memory("VmRSS");
            // An input that ends the process or never ends is the one that this file names.
            fs::write(Path::new(env!("CARGO_TARGET_TMPDIR")).join("stored-input"), path.to_str().unwrap())
                .unwrap();
            let ran = std::panic::catch_unwind(|| run(&bytes));
            let taken = memory("VmHWM").saturating_sub(before);
            if ran.is_err() {
                failed.push(format!("{}: panicked", path.display()));
            } else if taken > MEMORY {
                failed.push(format!("{}: took {taken} bytes of memory", path.display()));
            }
        }
    }
    println!("{count} inputs of {stored} bytes");
    assert!(failed.is_empty(), "{failed:#?}");
    assert!(stored <= STORED, "the corpora have {stored} bytes; shrink them as README.md says");
}
